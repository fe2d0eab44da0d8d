"""What keeps a step from being recorded as one CUDA graph: control flow, and nodes that run on the CPU.

What ONNX Runtime 1.31 has no CUDA kernel for stands here as data, and nowhere else. Nothing is run: this is what the
provider's registry says, not a measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.ops import CUDA
from nnspec.recipe import Recipe
from nnspec.training.fixed import fix_sizes, open_symbols, sizes_of
from nnspec.training.precision import NO_BFLOAT16
from nnspec.training.step import build

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

NO_KERNEL = frozenset(
    """Acos Acosh Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Celu Col2Im Cosh DFT Hardmax
    LpPool MaxUnpool Multinomial STFT Sinh Tan Unique""".split()  # noqa: SIM905
)
"""Operators without any CUDA kernel."""

NO_TYPE: Mapping[str, frozenset[ir.DataType]] = {
    "CumSum": frozenset({ir.DataType.BFLOAT16}),
    "GridSample": frozenset({ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}),
    "OneHot": frozenset({ir.DataType.DOUBLE, ir.DataType.INT32}),
    "Pad": frozenset({ir.DataType.INT64, ir.DataType.INT32}),
    "Where": frozenset({ir.DataType.BOOL}),
    **{name: frozenset({ir.DataType.BFLOAT16}) for name in sorted(NO_BFLOAT16 - {"CumSum", "OneHot", "Pad"})},
}
"""Element types that an operator's CUDA kernels leave out."""

UNKNOWN_SIZE = frozenset({"Compress", "NonZero"})
"""Operators whose result has a size that only its values tell, which the CPU must wait for."""

_SHAPES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Obstacle:
    """A node that prevents a CUDA graph, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Whether a training step can be recorded at its batch; `symbols` are sizes that stayed open, which prevents it."""

    train: str
    batch: int
    symbols: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def possible(self) -> bool:
        """Whether nothing prevents it."""
        return not self.symbols and not self.obstacles


def examine(recipe: Recipe, sizes: Mapping[str, int] | None = None) -> Verdict:
    """Say what prevents a CUDA graph of a recipe's step at its batch; `sizes` are those of further symbols."""
    model = fix_sizes(build(recipe, CUDA).step, sizes_of(recipe, sizes))
    return Verdict(recipe.name, recipe.batch, tuple(open_symbols(model.graph)), tuple(obstacles(model.graph)))


def obstacles(graph: ir.Graph) -> list[Obstacle]:
    """Return the nodes of a graph that prevent a CUDA graph, in order; what is constant is none, for it is folded."""
    found: list[Obstacle] = []
    folded: set[ir.Value] = set()
    shapes: set[ir.Value] = set()
    for node in graph:
        given = [v for v in node.inputs if v is not None]
        if node.op_type == "Constant" or (given and all(v in folded for v in given)):
            folded.update(node.outputs)
            continue
        reason = _reason(node)
        if not reason and (node.op_type in _SHAPES or (given and all(v in shapes or v in folded for v in given))):
            shapes.update(node.outputs)
            reason = "computes with sizes on the CPU"
        if reason:
            found.append(Obstacle(node.name or node.op_type, node.op_type, reason))
    return found


def _reason(node: ir.Node) -> str:
    if node.op_type in CONTROL_FLOW:
        return "control flow"
    if node.op_type in NO_KERNEL:
        return "no CUDA kernel"
    if node.op_type in UNKNOWN_SIZE:
        return "the size of its result hangs on values"
    missing = NO_TYPE.get(node.op_type, frozenset())
    # The condition of Where is bool always; what it chooses between says whether there is a kernel.
    of = node.inputs[1:] if node.op_type == "Where" else node.inputs[:1]
    for value in of:
        if value is not None and value.dtype is not None and value.dtype in missing:
            return f"no CUDA kernel for {value.dtype.name.lower()}"
    return _asymmetric(node)


def _asymmetric(node: ir.Node) -> str:
    """Convolutions that ONNX Runtime leaves to the CPU: ConvTranspose with pads that differ, or computed by it."""
    if node.op_type != "ConvTranspose":
        return ""
    pads = list(node.attributes.get_ints("pads", ()) or ())
    half = len(pads) // 2
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    return "ConvTranspose with asymmetric pads" if automatic.startswith("SAME") or pads[:half] != pads[half:] else ""


def report(verdict: Verdict) -> str:
    """Return a verdict as lines for people: nodes of one kind and reason are one line."""
    head = f"{verdict.train} at batch {verdict.batch}"
    if verdict.possible:
        return f"{head}: nothing prevents a CUDA graph"
    lines = [f"{head}: no CUDA graph"]
    lines += [f"  the size {symbol} is open; fix it with `--size {symbol}=N`" for symbol in verdict.symbols]
    groups: dict[tuple[str, str], list[str]] = {}
    for one in verdict.obstacles:
        groups.setdefault((one.op_type, one.reason), []).append(one.node)
    for (op_type, reason), nodes in groups.items():
        shown = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "")
        lines.append(f"  {op_type}: {reason}: {shown}")
    return "\n".join(lines)
