"""Indexing: Gather, Scatter, Slice, TopK and their like."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules.places import through_places
from nnspec.autodiff.rules.rows import FEW_ROWS, by_one_hot, by_sorting, worth_sorting
from nnspec.autodiff.rules.shape import flip, pad_axis
from nnspec.autodiff.terms import NodeView, Term

_FAR = 2**31 - 1


def gather(dy: Term, n: NodeView) -> Term:
    """Add each slice at its index; a constant index, or a range of them, needs zeros around it and no scatter."""
    x, index, axis, op = n.x[0], n.x[1], n.axis(0), n.op
    size = x.dims[axis]
    if index.array is not None and isinstance(size, int) and index.array.size and index.rank <= 1:
        picked = [int(i) + size if i < 0 else int(i) for i in index.array.reshape(-1)]
        if picked == list(range(picked[0], picked[0] + len(picked))):
            whole = dy.unsqueeze([axis]) if index.rank == 0 else dy
            return pad_axis(whole, axis, picked[0], size - picked[0] - len(picked))
    if axis == 0 and not op.target.cpu:
        return op.ScatterND(x.zeros(), index.cast(ir.DataType.INT64).unsqueeze([-1]), dy, reduction="add")
    # ONNX Runtime's ScatterND loses updates on a CPU: threads add to one place at once where an index comes twice.
    behind = dy.dims[axis + index.rank :]
    known = all(isinstance(d, int) for d in behind)
    if axis == 0 and x.rank == 2 and known and isinstance(size, int) and size <= FEW_ROWS:
        return by_one_hot(dy, index, size)
    columns = math.prod(behind) if known else 0  # type: ignore[arg-type]
    if axis == 0 and isinstance(size, int) and worth_sorting(dy, columns):
        return by_sorting(dy, index, size, columns).reshape([size, *behind])  # type: ignore[list-item]
    if index.rank != 1:
        if axis == 0 and known:
            dy = dy.reshape([-1, *behind])  # type: ignore[list-item]
        else:
            rest = [dy.shape(axis + index.rank)] if behind else []
            dy = dy.reshape(op.Concat(dy.shape(0, axis), [-1], *rest, axis=0))
        index = index.reshape([-1])
    around = index.unsqueeze([i for i in range(x.rank) if i != axis])
    return op.ScatterElements(x.zeros(), around.expand(dy), dy, axis=axis, reduction="add")


def gather_elements(dy: Term, n: NodeView) -> Term:
    """Add each element at its index."""
    return n.op.ScatterElements(n.x[0].zeros(), n.x[1], dy, axis=n.axis(0), reduction="add")


def gather_nd(dy: Term, n: NodeView) -> Term:
    """Add each slice at its index."""
    batch = n.attr("batch_dims", 0)
    if batch or n.op.target.cpu:
        # Without batch axes too: see `gather` about ScatterND.
        return through_places(dy, n.x[0], lambda places: n.op.GatherND(places, n.x[1], batch_dims=batch))
    return n.op.ScatterND(n.x[0].zeros(), n.x[1], dy, reduction="add")


def _reduction(n: NodeView) -> str:
    reduction = str(n.attr("reduction", "none"))
    if reduction not in ("none", "add"):
        raise n.error(f"reduction = {reduction} has no gradient rule, only none and add have")
    return reduction


def scatter_elements_data(dy: Term, n: NodeView) -> Term:
    """What was overwritten gets nothing."""
    if _reduction(n) == "add":
        return dy
    return n.op.ScatterElements(dy, n.x[1], n.x[2].zeros(), axis=n.axis(0))


def scatter_elements_updates(dy: Term, n: NodeView) -> Term:
    """What stands where each update went."""
    _reduction(n)
    return n.op.GatherElements(dy, n.x[1], axis=n.axis(0))


def scatter_nd_data(dy: Term, n: NodeView) -> Term:
    """What was overwritten gets nothing."""
    return dy if _reduction(n) == "add" else n.op.ScatterND(dy, n.x[1], n.x[2].zeros())


def scatter_nd_updates(dy: Term, n: NodeView) -> Term:
    """What stands where each update went."""
    _reduction(n)
    return n.op.GatherND(dy, n.x[1])


def slice_(dy: Term, n: NodeView) -> Term:
    """Zeros around the part, and between its elements where the step is not one."""
    x, op = n.x[0], n.op
    known = all(n.input(i) is None or n.x[i].array is not None for i in (1, 3, 4))
    if known:
        starts = n.ints(1) or []
        axes = n.ints(3) or list(range(len(starts)))
        axes = [a + x.rank if a < 0 else a for a in axes]
        steps = n.ints(4) or [1] * len(starts)
        if all(isinstance(x.dims[a], int) and isinstance(dy.dims[a], int) for a in axes):
            for axis, start, step in zip(axes, starts, steps, strict=True):
                dy = _unslice(dy, axis, start, step, int(x.dims[axis]), int(dy.dims[axis]))  # type: ignore[arg-type]
            return dy
        if all(s == 1 for s in steps):
            return _pad_back(dy, x, axes, starts)
    return through_places(dy, x, lambda places: op.Slice(places, *n.x[1:]), unique=True)


def _unslice(dy: Term, axis: int, start: int, step: int, size: int, count: int) -> Term:
    if count == 0:
        return pad_axis(dy, axis, 0, size)
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first = min(max(start + size if start < 0 else start, low), high)
    if step < 0:
        dy, first, step = flip(dy, axis), first + (count - 1) * step, -step
    if step > 1:
        # [.., n, ..] -> [.., n, step, ..] with zeros behind each element -> [.., n * step, ..]
        spaced = pad_axis(dy.unsqueeze([axis + 1]), axis + 1, 0, step - 1)
        dims = [d if isinstance(d, int) else 0 for d in dy.dims]
        if all(isinstance(d, int) for d in dy.dims[axis:]):
            dims[axis] = count * step
            dy = spaced.reshape(dims)
        else:
            s = dy.shape()
            ahead = [s.slice(0, 0, axis)] if axis else []
            behind = [s.slice(0, axis + 1, _FAR)] if axis + 1 < dy.rank else []
            dy = spaced.reshape(dy.op.Concat(*ahead, [count * step], *behind, axis=0))
        count *= step
    return pad_axis(dy, axis, first, size - first - count)


def _pad_back(dy: Term, x: Term, axes: list[int], starts: list[int]) -> Term:
    """Pad by amounts that are known only when the graph runs."""
    op = x.op
    before: list[Term] = []
    for axis in range(x.rank):
        if axis not in axes:
            before.append(op.const([0]))
            continue
        start = starts[axes.index(axis)]
        size = x.shape(axis, axis + 1)
        begin = op.Max(op.Add(size, [start]), [0]) if start < 0 else op.Min(size, [start])
        before.append(begin)
    begins = op.Concat(*before, axis=0)
    ends = op.Sub(op.Sub(x.shape(), dy.shape()), begins)
    return op.Pad(dy, op.Concat(begins, ends, axis=0))


def top_k(dy: Term, n: NodeView) -> Term:
    """Put each value back where it came from; no place occurs twice."""
    return n.op.ScatterElements(n.x[0].zeros(), n.ys[1], dy, axis=n.axis(-1))


def one_hot_values(dy: Term, n: NodeView) -> Term:
    """The sum where the value is off, and where it is on."""
    hot = n.op.OneHot(n.x[0], n.x[1], n.op.const(np.array([0.0, 1.0]), dy.dtype), axis=n.attr("axis", -1))
    on = (dy * hot).sum(keepdims=False).reshape([1])
    return n.op.Concat(dy.sum(keepdims=False).reshape([1]) - on, on, axis=0)


def reverse_sequence(dy: Term, n: NodeView) -> Term:
    """The same reversal."""
    axes = {"batch_axis": n.attr("batch_axis", 1), "time_axis": n.attr("time_axis", 0)}
    return n.op.ReverseSequence(dy, n.x[1], **axes)


def compress(dy: Term, n: NodeView) -> Term:
    """Put what was kept back in its place."""
    return through_places(dy, n.x[0], lambda p: n.op.Compress(p, n.x[1], axis=n.attr("axis")), unique=True)


vjp("Gather", gather, None)
vjp("GatherElements", gather_elements, None)
vjp("GatherND", gather_nd, None)
vjp("ScatterElements", scatter_elements_data, None, scatter_elements_updates)
vjp("ScatterND", scatter_nd_data, None, scatter_nd_updates)
vjp("Slice", slice_, None, None, None, None)
vjp("TopK", top_k, None)
vjp("OneHot", None, None, one_hot_values)
vjp("ReverseSequence", reverse_sequence, None)
vjp("Compress", compress, None)
