"""Plain algebra that saves passes over large tensors, applied while gradients are written down.

Gradients multiply by one broadcast factor after the other. Small factors are multiplied among themselves first, and
leave a sum over axes along which they are constant: `sum(a * f * b)` is `sum(a * b) * f`.
"""

from __future__ import annotations

import onnx_ir as ir

from nnspec.ops import Dims, dims_of
from nnspec.ops.infer import broadcast

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_DEPTH = 3


def producer(value: ir.Value, op_type: str) -> ir.Node | None:
    """Return the node that computes a value, if it is of the type."""
    node = value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None


def is_small(factor: Dims | None, like: Dims | None) -> bool:
    """Return whether a factor has fewer elements than the tensor to which it broadcasts, for certain."""
    if factor is None or like is None or len(factor) > len(like):
        return False
    less = len(factor) < len(like) and any(d != 1 for d in like[: len(like) - len(factor)])
    for mine, other in zip(factor[::-1], like[::-1], strict=False):
        if mine is None or (mine != other and mine != 1):
            return False
        less = less or mine != other
    return less


def joined(a: Dims, b: Dims) -> Dims:
    """Return the dims of a product."""
    return broadcast([a, b])


def constant_along(factor: Dims | None, axes: list[int], rank: int) -> bool:
    """Return whether a factor, broadcast to a rank, is the same along all the axes."""
    if factor is None:
        return False
    return all(axis - rank + len(factor) < 0 or factor[axis - rank + len(factor)] == 1 for axis in axes)


def factors(value: ir.Value, depth: int = _DEPTH) -> list[ir.Value | int]:
    """Return values, and -1 for a negation, whose product a value is."""
    if depth and (node := producer(value, "Mul")) is not None:
        return [f for v in node.inputs if v is not None for f in factors(v, depth - 1)]
    if depth and (node := producer(value, "Neg")) is not None and node.inputs[0] is not None:
        return [-1, *factors(node.inputs[0], depth - 1)]
    return [value]


def viewed(value: ir.Value) -> ir.Value:
    """Return the value whose elements, in the same order, a chain of reshapes shows."""
    node = value.producer()
    while node is not None and node.op_type in _VIEWS and not node.domain and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def pulled_out(value: ir.Value, axes: list[int]) -> tuple[list[ir.Value], list[ir.Value | int]] | None:
    """Return the factors of a value that vary along the axes, and those that do not; None where there is no gain."""
    dims = dims_of(value)
    if dims is None:
        return None
    parts = factors(value)
    outside = [f for f in parts if isinstance(f, int) or constant_along(dims_of(f), axes, len(dims))]
    inside = [f for f in parts if not isinstance(f, int) and not any(f is g for g in outside)]
    if not outside or not inside:
        return None
    # What stays has to span the summed axes as before.
    spanned = dims_of(inside[0])
    for factor in inside[1:]:
        more = dims_of(factor)
        spanned = None if spanned is None or more is None else joined(spanned, more)
    if spanned is None or any(_at(spanned, a, len(dims)) != dims[a] or dims[a] is None for a in axes):
        return None
    return inside, outside


def _at(dims: Dims, axis: int, rank: int) -> int | str | None:
    place = axis - rank + len(dims)
    return dims[place] if place >= 0 else 1
