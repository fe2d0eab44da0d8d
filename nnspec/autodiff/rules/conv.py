"""Convolutions in any number of dimensions: gradients of inputs and biases; `kernel_gradient` has those of weights."""

from __future__ import annotations

import math

from nnspec.autodiff import algebra
from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules.kernel_gradient import channels_first, weight_gradient
from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import NodeView, Term

_FAR = 2**31 - 1


def conv_dx(dy: Term, n: NodeView) -> Term:
    """The transposed convolution of dy."""
    dy, factor = _factor_of_filters(dy)
    w = n.x[1] if factor is None else n.x[1] * factor
    window = Window.of(n, w.dims[2:], n.x[0], n.y)
    return input_gradient(dy, w, n.x[0], window, n.attr("group", 1))


def conv_dw(dy: Term, n: NodeView) -> Term:
    """The correlation of x with dy."""
    dy, factor = _factor_of_filters(dy)
    window = Window.of(n, n.x[1].dims[2:], n.x[0], n.y)
    dw = weight_gradient(n.x[0], dy, n.x[1], window, n.attr("group", 1))
    return dw if factor is None else dw * factor


def _factor_of_filters(dy: Term) -> tuple[Term, Term | None]:
    """Return dy without the factors that each filter has one of, and these as [M, 1, ...]: kernels are smaller."""
    parts = algebra.pulled_out(dy.value, [0, *range(2, dy.rank)])
    if parts is None:
        return dy, None
    inside, outside = parts
    factor = math.prod(f if isinstance(f, int) else dy.op.term(f) for f in outside)
    if not isinstance(factor, Term):
        return dy, None
    if factor.rank:
        factor = factor.reshape([-1, *[1] * (dy.rank - 1)])
    return math.prod((dy.op.term(f) for f in inside[1:]), start=dy.op.term(inside[0])), factor


def bias_gradient(dy: Term, n: NodeView) -> Term:
    """The sum over batch and space."""
    return dy.sum([0, *range(2, dy.rank)], keepdims=False)


def input_gradient(dy: Term, w: Term, x: Term, window: Window, group: int) -> Term:
    """Return the gradient of the convolution's input `x` by the lowering that is faster for its shape.

    Convolving dy with the turned kernel gathers what dy's channels send; ConvTranspose makes what each of x's channels
    gets and adds it up. So the side with fewer channels wins. Per channel, ConvTranspose runs a product for each.
    """
    filters, depth = w.dims[:2]
    if set(window.strides) == {1} and isinstance(filters, int) and isinstance(depth, int):
        crops = all(e - 1 >= max(b, a) for e, b, a in zip(window.extent, window.begins, window.ends, strict=True))
        alone = group > 1 and group == filters and depth == 1
        # In blocks of channels a convolution is faster than ConvTranspose either way.
        gathers = 16 <= filters <= depth or dy.op.target.fits(filters, depth)
        if crops and (alone or (group == 1 and gathers)):
            return _by_turned_kernel(dy, w, window, group)
    return _by_transposed(dy, w, x, window, group)


def _by_turned_kernel(dy: Term, w: Term, window: Window, group: int) -> Term:
    op = dy.op
    axes = list(range(2, dy.rank))
    last = [-1] * window.axes
    turned = w if math.prod(window.kernel) == 1 else op.Slice(w, last, [-_FAR] * window.axes, axes, last)
    if group == 1:
        turned = channels_first(turned)
    begins = [e - 1 - b for e, b in zip(window.extent, window.begins, strict=True)]
    ends = [e - 1 - a for e, a in zip(window.extent, window.ends, strict=True)]
    return op.Conv(
        dy, turned, kernel_shape=list(window.kernel), dilations=list(window.dilations), pads=begins + ends, group=group
    )


def _by_transposed(dy: Term, w: Term, x: Term, window: Window, group: int) -> Term:
    """Return the gradient of the convolution's input `x`, by ConvTranspose.

    Rows that no window reaches, since the stride does not divide, get zeros; uneven padding is cut off afterwards, for
    ConvTranspose with uneven pads has no CUDA kernel.
    """
    op = x.op
    spatial = x.dims[2:]
    shared = [min(b, e) for b, e in zip(window.begins, window.ends, strict=True)]
    attributes = {"strides": list(window.strides), "dilations": list(window.dilations), "group": group}
    known = all(isinstance(s, int) for s in spatial)
    if not known and not all(s == 1 for s in window.strides):
        return _input_gradient_dynamic(dy, w, x, window, attributes)
    if not known:
        extra = [b + e - 2 * s for b, e, s in zip(window.begins, window.ends, shared, strict=True)]
        t = op.ConvTranspose(dy, w, **attributes, pads=shared * 2)
        starts = [b - s for b, s in zip(window.begins, shared, strict=True)]
        stops = [-(x_ - a) if x_ - a else _FAR for x_, a in zip(extra, starts, strict=True)]
        return t if not any(extra) else op.Slice(t, starts, stops, list(range(2, x.rank)))
    sizes = [int(s) for s in spatial]  # type: ignore[arg-type]
    starts = [b - s for b, s in zip(window.begins, shared, strict=True)]
    count = window.reaches(sizes)
    made = [(c - 1) * t + k - 2 * s for c, t, k, s in zip(count, window.strides, window.extent, shared, strict=True)]
    short = [max(0, a + size - m) for a, size, m in zip(starts, sizes, made, strict=True)]
    t = op.ConvTranspose(dy, w, **attributes, pads=shared * 2, output_padding=short if any(short) else None)
    if all(a == 0 and m + r == size for a, m, r, size in zip(starts, made, short, sizes, strict=True)):
        return t
    ends = [a + size for a, size in zip(starts, sizes, strict=True)]
    return op.Slice(t, starts, ends, list(range(2, x.rank)))


def _input_gradient_dynamic(dy: Term, w: Term, x: Term, window: Window, attributes: dict[str, object]) -> Term:
    """Pad or crop at the end by what only the running graph knows."""
    op = x.op
    t = op.ConvTranspose(dy, w, **attributes, pads=[0] * (2 * window.axes))
    if any(window.begins):
        t = op.Slice(t, list(window.begins), [_FAR] * window.axes, list(range(2, x.rank)))
    missing = op.Sub(x.shape(2), t.shape(2))
    return op.Pad(t, op.Concat([0] * (x.rank + 2), missing, axis=0))


def transposed_dx(dy: Term, n: NodeView) -> Term:
    """The plain convolution of dy."""
    w = n.x[1]
    window = Window.of(n, w.dims[2:], n.y, n.x[0])
    return n.op.Conv(
        dy,
        w,
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*window.begins, *window.ends],
        group=n.attr("group", 1),
    )


def transposed_dw(dy: Term, n: NodeView) -> Term:
    """As for the convolution of which this is the input gradient: x and dy have changed places."""
    window = Window.of(n, n.x[1].dims[2:], n.y, n.x[0])
    return weight_gradient(dy, n.x[0], n.x[1], window, n.attr("group", 1))


vjp("Conv", conv_dx, conv_dw, bias_gradient)
vjp("ConvTranspose", transposed_dx, transposed_dw, bias_gradient)
