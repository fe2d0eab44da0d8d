"""Reductions: their rules give what broadcasts to the input, the driver expands it where it must."""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.autodiff.registry import vjp, zero
from nnspec.autodiff.terms import NodeView, Term

zero("ArgMax", "ArgMin", "Shape", "Size", "NonZero")


def reduced_axes(n: NodeView) -> list[int] | None:
    """Return the axes from 0, every axis where none is given, or None where they are known only when the graph runs."""
    given = n.input(1)
    axes = n.attr("axes")
    if given is not None:
        if given.array is None:
            return None
        axes = given.array.reshape(-1).tolist()
    rank = n.x[0].rank
    if axes is None or not len(axes):
        return [] if n.attr("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(a + rank if a < 0 else a for a in axes)


def spread(t: Term, n: NodeView) -> Term:
    """Return `t`, of the output's shape, such that it broadcasts to the input."""
    if n.attr("keepdims", 1):
        return t
    axes = reduced_axes(n)
    if axes is None:
        if not isinstance(n.x[1].dims[0], int):
            raise n.error("the number of reduced axes is unknown")
        return n.op.Unsqueeze(t, n.x[1])
    return t if len(axes) == n.x[0].rank else t.unsqueeze(axes)


def share(n: NodeView) -> Term:
    """Return 1 / how many elements are reduced to one."""
    return inverse_count(n.x[0], n.y, reduced_axes(n))


def inverse_count(x: Term, y: Term, axes: list[int] | None) -> Term:
    """Return the size of `y` divided by that of `x`, of which `y` is a reduction over `axes`."""
    sizes = [None] if axes is None else [x.dims[a] for a in axes]
    if all(isinstance(s, int) for s in sizes):
        return x.like(1 / max(1, math.prod(s for s in sizes if isinstance(s, int))))
    op = x.op
    count = op.Div(op.Size(x), op.Max(op.Size(y), op.const(1))) if axes is None else size_over(x, axes)
    # In float32, since a count may exceed what float16 holds.
    wide = x.dtype if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    return op.Reciprocal(count.cast(wide)).cast(x.dtype)


def size_over(x: Term, axes: list[int]) -> Term:
    """Return the product of the sizes of some axes, as an int64 scalar."""
    fixed = math.prod(d for a in axes if isinstance(d := x.dims[a], int))
    count = x.op.const(fixed)
    for axis in axes:
        if not isinstance(x.dims[axis], int):
            count = x.op.Mul(count, x.op.size(x, axis)) if count.number != 1 else x.op.size(x, axis)
    return count


def reduce_extremum(dy: Term, n: NodeView) -> Term:
    """In equal shares to the elements that attain it, as torch.amax does."""
    hits = n.x[0].equals(spread(n.y, n)).cast(dy.dtype)
    axes = reduced_axes(n)
    count = n.op.ReduceSum(hits, n.x[1], keepdims=1) if axes is None else hits.sum(axes)
    return hits * (spread(dy, n) / count)


def reduce_product(dy: Term, n: NodeView) -> Term:
    """The product of the other factors, right with zeros among them too."""
    x, op = n.x[0], n.op
    is_zero = x.equals(0)
    rest = is_zero.where(1, x)
    axes = reduced_axes(n)
    which = n.x[1] if axes is None else axes
    zeros = op.ReduceSum(is_zero.cast(x.dtype), which, keepdims=1) if which != [] else is_zero.cast(x.dtype)
    product = op.ReduceProd(rest, which, keepdims=1) if which != [] else rest
    one, none = product * zeros.equals(1).cast(x.dtype), product * zeros.equals(0).cast(x.dtype)
    return spread(dy, n) * is_zero.where(one, none / rest)


def reduce_l2(dy: Term, n: NodeView) -> Term:
    """x / |x|, and zero where the norm is zero."""
    return n.x[0] * spread(n.y.equals(0).where(0, dy / n.y), n)


def reduce_log_sum_exp(dy: Term, n: NodeView) -> Term:
    """The softmax; zero where every input is minus infinity."""
    floor = n.y.equals(-math.inf).where(0, n.y)
    return spread(dy, n) * n.op.Exp(n.x[0] - spread(floor, n))


vjp("ReduceSum", lambda dy, n: spread(dy, n), None, lazy=True)
vjp("ReduceMean", lambda dy, n: spread(dy * share(n), n), None, lazy=True)
vjp("ReduceMax", reduce_extremum, None)
vjp("ReduceMin", reduce_extremum, None)
vjp("ReduceProd", reduce_product, None)
vjp("ReduceL1", lambda dy, n: spread(dy, n) * n.op.Sign(n.x[0]), None)
vjp("ReduceL2", reduce_l2, None)
vjp("ReduceSumSquare", lambda dy, n: spread(dy * 2, n) * n.x[0], None)
vjp("ReduceLogSum", lambda dy, n: spread(dy * n.op.Exp(-n.y), n), None, lazy=True)
vjp("ReduceLogSumExp", reduce_log_sum_exp, None)
