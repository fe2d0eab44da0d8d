"""Convolutions in any number of dimensions.

Each gradient has several lowerings that give the same numbers at different speed; `choose` picks one by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nnspec.autodiff.errors import GradientError
from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules import costs
from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import NodeView, Term

_FAR = 2**31 - 1


def conv_dx(dy: Term, n: NodeView) -> Term:
    """The transposed convolution of dy."""
    w = n.x[1]
    window = Window.of(n, w.dims[2:], n.x[0], n.y)
    return input_gradient(dy, w, n.x[0], window, n.attr("group", 1))


def conv_dw(dy: Term, n: NodeView) -> Term:
    """The correlation of x with dy."""
    window = Window.of(n, n.x[1].dims[2:], n.x[0], n.y)
    return weight_gradient(n.x[0], dy, n.x[1], window, n.attr("group", 1))


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
        if crops and (alone or (group == 1 and 16 <= filters <= depth)):
            return _by_turned_kernel(dy, w, window, group)
    return _by_transposed(dy, w, x, window, group)


def _by_turned_kernel(dy: Term, w: Term, window: Window, group: int) -> Term:
    op = dy.op
    axes = list(range(2, dy.rank))
    last = [-1] * window.axes
    turned = w if math.prod(window.kernel) == 1 else op.Slice(w, last, [-_FAR] * window.axes, axes, last)
    if group == 1:
        turned = _channels_first(turned)
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


WeightGradient = Callable[[Term, Term, Term, Window, int], Term]


def weight_gradient(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """Return the gradient of the weight `w` by the lowering that `choose` names."""
    return LOWERINGS[choose(x, dy, w, window, group)](x, dy, w, window, group)


def choose(x: Term, dy: Term, w: Term, window: Window, group: int) -> str:
    """Return the name of the lowering for a weight gradient: a key of `LOWERINGS`.

    The cheapest by `costs`; where the size of the image is unknown, by that of a middling one.
    """
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    if group > 1:
        return "sums" if group == filters and depth == 1 else "gemm"
    if x.rank == 2:
        return "gemm"
    taps = math.prod(window.kernel)
    row = dy.dims[-1] if isinstance(dy.dims[-1], int) else 16
    places = math.prod(d if isinstance(d, int) else 16 for d in dy.dims[2:])
    pixels = math.prod(d if isinstance(d, int) else 16 for d in x.dims[2:])
    dense = set(window.strides) == {1}
    run = (depth * row) if dense else depth
    by_taps = taps * (costs.product(filters, depth, places) + costs.copy(places * depth, run))
    by_taps += costs.transpose(pixels * depth) + costs.copy(places * filters, places)
    batched = costs.product(taps * depth, filters, places)
    if taps > 1:
        batched += costs.copy(taps * places * depth, row if dense else 1) + costs.copy(taps * places * depth, places)
    return "taps" if by_taps < batched else "batched_gemm"


_NARROW = 32
"""ONNX Runtime divides a product among threads by rows and columns, not by depth: below this there is too little."""


def by_taps(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """A matrix product over batch and space for each place of the kernel, [M, N O] by [N O, C], on channels-last `x`.

    Channels-last makes each row of the image one run of memory, which is copied fast and needs no transposition in the
    product; there is nothing to join but the results. Small results are made for each sample and summed, so that
    threads share the work. Only without groups.
    """
    op = x.op
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    taps = _taps(_padded(x, window).transpose([0, *range(2, x.rank), 1]), dy, window, first=1)
    if filters <= _NARROW and depth <= _NARROW:
        rows = op.Reshape(dy, [0, filters, -1])
        products = [(rows @ op.Reshape(t, [0, -1, depth])).sum([0], keepdims=False) for t in taps]
    else:
        rows = _channels_first(dy).reshape([filters, -1])
        products = [rows @ t.reshape([-1, depth]) for t in taps]
    if len(products) == 1:
        return products[0].reshape([filters, depth, *window.kernel])
    whole = op.Concat(*products, axis=1).reshape([filters, len(products), depth])
    return whole.transpose([0, 2, 1]).reshape([filters, depth, *window.kernel])


def by_sums(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """One filter for each channel: the sum of products for each place of the kernel."""
    op = x.op
    sums = [(t * dy).sum([0, *range(2, x.rank)], keepdims=False) for t in _taps(_padded(x, window), dy, window)]
    return op.Concat(*(s.unsqueeze([1]) for s in sums), axis=1).reshape([group, 1, *window.kernel])


def by_gemm(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """One matrix product over batch and space (per group): [M, N O] by [N O, K C], the columns taken from `x`."""
    op = x.op
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    taps = _taps(_channels_first(_padded(x, window)), dy, window)
    rows = _channels_first(dy)
    if group == 1:
        columns = (op.Concat(*taps, axis=0) if len(taps) > 1 else taps[0]).reshape([len(taps) * depth, -1])
        product = op.Gemm(rows.reshape([filters, -1]), columns, transB=1)
    else:
        parts = [t.reshape([group, depth, -1]) for t in taps]
        columns = op.Concat(*parts, axis=1) if len(parts) > 1 else parts[0]
        product = rows.reshape([group, filters // group, -1]) @ columns.swap()
    kernel = list(window.kernel)
    if len(taps) == 1 or depth == 1:
        return product.reshape([filters, depth, *kernel])
    order = [0, len(kernel) + 1, *range(1, len(kernel) + 1)]
    return product.reshape([filters, *kernel, depth]).transpose(order)


def by_batched_gemm(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """A matrix product per example, then the sum over the batch: no transposition of activations."""
    op = x.op
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    taps = _taps(_padded(x, window), dy, window)
    kernel = list(window.kernel)
    if group == 1:
        # The larger operand stands left: the right one is what the product has to rearrange.
        parts = [op.Reshape(t, [0, depth, -1]) for t in taps]
        columns = op.Concat(*parts, axis=1) if len(parts) > 1 else parts[0]
        sums = (columns @ op.Reshape(dy, [0, filters, -1]).swap()).sum([0], keepdims=False)
        whole = sums.reshape([len(taps), depth, filters]).transpose([2, 1, 0])
        return whole.reshape([filters, depth, *kernel])
    parts = [op.Reshape(t, [0, group, depth, -1]) for t in taps]
    columns = op.Concat(*parts, axis=2) if len(parts) > 1 else parts[0]
    product = op.Reshape(dy, [0, group, filters // group, -1]) @ columns.swap()
    order = [0, len(kernel) + 1, *range(1, len(kernel) + 1)]
    return product.sum([0], keepdims=False).reshape([filters, *kernel, depth]).transpose(order)


def by_conv(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """One convolution whose kernel is dy: few nodes, slow on the CPU. Only without groups."""
    op = x.op
    out = op.Conv(
        _channels_first(_padded(x, window)),
        _channels_first(dy),
        strides=list(window.dilations),
        dilations=list(window.strides),
    )
    # Where the stride does not divide, the last window leaves room for further, meaningless taps.
    cut = op.Slice(out, [0] * window.axes, list(window.kernel), list(range(2, x.rank)))
    return _channels_first(cut)


LOWERINGS: dict[str, WeightGradient] = {
    "taps": by_taps,
    "sums": by_sums,
    "gemm": by_gemm,
    "batched_gemm": by_batched_gemm,
    "conv": by_conv,
}


def _fixed(dim: int | str | None) -> int:
    if not isinstance(dim, int):
        raise GradientError("the weight's dims have to be numbers")
    return dim


def _channels_first(t: Term) -> Term:
    return t.transpose([1, 0, *range(2, t.rank)])


def _padded(x: Term, window: Window) -> Term:
    if not any(window.begins + window.ends):
        return x
    return x.op.Pad(x, [0, 0, *window.begins, 0, 0, *window.ends])


def _taps(x: Term, dy: Term, window: Window, first: int = 2) -> list[Term]:
    """Return, for each place of the kernel, the elements of the padded `x` that it meets: dy's spatial shape.

    `first` is the first spatial axis of `x`.
    """
    taps = []
    axes = list(range(first, first + window.axes))
    counts = list(dy.dims[2:])
    if math.prod(window.kernel) == 1 and set(window.strides) == {1}:
        return [x]
    for i in range(math.prod(window.kernel)):
        place: list[int] = []
        rest = i
        for k in reversed(window.kernel):
            place.insert(0, rest % k)
            rest //= k
        starts = [p * d for p, d in zip(place, window.dilations, strict=True)]
        if all(isinstance(c, int) for c in counts):
            ends: object = [s + (int(c) - 1) * t + 1 for s, c, t in zip(starts, counts, window.strides, strict=True)]  # type: ignore[arg-type]
        else:
            spans = x.op.Mul(x.op.Sub(dy.shape(2), [1]), list(window.strides))
            ends = x.op.Add(spans, [s + 1 for s in starts])
        taps.append(x.op.Slice(x, starts, ends, axes, list(window.strides)))
    return taps


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
