"""Pooling over windows and over everything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules.conv import input_gradient
from nnspec.autodiff.rules.places import add_at
from nnspec.autodiff.rules.reduction import inverse_count
from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import NodeView, Term


def max_pool(dy: Term, n: NodeView) -> Term:
    """Add dy where each window's first maximum lies; MaxPool's indices number the elements of the whole tensor."""
    if n.attr("storage_order", 0):
        raise n.error("storage_order = 1 has no gradient rule")
    indices = n.output(1, "indices", ir.DataType.INT64)
    if indices.value.shape is None:
        indices.value.shape = n.y.value.shape
    kernel = n.attr("kernel_shape")
    ones = [1] * len(kernel)
    spans = zip(kernel, n.attr("strides", ones), n.attr("dilations", ones), strict=True)
    apart = all(stride >= dilation * (size - 1) + 1 for size, stride, dilation in spans)
    # MaxUnpool places windows of a smaller image without padding; the indices are those of the whole input anyway.
    inside = not any(n.attr("pads") or ()) and not n.attr("ceil_mode", 0) and n.attr("auto_pad", "NOTSET") == "NOTSET"
    if apart and inside and n.op.target.alone and dy.dtype == ir.DataType.FLOAT:
        back = n.op.MaxUnpool(dy, indices, n.x[0].shape(), kernel_shape=kernel, strides=n.attr("strides", ones))
        back.value.shape = n.x[0].value.shape
        return back
    return add_at(indices, dy, n.x[0], unique=apart)


def _window(n: NodeView) -> Window:
    return Window.of(n, n.attr("kernel_shape"), n.x[0], n.y)


def sum_back(dy: Term, n: NodeView) -> Term:
    """Return for each place of the input the sum of `dy` over the windows that contain it."""
    x, window = n.x[0], _window(n)
    if window.tiles and all(isinstance(d, int) for d in x.dims[2:]) and not n.attr("ceil_mode", 0):
        return _repeat(dy, x, window)
    # Channels join the batch: one ConvTranspose with a single filter of ones.
    ones = n.op.const(np.ones((1, 1, *window.kernel)), dy.dtype)
    window = _with_ceil(n, window)
    dims = [d if isinstance(d, int) else None for d in x.dims]
    single = _fold_channels(x)
    back = input_gradient(_fold_channels(dy), ones, single, window, 1)
    return back.reshape_like(x) if None not in dims[1:] else back.reshape(x.shape())


def _fold_channels(t: Term) -> Term:
    if all(isinstance(d, int) for d in t.dims[2:]):
        return t.reshape([-1, 1, *t.dims[2:]])  # type: ignore[list-item]
    return t.reshape(t.op.Concat([-1, 1], t.shape(2), axis=0))


def _repeat(dy: Term, x: Term, window: Window) -> Term:
    """Copy each element over its window, and put zeros where no window reaches."""
    op = dy.op
    count = [int(d) for d in dy.dims[2:]]  # type: ignore[arg-type]
    lead = dy.shape(0, 2)
    apart = [v for c in count for v in (c, 1)]
    wide = [v for c, k in zip(count, window.kernel, strict=True) for v in (c, k)]
    copies = op.Expand(op.Reshape(dy, [0, 0, *apart]), op.Concat(lead, wide, axis=0))
    joined = op.Reshape(copies, [0, 0, *(c * k for c, k in zip(count, window.kernel, strict=True))])
    left = [int(s) - c * k for s, c, k in zip(x.dims[2:], count, window.kernel, strict=True)]  # type: ignore[arg-type]
    return op.Pad(joined, [0] * (dy.rank + 2) + left) if any(left) else joined


def _with_ceil(n: NodeView, window: Window) -> Window:
    """Extend the padding at the end so that every window that ceil_mode adds lies inside."""
    if not n.attr("ceil_mode", 0):
        return window
    size, count = n.x[0].dims[2:], n.y.dims[2:]
    if not all(isinstance(d, int) for d in (*size, *count)):
        raise n.error("ceil_mode over axes of unknown size has no gradient rule")
    reach = [(int(c) - 1) * s + k for c, s, k in zip(count, window.strides, window.extent, strict=True)]  # type: ignore[arg-type]
    ends = [max(e, r - int(s) - b) for e, r, s, b in zip(window.ends, reach, size, window.begins, strict=True)]  # type: ignore[arg-type]
    return Window(window.kernel, window.strides, window.dilations, window.begins, tuple(ends))


def average_pool(dy: Term, n: NodeView) -> Term:
    """Each window's gradient, divided by how many elements it averages, back to all of them."""
    return sum_back(dy * inverse_window_count(dy, n), n)


def inverse_window_count(dy: Term, n: NodeView) -> Term | float:
    """Return 1 / the number of elements that each window averages: a number where all windows are alike."""
    window = _window(n)
    padded = any(window.begins + window.ends)
    include = bool(n.attr("count_include_pad", 0))
    if not n.attr("ceil_mode", 0) and (include or not padded):
        return 1 / math.prod(window.kernel)
    size = n.x[0].dims[2:]
    if all(isinstance(d, int) for d in size):
        counts = np.ones(())
        for i in range(window.axes):
            counts = np.multiply.outer(counts, _counts(window, i, int(size[i]), int(n.y.dims[2 + i]), include))  # type: ignore[arg-type]
        return n.op.const(1 / counts, dy.dtype)
    if n.attr("ceil_mode", 0):
        raise n.error("ceil_mode over axes of unknown size has no gradient rule")
    ones = dy.like(1).op.Expand(dy.like(1), n.op.Concat([1, 1], n.x[0].shape(2), axis=0))
    kernel = n.op.const(np.ones((1, 1, *window.kernel)), dy.dtype)
    attributes: dict[str, Any] = {"strides": list(window.strides), "dilations": list(window.dilations)}
    return n.op.Reciprocal(n.op.Conv(ones, kernel, pads=[*window.begins, *window.ends], **attributes))


def _counts(window: Window, i: int, size: int, count: int, include: bool) -> Any:
    """Return how many elements of one axis each window meets, padding counted or not; never what ceil_mode adds."""
    first, last = (-window.begins[i], size + window.ends[i]) if include else (0, size)
    places = np.arange(count)[:, None] * window.strides[i] - window.begins[i]
    places = places + np.arange(window.kernel[i])[None] * window.dilations[i]
    inside = (places >= first) & (places < last)
    return np.maximum(1, inside.sum(1))


def lp_pool(dy: Term, n: NodeView) -> Term:
    """x |x|^(p-2) times the sum of dy y^(1-p); zero where a window's norm is zero."""
    p = n.attr("p", 2)
    return _power(n.x[0], p) * sum_back(_by_norm(dy, n.y, p), n)


def global_lp_pool(dy: Term, n: NodeView) -> Term:
    """As lp_pool, with one window."""
    p = n.attr("p", 2)
    return _power(n.x[0], p) * _by_norm(dy, n.y, p)


def _power(x: Term, p: int) -> Term:
    if p == 1:
        return x.op.Sign(x)
    return x if p == 2 else x * x.op.Pow(x.op.Abs(x), x.like(p - 2))


def _by_norm(dy: Term, y: Term, p: int) -> Term:
    if p == 1:
        return dy
    return y.equals(0).where(0, dy / (y if p == 2 else y.op.Pow(y, y.like(p - 1))))


def global_average_pool(dy: Term, n: NodeView) -> Term:
    """An equal share to each place."""
    return dy * inverse_count(n.x[0], n.y, list(range(2, n.x[0].rank)))


def global_max_pool(dy: Term, n: NodeView) -> Term:
    """To the first maximum."""
    x = n.x[0]
    flat = n.op.Reshape(x, [0, 0, -1])
    first = n.op.ArgMax(flat, axis=2, keepdims=1)
    return n.op.ScatterElements(flat.zeros(), first, n.op.Reshape(dy, [0, 0, -1]), axis=2).reshape_like(x)


vjp("MaxPool", max_pool)
vjp("AveragePool", average_pool)
vjp("LpPool", lp_pool)
vjp("GlobalAveragePool", global_average_pool, lazy=True)
vjp("GlobalLpPool", global_lp_pool)
vjp("GlobalMaxPool", global_max_pool)
