"""The summary as text for people: one line for each layer, blocks above what they consist of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nnspec.dims import Dim, total
from nnspec.ir import TensorType
from nnspec.summary import Counts, LayerSummary, Summary
from nnspec.summary.receptive import Field

HEADER = ("layer", "kind", "output", "parameters", "MACs", "receptive field")
NUMERIC = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: a layer, or a block with the sums of what is in it."""

    depth: int
    name: str
    kind: str
    outputs: tuple[TensorType, ...]
    counts: Counts
    macs: Dim
    receptive_field: Field
    shared: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the texts of its columns."""
        counted = self.counts.parameters
        parameters = f"{counted:,}" if counted else ("shared" if self.shared else "")
        return (
            "  " * self.depth + self.name,
            self.kind,
            ", ".join(str(o) for o in self.outputs),
            parameters,
            figure(self.macs) if self.macs else "",
            field_text(self.receptive_field),
        )


def table(summary: Summary, depth: int | None = None) -> str:
    """Return the summary as text: the table, then the totals.

    Blocks that lie deeper than `depth` levels are one line each.
    """
    rows = [HEADER, *(line.cells() for line in lines(summary.layers, depth))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    rule = "  ".join("-" * w for w in widths)
    body = [_format(row, widths) for row in rows]
    width = max(len(rule), 40)
    inputs = ", ".join(f"{name}: {type_}" for name, type_ in summary.inputs.items())
    return "\n".join([f"{summary.network}({inputs})", "", body[0], rule, *body[1:], "-" * width, *totals(summary)])


def totals(summary: Summary) -> list[str]:
    """Return the lines below the table."""
    counts = summary.counts
    parts = [f"{counts.trainable:,} trainable"]
    if counts.frozen:
        parts.append(f"{counts.frozen:,} frozen")
    buffers = f" and {counts.buffers:,} in buffers" if counts.buffers else ""
    every = ", ".join(parts) if counts.frozen else "all trainable"
    return [
        f"parameters         {counts.parameters:,} ({every}){buffers}, {size(counts.bytes)}",
        f"MACs               {figure(summary.macs)} for one sample",
        f"activation memory  {size(summary.activation_bytes)} for one sample",
        *(f"output             {name}: {type_}" for name, type_ in summary.outputs.items()),
    ]


def lines(layers: Sequence[LayerSummary], depth: int | None = None) -> Iterator[Line]:
    """Yield the lines of the table: a block's comes before those of its layers."""
    yield from _lines([(layer.name.split("."), layer) for layer in layers], 0, depth)


def _lines(layers: Sequence[tuple[list[str], LayerSummary]], at: int, depth: int | None) -> Iterator[Line]:
    start = 0
    while start < len(layers):
        path, layer = layers[start]
        if len(path) == at + 1:
            yield Line(
                at, path[at], layer.kind, layer.outputs, layer.counts, layer.macs, layer.receptive_field, layer.shared
            )
            start += 1
            continue
        end = start + 1
        while end < len(layers) and len(layers[end][0]) > at + 1 and layers[end][0][at] == path[at]:
            end += 1
        group = [one for _, one in layers[start:end]]
        counts = sum((one.counts for one in group), Counts())
        macs = total(one.macs for one in group)
        shared = any(one.shared for one in group)
        yield Line(at, path[at], "block", group[-1].outputs, counts, macs, group[-1].receptive_field, shared)
        if depth is None or at + 1 < depth:
            yield from _lines(layers[start:end], at + 1, depth)
        start = end


def figure(dim: Dim) -> str:
    """Write a count with separators, or a symbolic one as its expression."""
    return f"{dim:,}" if isinstance(dim, int) else str(dim)


def field_text(field: Field) -> str:
    """Write a receptive field as `7x7`."""
    if field is None:
        return ""
    return field if isinstance(field, str) else "x".join(str(extent) for extent in field)


def size(count: Dim) -> str:
    """Write a number of bytes in the unit that suits it, or a symbolic one as its expression."""
    if not isinstance(count, int):
        return f"{count} bytes"
    if count < 1024:
        return f"{count} bytes"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def _format(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [c.rjust(w) if i in NUMERIC else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
    return "  ".join(cells).rstrip()
