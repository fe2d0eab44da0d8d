"""Undo broadcasting: the gradient of a broadcast input is the sum over the axes along which it was repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnspec.autodiff.terms import Emit, Term
from nnspec.ops import dims_of


@dataclass(frozen=True, slots=True)
class Grad:
    """A gradient: `term`, which has the shape of its value if `full` and else still has to be broadcast to it."""

    term: Term
    full: bool

    @staticmethod
    def of(term: Term, value: Term) -> Grad:
        """Return the gradient of `value`; it is full where the dims show it."""
        a, b = dims_of(term.value), dims_of(value.value)
        return Grad(term, a is not None and a == b and None not in a)

    def filled(self, value: Term) -> Term:
        """Return the gradient in the shape of `value`."""
        return self.term if self.full or Grad.of(self.term, value).full else self.term.expand(value)


def reduce_to(grad: Grad, x: Term, y: Term, others: Sequence[Term]) -> Grad:
    """Return the gradient of input `x`, given one of the shape of output `y`, to which `x` was broadcast.

    `others` are the node's other inputs: an axis along which they have size 1 did not broadcast `x`.
    """
    xd, yd = dims_of(x.value), dims_of(y.value)
    if xd is None or yd is None:
        return Grad(_reduce_dynamic(grad.filled(y), x, y), True)
    if xd == yd and None not in xd:
        return grad if grad.full else Grad.of(grad.term, x)
    shapes = [dims_of(v.value) for v in others]
    gd = yd if grad.full else grad.term.dims
    axes: list[int] = []
    repeats = 1
    for axis in range(-len(yd), 0):
        mine = xd[axis] if -axis <= len(xd) else 1
        here = gd[axis] if -axis <= len(gd) else 1
        size = yd[axis]
        if mine == 1 and size != 1:
            if not grad.full and here == 1 and not isinstance(size, int):
                return reduce_to(Grad(grad.term.expand(y), True), x, y, others)
            if grad.full or here != 1:
                axes.append(axis)
            elif isinstance(size, int):
                repeats *= size
        elif not isinstance(mine, int) and (mine is None or mine != size) and _may_repeat(mine, axis, shapes):
            return Grad(_reduce_dynamic(grad.filled(y), x, y), True)
    term = grad.term
    rank = len(yd) if grad.full else len(gd)
    extra = max(0, rank - len(xd))
    places = [a + rank for a in axes]
    if places:
        inner = [p for p in places if p >= extra]
        term = term.sum(places, keepdims=bool(inner))
        extra -= 0 if inner else len(places)
    if repeats != 1:
        term = term * repeats
    if extra:
        term = term.squeeze(range(extra))
    return Grad(term, True) if grad.full else Grad.of(term, x)


def unbroadcast(dy: Term, x: Term, y: Term) -> Term:
    """Return the gradient of `x` where `y` is nothing but `x` broadcast."""
    return reduce_to(Grad(dy, True), x, y, [y]).term


def _may_repeat(mine: str | None, axis: int, shapes: Sequence[tuple[int | str | None, ...] | None]) -> bool:
    for other in shapes:
        if other is None:
            return True
        size = other[axis] if -axis <= len(other) else 1
        if size != 1 and (mine is None or size != mine):
            return True
    return False


def _reduce_dynamic(dy: Term, x: Term, y: Term) -> Term:
    """Sum over every axis along which `x`, padded on the left to the rank of `y`, has size 1 when the graph runs."""
    op = dy.op
    shape = x.shape()
    xd, yd = dims_of(x.value), dims_of(y.value)
    if xd is not None and yd is not None:
        padded = op.Concat([1] * (len(yd) - len(xd)), shape, axis=0) if len(yd) > len(xd) else shape
    else:
        missing = op.Sub(op.Size(y.shape()), op.Size(shape))
        padded = op.Concat(op.Expand([1], op.Unsqueeze(missing, [0])), shape, axis=0)
    axes = op.Squeeze(op.NonZero(op.Equal(padded, [1])), [0])
    return op.Reshape(op.ReduceSum(dy, axes, keepdims=1, noop_with_empty_axes=1), shape)


def add(op: Emit, grads: Sequence[Grad], value: Term) -> Grad:
    """Return the sum of the gradients that reach one value along several paths."""
    if len(grads) == 1:
        return grads[0]
    full = any(g.full for g in grads)
    terms = [g.term for g in grads]
    total = terms[0] + terms[1] if len(terms) == 2 else op.Sum(*terms)
    return Grad(total, True) if full else Grad.of(total, value)
