"""The gradient of a convolution's weight: several lowerings, which give the same numbers at different speed.

`choose` picks one by name: the cheapest by `costs`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np

from nnspec.autodiff.errors import GradientError
from nnspec.autodiff.rules import costs, kernel_blocks
from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import Emit, Term
from nnspec.ops import numbers

_LARGE = 2**17
"""Elements of a kernel's gradient from which samples follow one another: a gradient for each would take much memory."""

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
        if group != filters or depth != 1:
            return "gemm"
        block = dy.op.target.block
        return "stacked" if block and filters % block == 0 and _sized(x) and _sized(dy) else "sums"
    if x.rank == 2:
        return "gemm"
    taps = math.prod(window.kernel)
    row = dy.dims[-1] if isinstance(dy.dims[-1], int) else 16
    places = math.prod(d if isinstance(d, int) else 16 for d in dy.dims[2:])
    pixels = math.prod(d if isinstance(d, int) else 16 for d in x.dims[2:])
    dense = set(window.strides) == {1}
    run = (depth * row) if dense else depth
    prices = {}
    prices["taps"] = taps * (costs.product(filters, depth, places) + costs.copy(places * depth, run))
    prices["taps"] += costs.transpose(pixels * depth) + costs.copy(places * filters, places)
    prices["batched_gemm"] = costs.product(taps * depth, filters, places)
    if taps > 1:
        prices["batched_gemm"] += costs.copy(taps * places * depth, row if dense else 1)
        prices["batched_gemm"] += costs.copy(taps * places * depth, places)
        if dy.op.target.cpu:
            on_x = _shifted_on_x(window, depth, filters)
            many, few = (
                math.prod(k for i, k in enumerate(window.kernel) if (i in on_x) is side) for side in (True, False)
            )
            shared = places if set(on_x) == set(range(window.axes)) else pixels
            prices["lags"] = costs.product(max(many * depth, few * filters), min(many * depth, few * filters), shared)
            prices["lags"] += costs.shifts(depth, shared, many) + costs.shifts(filters, shared, few)
        if kernel_blocks.fits(x, dy, w, window):
            prices["blocks"] = costs.blocks(filters, depth, taps, places, pixels)
    return min(prices, key=prices.__getitem__)


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
        rows = channels_first(dy).reshape([filters, -1])
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


def by_lags(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """Shift `x` along some axes of the kernel and dy, the other way, along the rest: one product has all the pairs.

    A place of the kernel is how far x lies from dy. With k places along each of two axes, that makes 2 k copies where
    columns would take k k. A convolution whose filters are the unit vectors makes all copies at once, padded. Only
    without groups.
    """
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    on_x = _shifted_on_x(window, depth, filters)
    axes = range(window.axes)
    begins = [window.begins[i] if i in on_x else window.extent[i] - 1 - window.begins[i] for i in axes]
    ends = [window.ends[i] if i in on_x else window.extent[i] - 1 - window.ends[i] for i in axes]
    rest = [i for i in axes if i not in on_x]
    kernel = window.kernel
    left, right = [depth, *(kernel[i] for i in on_x)], [filters, *(kernel[i] for i in rest)]
    order = [*(len(left) + 1 + rest.index(i) if i in rest else 1 + on_x.index(i) for i in axes)]
    # The larger operand stands left: the right one is what the product has to rearrange.
    x_left = math.prod(left) >= math.prod(right)

    def operands(x: Term, dy: Term) -> tuple[Term, Term]:
        xs = _shifted(x, depth, window, on_x, begins, ends)
        ds = _shifted(dy, filters, window, rest, begins, ends, turned=True)
        return (xs, ds) if x_left else (ds, xs)

    size = (math.prod(left), math.prod(right)) if x_left else (math.prod(right), math.prod(left))
    if math.prod(size) >= _LARGE:
        total = _sample_by_sample(x, dy, operands, size)
    else:
        a, b = operands(x, dy)
        total = (a @ b.swap()).sum([0], keepdims=False)
    if x_left:
        return total.reshape([*left, *right]).transpose([len(left), 0, *order])
    order = [0, len(right), *((o - len(left) if o >= len(left) else o + len(right)) for o in order)]
    return total.reshape([*right, *left]).transpose(order)


def _sample_by_sample(
    x: Term, dy: Term, operands: Callable[[Term, Term], tuple[Term, Term]], size: tuple[int, int]
) -> Term:
    """Return the sum of the products of all samples, made in a loop: each is added to those before as it is made.

    Without the loop a product for each sample, and the operands of all, would be there at once.
    """
    given = [("total", x.dtype, size), ("x", x.dtype, x.dims[1:]), ("dy", dy.dtype, dy.dims[1:])]
    body = x.op.ops.subgraph(given, "samples")
    op = Emit(body)
    total, one_x, one_dy = map(op.term, body.graph.inputs)
    a, b = (op.Squeeze(t, [0]) for t in operands(one_x.unsqueeze([0]), one_dy.unsqueeze([0])))
    body.graph.outputs.append(op.Gemm(a, b, total, transB=1).value)
    start = x.op.Expand(x.like(0), list(size))
    return x.op.Scan(start, x, dy, body=body.graph, num_scan_inputs=2)


def _shifted_on_x(window: Window, depth: int, filters: int) -> list[int]:
    """Return the axes along which x is shifted: those that dy cannot, and of the others those that copy least."""
    axes = range(window.axes)
    fixed = [
        i for i in axes
        if window.strides[i] > 1 or window.extent[i] <= max(window.begins[i], window.ends[i])
    ]  # fmt: skip

    def copies(chosen: Iterable[int]) -> int:
        on_x = math.prod(window.kernel[i] for i in chosen)
        return depth * on_x + filters * (math.prod(window.kernel) // on_x)

    choices = [c for n in range(window.axes + 1) for c in itertools.combinations(axes, n) if set(fixed) <= set(c)]
    return list(min(choices, key=copies))


def _shifted(
    t: Term,
    channels: int,
    window: Window,
    along: list[int],
    begins: list[int],
    ends: list[int],
    turned: bool = False,
) -> Term:
    """Return [N, channels copies, places]: for each place of the kernel's axes in `along`, what of `t` it meets."""
    axes = range(window.axes)
    kernel = [window.kernel[i] if i in along else 1 for i in axes]
    copies = math.prod(kernel)
    settings = {
        "strides": [window.strides[i] if i in along else 1 for i in axes],
        "dilations": [window.dilations[i] if i in along else 1 for i in axes],
        "pads": [p[i] if i in along else 0 for p in (begins, ends) for i in axes],
    }
    if copies > 1 or any(settings["pads"]) or set(settings["strides"]) != {1}:
        unit = np.eye(copies, dtype=np.float32)[:: -1 if turned else 1]
        filters = np.tile(unit, (channels, 1)).reshape(channels * copies, 1, *kernel)
        unit_vectors = t.op.const(filters, t.dtype)
        t = t.op.Conv(t, unit_vectors, kernel_shape=kernel, group=channels, **settings)
    return t.op.Reshape(t, [0, channels * copies, -1])


def by_stacked(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """One filter for each channel: a convolution whose kernel is dy, the samples stacked, with zeros between them.

    Fast where depthwise convolutions are, in the layout of blocks. Only with places of known number.
    """
    op = x.op
    size, count, stride = int(x.dims[2]), int(dy.dims[2]), window.strides[0]  # type: ignore[arg-type]
    begin = window.begins[0]
    # Each sample has as many rows that none of its windows leaves them; a row of dy stands for `stride` rows of x.
    rows = max(-(-(begin + size) // stride), -(-((count - 1) * stride + window.extent[0]) // stride), count)
    image = _stacked(x, begin, rows * stride - begin - size).reshape([1, group, -1, *numbers(x.dims[3:])])
    kernel = _stacked(dy, 0, rows - count).reshape([group, 1, -1, *numbers(dy.dims[3:])])
    begins = [0, *window.begins[1:]]
    ends = [max(0, window.extent[0] - stride)]
    for i in range(1, window.axes):
        spans = window.extent[i] + (int(dy.dims[2 + i]) - 1) * window.strides[i]  # type: ignore[arg-type]
        ends.append(max(0, spans - int(x.dims[2 + i]) - begins[i]))  # type: ignore[arg-type]
    out = op.Conv(
        image,
        kernel,
        group=group,
        strides=list(window.dilations),
        dilations=list(window.strides),
        pads=begins + ends,
    )
    # Where the stride does not divide, the last window leaves room for further, meaningless places.
    cut = op.Slice(out, [0] * window.axes, list(window.kernel), list(range(2, x.rank)))
    return cut.reshape([group, 1, *window.kernel])


def _stacked(t: Term, begin: int, end: int) -> Term:
    """Return [C, N, rows, ...] with zeros before and after the rows of each sample."""
    t = channels_first(t)
    if begin == end == 0:
        return t
    others = [0] * (t.rank - 3)
    return t.op.Pad(t, [0, 0, begin, *others, 0, 0, end, *others])


def by_gemm(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """One matrix product over batch and space (per group): [M, N O] by [N O, K C], the columns taken from `x`."""
    op = x.op
    filters, depth = _fixed(w.dims[0]), _fixed(w.dims[1])
    taps = _taps(channels_first(_padded(x, window)), dy, window)
    rows = channels_first(dy)
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
        channels_first(_padded(x, window)),
        channels_first(dy),
        strides=list(window.dilations),
        dilations=list(window.strides),
    )
    # Where the stride does not divide, the last window leaves room for further, meaningless taps.
    cut = op.Slice(out, [0] * window.axes, list(window.kernel), list(range(2, x.rank)))
    return channels_first(cut)


LOWERINGS: dict[str, WeightGradient] = {
    "taps": by_taps,
    "sums": by_sums,
    "gemm": by_gemm,
    "batched_gemm": by_batched_gemm,
    "conv": by_conv,
    "lags": by_lags,
    "blocks": kernel_blocks.by_blocks,
    "stacked": by_stacked,
}


def _fixed(dim: int | str | None) -> int:
    if not isinstance(dim, int):
        raise GradientError("the weight's dims have to be numbers")
    return dim


def _sized(t: Term) -> bool:
    """Return whether the number of places along each axis is known."""
    return all(isinstance(d, int) for d in t.dims[2:])


def channels_first(t: Term) -> Term:
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
