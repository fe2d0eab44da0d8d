"""Resize: a linear operator along each axis, whose matrix is Resize applied to the identity."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules.places import through_places
from nnspec.autodiff.terms import NodeView, Term


def resize(dy: Term, n: NodeView) -> Term:
    """Multiply by the transposed matrix of each resized axis; nearest neighbours by whole factors just add up."""
    if n.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise n.error("coordinate_transformation_mode = tf_crop_and_resize has no gradient rule")
    x = n.x[0]
    factors = _whole_factors(n)
    if factors is not None:
        split = [v for d, f in zip(x.static or (), factors, strict=True) for v in (d, f)]
        return (
            dy.reshape(split).sum([2 * i + 1 for i, f in enumerate(factors) if f != 1], keepdims=False).reshape_like(x)
        )
    if n.attr("mode", "nearest") == "nearest":
        return through_places(dy, x, lambda p: _again(n, p.cast(ir.DataType.INT32)).cast(ir.DataType.INT64))
    axes = n.attr("axes") or list(range(x.rank))
    axes = [a + x.rank if a < 0 else a for a in axes]
    for place, axis in enumerate(axes):
        if x.dims[axis] == dy.dims[axis] and x.dims[axis] is not None:
            continue
        dy = _contract(dy, _matrix(n, place, axis), axis)
    return dy


def _whole_factors(n: NodeView) -> list[int] | None:
    """Return how often nearest-neighbour enlargement repeats each element, if it does nothing else."""
    x, y = n.x[0].static, n.y.static
    modes = n.attr("coordinate_transformation_mode", "half_pixel"), n.attr("nearest_mode", "round_prefer_floor")
    plain = (modes[0] == "half_pixel" and str(modes[1]).startswith("round")) or modes == ("asymmetric", "floor")
    if n.attr("mode", "nearest") != "nearest" or not plain or x is None or y is None:
        return None
    if any(b % a for a, b in zip(x, y, strict=True)):
        return None
    scales = n.input(2)
    if scales is not None and scales.value.const_value is not None and scales.array is not None and scales.array.size:
        axes = n.attr("axes") or list(range(len(x)))
        if any(float(s) != y[a] / x[a] for a, s in zip(axes, scales.array.tolist(), strict=True)):
            return None
    return [b // a for a, b in zip(x, y, strict=True)]


def _again(n: NodeView, x: Term) -> Term:
    """Resize another tensor of the same shape in the same way."""
    return n.op.Resize(
        x, *(n.input(i) for i in range(1, len(n.x))), **{a.name: a.value for a in n.node.attributes.values()}
    )


def _matrix(n: NodeView, place: int, axis: int) -> Term:
    """Return the matrix [out, in] by which Resize maps one axis."""
    x, op = n.x[0], n.op
    size = x.dims[axis]
    if isinstance(size, int):
        identity = op.const(np.eye(size, dtype=np.float32))
    else:
        count = x.shape(axis, axis + 1)
        line = op.Range(op.const(np.int64(0)), op.Squeeze(count, [0]), op.const(np.int64(1)))
        identity = op.Equal(line.unsqueeze([0]), line.unsqueeze([1])).cast(ir.DataType.FLOAT)
    attributes = {
        a.name: a.value for a in n.node.attributes.values() if a.name not in ("axes", "keep_aspect_ratio_policy")
    }
    scales, sizes = n.input(2), n.input(3)
    if scales is not None and scales.dims != (0,):
        scale = op.Concat(scales.slice(0, place, place + 1), op.const(np.ones(1, np.float32)), axis=0)
        matrix = op.Resize(identity, None, scale, **attributes)
    else:
        assert sizes is not None
        # By the size that came out: keep_aspect_ratio_policy may have changed the one that was asked for.
        target = op.Concat(n.y.shape(axis, axis + 1), x.shape(axis, axis + 1), axis=0)
        matrix = op.Resize(identity, None, None, target, **attributes)
    return matrix.cast(x.dtype)


def _contract(dy: Term, matrix: Term, axis: int) -> Term:
    """Return `dy` with the axis mapped by the transposed matrix."""
    if axis == dy.rank - 1:
        return dy @ matrix
    if axis == dy.rank - 2:
        return matrix.transpose([1, 0]) @ dy
    order = [i for i in range(dy.rank) if i != axis] + [axis]
    back = [int(i) for i in np.argsort(order)]
    return (dy.transpose(order) @ matrix).transpose(back)


vjp("Resize", resize, None, None, None)
