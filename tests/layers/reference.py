"""What the layers compute, by their definitions, in plain NumPy and float64: slow, short, and made without nnspec.

`tests/oracle/layers.py` checks these against PyTorch. Arrays have the batch first, then channels, then space.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def places(*sizes: Sequence[int]) -> itertools.product[tuple[int, ...]]:
    """Return every index of a grid."""
    return itertools.product(*(range(s) for s in sizes[0]))


def pad(x: Array, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Array:
    """Put a border around the spatial axes."""
    return np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)], constant_values=value)


def same(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the padding that makes ceil(size / stride) windows, the odd one at the end."""
    amount = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return amount // 2, amount - amount // 2


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Sequence[int] | None = None,
    begins: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> Array:
    """y[n, f, p] = bias[f] + sum over c, k of weight[f, c, k] x[n, c, p stride + k dilation]."""
    kernel = weight.shape[2:]
    n = len(kernel)
    stride, dilation = stride or [1] * n, dilation or [1] * n
    begins = begins or [0] * n
    x = pad(x, begins, ends or begins)
    out = [(s - d * (k - 1) - 1) // t + 1 for s, k, t, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    filters, depth = weight.shape[:2]
    y = np.zeros((x.shape[0], filters, *out))
    for f, p in itertools.product(range(filters), places(out)):
        group = f // (filters // groups)
        channels = slice(group * depth, (group + 1) * depth)
        for k in places(kernel):
            at = tuple(i * s + j * d for i, s, j, d in zip(p, stride, k, dilation, strict=True))
            y[(slice(None), f, *p)] += x[(slice(None), channels, *at)] @ weight[(f, slice(None), *k)]
        if bias is not None:
            y[(slice(None), f, *p)] += bias[f]
    return y


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array,
    *,
    stride: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
    extra: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
    groups: int = 1,
) -> Array:
    """Each input element adds its kernel, weight[c, f, k], to the output; then the borders are cut."""
    kernel = weight.shape[2:]
    n = len(kernel)
    extra, dilation = extra or [0] * n, dilation or [1] * n
    full = [
        (s - 1) * t + d * (k - 1) + 1 + e
        for s, k, t, d, e in zip(x.shape[2:], kernel, stride, dilation, extra, strict=True)
    ]
    channels, per_group = weight.shape[:2]
    y = np.zeros((x.shape[0], per_group * groups, *full))
    for c, p in itertools.product(range(channels), places(x.shape[2:])):
        first = c // (channels // groups) * per_group
        for k in places(kernel):
            at = tuple(i * s + j * d for i, s, j, d in zip(p, stride, k, dilation, strict=True))
            y[(slice(None), slice(first, first + per_group), *at)] += np.outer(
                x[(slice(None), c, *p)], weight[(c, slice(None), *k)]
            )
    cut = tuple(slice(b, size - e) for b, e, size in zip(begins, ends, full, strict=True))
    y = y[(slice(None), slice(None), *cut)]
    return y + bias.reshape(1, -1, *[1] * n)


def pool(
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int],
    *,
    begins: Sequence[int] | None = None,
    ends: Sequence[int] | None = None,
    ceil: bool = False,
    mean: bool = False,
    count_pad: bool = False,
) -> Array:
    """Maximum or mean of each window.

    With `ceil` a window may reach beyond the end, but not start there; what it finds beyond the padding never counts.
    """
    n = len(kernel)
    begins = begins or [0] * n
    ends = ends or begins
    spatial = x.shape[2:]
    out = []
    for s, k, t, b, e in zip(spatial, kernel, stride, begins, ends, strict=True):
        count = (math.ceil if ceil else math.floor)((s + b + e - k) / t) + 1
        out.append(count - 1 if ceil and (count - 1) * t >= s + b else count)
    y = np.zeros((*x.shape[:2], *out))
    for p in places(out):
        inside, counted = [], 1
        for i, s, k, t, b, e in zip(p, spatial, kernel, stride, begins, ends, strict=True):
            first = i * t - b
            inside.append(slice(max(first, 0), min(first + k, s)))
            counted *= min(first + k, s + e) - first
        window = x[(slice(None), slice(None), *inside)].reshape(*x.shape[:2], -1)
        if not mean:
            y[(slice(None), slice(None), *p)] = window.max(-1)
        else:
            y[(slice(None), slice(None), *p)] = window.sum(-1) / (counted if count_pad else window.shape[-1])
    return y


def lrn(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """x / (k + alpha / size * sum of squares of the channels around)^beta."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        around = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (around**2).sum(1)) ** beta
    return y


def upsample_linear(x: Array, scale: Sequence[int]) -> Array:
    """Interpolate each spatial axis between the centres of its pixels; the borders repeat."""
    for axis, s in enumerate(scale, 2):
        size = x.shape[axis]
        at = np.clip((np.arange(size * s) + 0.5) / s - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape(-1, *[1] * (x.ndim - axis - 1))
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


def normalise(x: Array, axes: tuple[int, ...], epsilon: float = 1e-5) -> Array:
    """Shift and scale to mean 0 and variance 1 over axes."""
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum exp(x)."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def erf(x: Array) -> Array:
    """The Gaussian error function."""
    return np.vectorize(math.erf)(x).astype(np.float64)
