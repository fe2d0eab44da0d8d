"""Small weights joined into one flat buffer for the optimizer: its many passes then start once instead of once each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from nnspec.ops import Ops

SMALL = 16384
"""Elements up to which a weight is joined: for more, copying them costs more than starting ten operators."""


def small(shape: Sequence[int]) -> bool:
    """Return whether a weight of this shape is better joined with others."""
    return math.prod(shape) <= SMALL


def join(op: Ops, values: Sequence[ir.Value], shapes: Sequence[Sequence[int]]) -> ir.Value:
    """Return the elements of all values in one vector."""
    flat = [v if len(s) == 1 else op.Reshape(v, [-1]) for v, s in zip(values, shapes, strict=True)]
    joined: ir.Value = op.Concat(*flat, axis=0)
    return joined


def part(op: Ops, joined: ir.Value, shapes: Sequence[Sequence[int]]) -> list[ir.Value]:
    """Return the values of which `join` made a vector."""
    flat = op.Split(joined, [math.prod(s) for s in shapes], axis=0, outputs=len(shapes))
    return [v if len(s) == 1 else op.Reshape(v, list(s)) for v, s in zip(flat, shapes, strict=True)]
