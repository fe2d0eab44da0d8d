"""Rearranging, joining and repeating: nothing is computed, so the gradient is put back where it came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnspec.autodiff.broadcast import unbroadcast
from nnspec.autodiff.registry import joint, vjp
from nnspec.autodiff.rules.places import through_places
from nnspec.autodiff.terms import NodeView, Term

vjp("Reshape", lambda dy, n: dy.reshape_like(n.x[0]), None)
vjp("Flatten", lambda dy, n: dy.reshape_like(n.x[0]))
vjp("Squeeze", lambda dy, n: dy.reshape_like(n.x[0]), None)
vjp("Unsqueeze", lambda dy, n: dy.reshape_like(n.x[0]), None)
vjp("Expand", lambda dy, n: unbroadcast(dy, n.x[0], n.y), None)
vjp("Trilu", lambda dy, n: n.op.Trilu(dy, n.input(1), upper=n.attr("upper", 1)), None)
vjp("SpaceToDepth", lambda dy, n: n.op.DepthToSpace(dy, blocksize=n.attr("blocksize")))


def transpose(dy: Term, n: NodeView) -> Term:
    """By the inverse permutation."""
    perm = n.attr("perm") or list(range(dy.rank))[::-1]
    return dy.transpose([int(i) for i in np.argsort(perm)])


def depth_to_space(dy: Term, n: NodeView) -> Term:
    """SpaceToDepth, with the channels in the order of the mode."""
    block = n.attr("blocksize")
    if n.attr("mode", "DCR") == "DCR":
        return n.op.SpaceToDepth(dy, blocksize=block)
    x = n.x[0]
    channels, height, width = x.dims[1:]
    if isinstance(channels, int) and isinstance(height, int) and isinstance(width, int):
        split = dy.reshape([-1, channels // block**2, height, block, width, block])
    else:
        s = x.shape()
        parts = [s.slice(0, 0, 1), n.op.Div(s.slice(0, 1, 2), [block**2]), s.slice(0, 2, 3), [block]]
        split = dy.reshape(n.op.Concat(*parts, s.slice(0, 3, 4), [block], axis=0))
    return split.transpose([0, 1, 3, 5, 2, 4]).reshape_like(x)


def cumsum(dy: Term, n: NodeView) -> Term:
    """The cumulative sum from the other end."""
    exclusive, reverse = n.attr("exclusive", 0), n.attr("reverse", 0)
    return n.op.CumSum(dy, n.x[1], exclusive=exclusive, reverse=1 - reverse)


def concat(n: NodeView) -> list[Term | None]:
    """To each input its part: one Split where several are wanted."""
    (dy,) = n.dys
    assert dy is not None
    axis = n.axis(0)
    sizes = [x.dims[axis] for x in n.x]
    if len(n.x) == 1:
        return [dy]
    if all(isinstance(s, int) for s in sizes) and sum(n.wanted) == 1:
        i = n.wanted.index(True)
        ends = np.cumsum([int(s) for s in sizes if s is not None]).tolist()
        return [dy.slice(axis, ends[i - 1] if i else 0, ends[i]) if j == i else None for j in range(len(sizes))]
    if all(isinstance(s, int) for s in sizes):
        lengths: object = sizes
    else:
        lengths = n.op.Concat(*(x.shape(axis, axis + 1) for x in n.x), axis=0)
    parts = n.op.many("Split", len(n.x), dy, lengths, axis=axis)
    return [p if w else None for p, w in zip(parts, n.wanted, strict=True)]


def split(n: NodeView) -> list[Term | None]:
    """The parts side by side; zeros for one that nothing depends on."""
    parts = [y.zeros() if dy is None else dy for dy, y in zip(n.dys, n.ys, strict=True)]
    dx = n.op.Concat(*parts, axis=n.axis(0)) if len(parts) > 1 else parts[0]
    return [dx] + [None] * (len(n.x) - 1)


def tile(dy: Term, n: NodeView) -> Term:
    """Sum over the copies."""
    x, repeats = n.x[0], n.x[1]
    if x.rank == 0:
        return dy
    shape = x.shape()
    counts = repeats.array
    if counts is not None and x.static is not None:
        both = [int(v) for pair in zip(counts.tolist(), x.static, strict=True) for v in pair]
        return dy.reshape(both).sum([2 * i for i in range(x.rank) if counts[i] != 1], keepdims=False).reshape_like(x)
    pairs = n.op.Reshape(n.op.Concat(repeats.unsqueeze([1]), shape.unsqueeze([1]), axis=1), [-1])
    return n.op.ReduceSum(n.op.Reshape(dy, pairs), [2 * i for i in range(x.rank)], keepdims=0)


def pad_axis(t: Term, axis: int, before: int, after: int) -> Term:
    """Return `t` with zeros before and after along one axis; negative numbers crop."""
    if before < 0 or after < 0:
        t = t.slice(axis, max(0, -before), after if after < 0 else 2**31 - 1)
    before, after = max(0, before), max(0, after)
    if not before and not after:
        return t
    pads = [0] * (2 * t.rank)
    pads[axis], pads[axis + t.rank] = before, after
    return t.op.Pad(t, pads)


def pad(dy: Term, n: NodeView) -> Term:
    """Cut off what was added; edge, reflected and wrapped elements go back to where they were copied from."""
    x, mode = n.x[0], n.attr("mode", "constant")
    pads = n.input(1)
    assert pads is not None
    axes = n.ints(3) if n.input(3) is None or n.x[3].array is not None else None
    if pads.array is None or (n.input(3) is not None and axes is None):
        if mode == "constant":
            return n.op.Pad(dy, n.op.Neg(pads), None, n.input(3))
        return through_places(dy, x, lambda places: n.op.Pad(places, pads, None, n.input(3), mode=mode))
    amounts = [int(p) for p in pads.array.tolist()]
    where = list(range(x.rank)) if axes is None else [a + x.rank if a < 0 else a for a in axes]
    begins, ends = amounts[: len(where)], amounts[len(where) :]
    if mode == "constant":
        return _crop(dy, where, begins, ends)
    sizes = [x.dims[a] for a in where]
    folded = [s for s, b, e in zip(sizes, begins, ends, strict=True) if b or e]
    simple = all(
        isinstance(s, int) and min(b, e) >= 0 and max(b, e) < s + (mode != "reflect")
        for s, b, e in zip(sizes, begins, ends, strict=True)
        if b or e
    )
    if not folded:
        return dy
    if not simple and mode != "edge":
        return through_places(dy, x, lambda places: n.op.Pad(places, pads, None, n.input(3), mode=mode))
    if not all(isinstance(s, int) for s in folded) or min(amounts) < 0:
        return through_places(dy, x, lambda places: n.op.Pad(places, pads, None, n.input(3), mode=mode))
    for axis, size, before, after in zip(where, sizes, begins, ends, strict=True):
        assert isinstance(size, int) or not (before or after)
        if isinstance(size, int):
            dy = _fold(dy, axis, size, before, after, mode)
    return dy


def _crop(dy: Term, axes: Sequence[int], begins: Sequence[int], ends: Sequence[int]) -> Term:
    cut = [(a, b, e) for a, b, e in zip(axes, begins, ends, strict=True) if b > 0 or e > 0]
    if cut:
        starts = [max(0, b) for _, b, _ in cut]
        stops = [-e if e > 0 else 2**31 - 1 for _, _, e in cut]
        dy = dy.op.Slice(dy, starts, stops, [a for a, _, _ in cut])
    grow = [0] * (2 * dy.rank)
    for axis, before, after in zip(axes, begins, ends, strict=True):
        grow[axis], grow[axis + dy.rank] = max(0, -before), max(0, -after)
    return dy.op.Pad(dy, grow) if any(grow) else dy


def _fold(dy: Term, axis: int, size: int, before: int, after: int, mode: str) -> Term:
    """Add what stands in the margins of one axis to the elements of which it is a copy."""
    middle = dy.slice(axis, before, before + size) if before or after else dy
    head, tail = dy.slice(axis, 0, before), dy.slice(axis, before + size, before + size + after)
    if mode == "edge":
        head, tail = head.sum([axis]), tail.sum([axis])
        at_head, at_tail = (0, size - 1), (size - 1, 0)
    elif mode == "reflect":
        head, tail = flip(head, axis), flip(tail, axis)
        at_head, at_tail = (1, size - 1 - before), (size - 1 - after, 1)
    else:
        at_head, at_tail = (size - before, 0), (0, size - after)
    total = middle
    if before:
        total = total + pad_axis(head, axis, *at_head)
    if after:
        total = total + pad_axis(tail, axis, *at_tail)
    return total


def flip(t: Term, axis: int) -> Term:
    """Return `t` in reverse order along one axis."""
    return t.slice(axis, -1, -(2**31) + 1, -1)


def pad_value(dy: Term, n: NodeView) -> Term:
    """All that lies in the margins."""
    return (dy.sum(keepdims=False) - pad(dy, n).sum(keepdims=False)).reshape_like(n.x[2])


vjp("Transpose", transpose)
vjp("DepthToSpace", depth_to_space)
vjp("CumSum", cumsum, None)
vjp("Tile", tile, None)
vjp("Pad", pad, None, pad_value, None)
joint("Concat", concat)
joint("Split", split)
