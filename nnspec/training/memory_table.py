"""The memory of a training step as text for people and as plain data."""

from __future__ import annotations

from typing import Any

from nnspec.summary.table import size
from nnspec.training.memory import TrainingMemory
from nnspec.training.timeline import Live

SHOWN = 15
"""How many of the tensors at the peak are listed."""


def memory_table(memory: TrainingMemory) -> str:
    """Return the parts of the peak, then the largest tensors that are there at that moment."""
    lines = [
        f"weights              {size(memory.weights)}",
        f"optimizer and others {size(memory.optimizer)}",
        f"second set of both   {size(memory.second_copies)}",
        f"data                 {size(memory.data)}",
        f"tensors at the peak  {size(memory.activations)}",
        f"allocator's gaps     {size(memory.fragments)}",
        f"session              {size(memory.session)}",
        f"peak                 {size(memory.peak)} at batch {memory.batch}, in {memory.at}",
    ]
    if memory.unknown:
        names = " ".join(f"--size {s}=N" for s in memory.unknown)
        lines.append(f"not counted: tensors of open sizes; say how long they are with {names}")
    rows = [("tensor", "of", "type", "shape", "size"), *map(_row, memory.live[:SHOWN])]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    rest = memory.live[SHOWN:]
    more = [f"and {len(rest)} more of {size(sum(one.bytes for one in rest))} together"] if rest else []
    return "\n".join([*lines, "", table[0], "-" * len(table[0]), *table[1:], *more])


def _row(one: Live) -> tuple[str, ...]:
    return one.name, one.layer, one.dtype, str(list(one.shape)), size(one.bytes)


def as_json(memory: TrainingMemory) -> dict[str, Any]:
    """Return all of it as plain data, in bytes."""
    return {
        "batch": memory.batch,
        "peak": memory.peak,
        "at": memory.at,
        "weights": memory.weights,
        "optimizer": memory.optimizer,
        "second_copies": memory.second_copies,
        "data": memory.data,
        "activations": memory.activations,
        "fragments": memory.fragments,
        "session": memory.session,
        "open_sizes": list(memory.unknown),
        "live": [
            {"name": one.name, "of": one.layer, "dtype": one.dtype, "shape": list(one.shape), "bytes": one.bytes}
            for one in memory.live
        ],
    }
