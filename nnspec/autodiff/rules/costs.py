"""What lowerings cost on a CPU, as nanoseconds for one sample on one thread.

The constants were measured in ONNX Runtime 1.31 on one Zen 3 core (AVX2), over convolutions of 1 to 192 channels, 5x5
to 32x32 places and kernels of 1, 3 and 5; the model gives them to within a third. It only has to rank.
"""

from __future__ import annotations

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
