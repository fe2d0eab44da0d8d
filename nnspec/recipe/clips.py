"""Bounds on gradients, against explosions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnspec.recipe.base import Above, Clip

if TYPE_CHECKING:
    import onnx_ir as ir

    from nnspec.ops import Ops


class ByValue(Clip, keyword="value"):
    """Bound each element: `clip = value(15)`; g = min(max(g, -limit), limit)."""

    limit: Above
    """The largest magnitude of an element."""

    def apply(self, op: Ops, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        return [op.Clip(g, op.constant(-self.limit, g.dtype), op.constant(self.limit, g.dtype)) for g in gradients]


class ByNorm(Clip, keyword="norm"):
    """Bound the norm (Pascanu et al. 2013): `clip = norm(1.0)`; g = g min(1, limit / (norm + 1e-6)).

    The norm is the Euclidean one over the elements of all gradients, as PyTorch's `clip_grad_norm_` has it.
    """

    limit: Above
    """The largest norm."""

    def apply(self, op: Ops, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        norm = op.Sqrt(_total(op, [_squares(op, g) for g in gradients]))
        factor = op.Min(op.Div(self.limit, op.Add(norm, 1e-6)), op.constant(1.0, norm.dtype))
        return [op.Mul(g, factor) for g in gradients]


def _squares(op: Ops, g: ir.Value) -> ir.Value:
    # In two stages: ONNX Runtime sums one long axis naively, which loses digits.
    rank = len(g.shape) if g.shape is not None else 0
    rows = op.ReduceSumSquare(g, list(range(1, rank)), keepdims=0) if rank > 1 else g
    value: ir.Value = op.ReduceSum(rows, keepdims=0) if rank > 1 else op.ReduceSumSquare(g, keepdims=0)
    return value


def _total(op: Ops, parts: Sequence[ir.Value]) -> ir.Value:
    total: ir.Value = parts[0] if len(parts) == 1 else op.Sum(*parts)
    return total
