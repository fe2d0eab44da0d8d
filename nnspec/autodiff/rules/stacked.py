"""Gradients of weights that a loop uses in every step, computed for all steps at once behind the loop."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.broadcast import unbroadcast
from nnspec.autodiff.rules.steps import Stack
from nnspec.autodiff.terms import Term

SUMMABLE = frozenset({"MatMul", "Gemm", "Add", "Sub"})
"""Operators whose gradient by an operand is a matrix product, or dy itself, summed over the steps."""


@dataclass(frozen=True, slots=True)
class Product:
    """The gradient of operand `i` of a node of the loop's body: `value`, which comes from outside.

    `other` holds the other factor of all steps; `slot` says as which of the loop's outputs dy comes.
    """

    node: ir.Node
    i: int
    value: ir.Value
    weight: Term
    other: Stack | None
    slot: int | None = None


def product(p: Product, dy: Term) -> Term:
    """Return the gradient, from the dy of all steps [T, ...] in the same order as the other factor."""
    if p.other is None:
        scaled = dy * _attribute(p.node, "beta", 1.0) if p.node.op_type == "Gemm" else dy
        negative = p.node.op_type == "Sub" and p.i == 1
        total = unbroadcast(scaled, p.weight, scaled)
        return -total if negative else total
    alpha, ta, tb = 1.0, False, False
    if p.node.op_type == "Gemm":
        alpha = float(_attribute(p.node, "alpha", 1.0))
        ta, tb = bool(_attribute(p.node, "transA", 0)), bool(_attribute(p.node, "transB", 0))
    other = p.other.term
    scale = None if alpha == 1 else alpha
    if p.i == 1:
        # y = a w: a [.., rows, K] and dy [.., rows, N], summed over all rows of all steps.
        a, d = _rows(other.swap() if ta else other), _rows(dy)
        left, right = (d, a) if tb else (a, d)
        return left.op.Gemm(left, right, transA=1, alpha=scale)
    # y = w b: dy [T, M, N] and b [T, K, N], summed over N and the steps.
    vector = p.node.op_type == "MatMul" and other.rank == 2
    if vector:
        return dy.op.Gemm(dy, other, transA=1)
    d = _columns(dy)
    b = _rows(other) if tb else _columns(other)
    if ta:
        return b.op.Gemm(b, d, transA=1 if tb else None, transB=1, alpha=scale)
    return d.op.Gemm(d, b, transB=None if tb else 1, alpha=scale)


def _attribute(node: ir.Node, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else float(found.value)


def _rows(t: Term) -> Term:
    """[T, .., rows, K] to [all rows, K]."""
    width = t.dims[-1]
    return (
        t
        if t.rank == 2
        else t.reshape([-1, width] if isinstance(width, int) else t.op.Concat([-1], t.shape(-1), axis=0))
    )


def _columns(t: Term) -> Term:
    """[T, .., K, N] to [K, all columns]."""
    order = [t.rank - 2, *range(t.rank - 2), t.rank - 1]
    height = t.dims[-2]
    turned = t.transpose(order)
    return turned.reshape([height, -1] if isinstance(height, int) else t.op.Concat(t.shape(-2, -1), [-1], axis=0))
