"""Penalties on large weights, as terms of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnspec.recipe.base import AtLeast, Regularizer

if TYPE_CHECKING:
    import onnx_ir as ir

    from nnspec.ops import Ops


class L2(Regularizer, keyword="l2"):
    """Weight decay: `regularize = l2(0.0005)`; g = g + rate w, the penalty rate |w|^2 / 2."""

    rate: AtLeast
    """Strength; PyTorch's `weight_decay`."""

    def add(self, op: Ops, weight: ir.Value, gradient: ir.Value) -> ir.Value:
        value: ir.Value = op.Add(gradient, op.Mul(weight, self.rate))
        return value


class L1(Regularizer, keyword="l1"):
    """Sparse weights: `regularize = l1(0.0001)`; g = g + rate sign(w), the penalty rate |w|."""

    rate: AtLeast
    """Strength."""

    def add(self, op: Ops, weight: ir.Value, gradient: ir.Value) -> ir.Value:
        value: ir.Value = op.Add(gradient, op.Mul(op.Sign(weight), self.rate))
        return value


class Elastic(Regularizer, keyword="elastic"):
    """Elastic net (Zou and Hastie 2005): `regularize = elastic(0.0001, 0.0005)`; g = g + l1 sign(w) + l2 w."""

    l1: AtLeast
    """Strength of the absolute values."""
    l2: AtLeast
    """Strength of the squares."""

    def add(self, op: Ops, weight: ir.Value, gradient: ir.Value) -> ir.Value:
        value: ir.Value = op.Add(gradient, op.Add(op.Mul(op.Sign(weight), self.l1), op.Mul(weight, self.l2)))
        return value
