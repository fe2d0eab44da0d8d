"""What lowerings cost on a CPU, as nanoseconds for one sample on one thread.

The constants were measured in ONNX Runtime 1.31 on one Zen 3 core (AVX2), over convolutions of 1 to 192 channels, 5x5
to 32x32 places and kernels of 1, 3 and 5; the model gives them to within a third. It only has to rank.
"""

from __future__ import annotations

import math

_FLOPS = 90.0
"""What a matrix product does in a nanosecond when nothing waits."""
_COLUMNS = 16
"""The right operand goes into panels of so many columns; the last one is filled up."""
_PACK = 0.5
"""Bringing an element of the right operand into its panel."""
_COPY = 0.4
"""Copying an element in a long run."""
_RUN = 6.0
"""Beginning a run."""
_TRANSPOSE = 0.6
"""Moving an element so that neighbours part."""
_GROUP, _SHIFT, _UNIT = 150.0, 0.4, 0.035
"""Shifted copies by a convolution with unit vectors: beginning a channel, an element, a product with each vector."""
_BLOCKS = ((2**19, 85.0), (2**23, 70.0), (math.inf, 25.0))
"""A convolution of whole images in blocks: what it does in a nanosecond while that many bytes of its kernel are in use
at once. Beyond the first it leaves a core's own cache, beyond the second that of all cores."""
_AT_ONCE = 32 * 8 * 4
"""Bytes of each place of the kernel in use at once: four blocks of filters, one of samples."""
_INTO = (1.7, 1.3)
"""Bringing an element of x, or of dy, into the order for it."""


def product(rows: int, columns: int, depth: int) -> float:
    """A matrix product [rows, depth] by [depth, columns]."""
    panels = -(-columns // _COLUMNS) * _COLUMNS
    return 2.0 * rows * panels * depth / _FLOPS + _PACK * panels * depth


def copy(elements: int, run: int) -> float:
    """Copying elements that lie together in runs."""
    return elements * (_COPY + _RUN / run)


def transpose(elements: int) -> float:
    """A transposition that parts neighbours."""
    return elements * _TRANSPOSE


def shifts(channels: int, places: int, copies: int) -> float:
    """Shifted copies of channels, made by a convolution with unit vectors."""
    return channels * (_GROUP + places * copies * (_SHIFT + _UNIT * copies)) if copies > 1 else 0.0


def blocks(filters: int, depth: int, taps: int, places: int, pixels: int) -> float:
    """A convolution of images with `pixels` by images with `places`, in blocks, and the way there."""
    rate = next(rate for size, rate in _BLOCKS if places * _AT_ONCE <= size)
    into = _INTO[0] * pixels * depth + _INTO[1] * places * filters
    return 2.0 * filters * depth * taps * places / rate + into
