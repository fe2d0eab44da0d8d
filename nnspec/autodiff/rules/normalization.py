"""Normalisations: the gradient of the statistics is part of the gradient of the input."""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.autodiff.broadcast import Grad, reduce_to
from nnspec.autodiff.registry import vjp
from nnspec.autodiff.rules.shape import pad_axis
from nnspec.autodiff.terms import NodeView, Term
from nnspec.lower import OF_BATCH


def mean(t: Term, axes: list[int]) -> Term:
    """Return the mean over the axes, which stay with size 1."""
    return t.op.ReduceMean(t, axes)


def centred(x: Term, axes: list[int], epsilon: float) -> tuple[Term, Term]:
    """Return x normalised to mean 0 and variance 1 over the axes, and 1 / its standard deviation."""
    difference = x - mean(x, axes)
    inverse = x.op.Reciprocal(x.op.Sqrt(mean(difference * difference, axes) + epsilon))
    return difference * inverse, inverse


def through_statistics(dxhat: Term, xhat: Term, inverse: Term, axes: list[int]) -> Term:
    """Return the gradient by x, from that by the normalised x (Ioffe and Szegedy, 2015, equations of section 3)."""
    return inverse * (dxhat - mean(dxhat, axes) - xhat * mean(dxhat * xhat, axes))


def layer_statistics(n: NodeView) -> tuple[Term, Term, list[int]]:
    """Return the normalised input, 1 / deviation and the axes; from the node's own outputs where these are exact."""
    x = n.x[0]
    axis = n.axis(-1)
    axes = list(range(axis, x.rank))
    if x.dtype == ir.DataType.DOUBLE:
        # The outputs Mean and InvStdDev are float32 only.
        return *centred(x, axes, n.attr("epsilon", 1e-5)), axes
    dims = [*x.dims[:axis], *[1] * len(axes)]
    statistics = []
    for i, name in ((1, "mean"), (2, "deviation")):
        value = n.output(i, name, ir.DataType.FLOAT)
        if value.value.shape is None:
            value.value.shape = ir.Shape(dims)
        statistics.append(value)
    centre, inverse = statistics
    if x.dtype == ir.DataType.FLOAT:
        return (x - centre) * inverse, inverse, axes
    xhat = ((x.cast(ir.DataType.FLOAT) - centre) * inverse).cast(x.dtype)
    return xhat, inverse.cast(x.dtype), axes


def layer_dx(dy: Term, n: NodeView) -> Term:
    """See through_statistics."""
    xhat, inverse, axes = layer_statistics(n)
    return through_statistics(dy * n.x[1], xhat, inverse, axes)


def layer_dscale(dy: Term, n: NodeView) -> Term:
    """dy xhat, summed over what the scale was broadcast to."""
    return _parameter(dy * layer_statistics(n)[0], n, 1)


def _parameter(d: Term, n: NodeView, i: int) -> Term:
    return reduce_to(Grad(d, True), n.x[i], n.y, [n.y]).term


vjp("LayerNormalization", layer_dx, layer_dscale, lambda dy, n: _parameter(dy, n, 2))


def _groups(n: NodeView) -> int:
    """Return the number of groups; InstanceNormalization has one per channel."""
    if n.node.op_type == "GroupNormalization":
        return int(n.attr("num_groups"))
    channels = n.x[0].dims[1]
    if not isinstance(channels, int):
        raise n.error("the number of channels is unknown")
    return channels


def _grouped(t: Term, n: NodeView) -> Term:
    return n.op.Reshape(t, [0, _groups(n), -1])


def _per_channel(t: Term, n: NodeView) -> Term:
    """Return a vector with one element per channel, or per group (opset 18), shaped to broadcast to the input."""
    x = n.x[0]
    if t.dims[0] != x.dims[1] and isinstance(x.dims[1], int) and isinstance(t.dims[0], int):
        t = n.op.Expand(t.unsqueeze([1]), [t.dims[0], x.dims[1] // t.dims[0]]).reshape([-1])
    return t.unsqueeze(list(range(1, x.rank - 1)))


def group_dx(dy: Term, n: NodeView) -> Term:
    """See through_statistics, over each group's channels and space."""
    xhat, inverse = centred(_grouped(n.x[0], n), [2], n.attr("epsilon", 1e-5))
    dxhat = _grouped(dy * _per_channel(n.x[1], n), n)
    return through_statistics(dxhat, xhat, inverse, [2]).reshape_like(n.x[0])


def group_dscale(dy: Term, n: NodeView) -> Term:
    """dy xhat, summed over batch and space."""
    xhat, _ = centred(_grouped(n.x[0], n), [2], n.attr("epsilon", 1e-5))
    return _over_channels(dy * xhat.reshape_like(n.x[0]), n)


def _over_channels(d: Term, n: NodeView) -> Term:
    total = d.sum([0, *range(2, d.rank)], keepdims=False)
    channels, wanted = total.dims[0], n.x[1].dims[0]
    if channels == wanted or not isinstance(wanted, int):
        return total
    return total.reshape([wanted, -1]).sum([1], keepdims=False)


for _name in ("GroupNormalization", "InstanceNormalization"):
    vjp(_name, group_dx, group_dscale, lambda dy, n: _over_channels(dy, n))


def _training(n: NodeView) -> bool:
    return bool(n.attr("training_mode", 0))


def _spatial(n: NodeView) -> list[int]:
    return [0, *range(2, n.x[0].rank)]


def batch_statistics(n: NodeView) -> tuple[Term, Term]:
    """Return the normalised input and 1 / deviation, by the given statistics or, in training, by the batch's own."""
    epsilon = n.attr("epsilon", 1e-5)
    if _training(n):
        return centred(n.x[0], _spatial(n), epsilon)
    inverse = _per_channel(n.op.Reciprocal(n.op.Sqrt(n.x[4] + epsilon)), n)
    return (n.x[0] - _per_channel(n.x[3], n)) * inverse, inverse


def _of_batch(n: NodeView) -> bool:
    return OF_BATCH in n.node.metadata_props


def _inverse(n: NodeView) -> Term:
    return n.op.Reciprocal(n.op.Sqrt(n.x[4] + float(n.attr("epsilon", 1e-5))))


def _channel_mean(t: Term) -> Term:
    """Return the mean over batch and space, in two stages: that is more exact and faster than in one."""
    rows = t.op.ReduceMean(t, list(range(2, t.rank)), keepdims=0)
    return rows.op.ReduceMean(rows, [0], keepdims=0)


def _count(n: NodeView) -> Term:
    """Return how many elements a channel has."""
    return n.op.Size(n.y).cast(n.y.dtype) / float(n.x[1].dims[0] or 1)


def through_batch(dy: Term, n: NodeView) -> Term:
    """As `through_statistics`, for an input c of mean 0: a (dy - mean(dy) - c mean(dy c) / (var + e)).

    With a = scale / deviation. Means and factors are vectors: two passes over the activations, and one by a, which a
    convolution behind takes into its kernel.
    """
    c, inverse, zeros = n.x[0], _inverse(n), n.x[3]
    along = inverse * inverse * _channel_mean(dy * c)
    ones = n.op.const([1.0] * int(n.x[1].dims[0] or 1), dy.dtype)
    through = n.op.BatchNormalization(c, -along, -_channel_mean(dy), zeros, ones, epsilon=0.0)
    return (dy + through) * _per_channel(n.x[1] * inverse, n)


def batch_dx(dy: Term, n: NodeView) -> Term:
    """A scale per channel; in training also through the statistics."""
    if _of_batch(n):
        return through_batch(dy, n)
    if not _training(n):
        factor = n.x[1] * n.op.Reciprocal(n.op.Sqrt(n.x[4] + n.attr("epsilon", 1e-5)))
        return dy * _per_channel(factor, n)
    xhat, inverse = batch_statistics(n)
    return through_statistics(dy * _per_channel(n.x[1], n), xhat, inverse, _spatial(n))


def batch_dscale(dy: Term, n: NodeView) -> Term:
    """dy xhat, summed over batch and space."""
    if _of_batch(n):
        return _channel_mean(dy * n.x[0]) * (_inverse(n) * _count(n))
    return (dy * batch_statistics(n)[0]).sum(_spatial(n), keepdims=False)


def batch_dshift(dy: Term, n: NodeView) -> Term:
    """dy, summed over batch and space."""
    return _channel_mean(dy) * _count(n) if _of_batch(n) else dy.sum(_spatial(n), keepdims=False)


def batch_dmean(dy: Term, n: NodeView) -> Term | None:
    """The negative of the summed gradient, scaled; the running mean is not used in training."""
    if _training(n):
        return None
    return -dy.sum(_spatial(n), keepdims=False) * n.x[1] / n.op.Sqrt(n.x[4] + float(n.attr("epsilon", 1e-5)))


def batch_dvar(dy: Term, n: NodeView) -> Term | None:
    """(var + e)^(-1/2) by var; the running variance is not used in training."""
    if _training(n):
        return None
    return batch_dscale(dy, n) * n.x[1] * -0.5 / (n.x[4] + float(n.attr("epsilon", 1e-5)))


vjp(
    "BatchNormalization",
    batch_dx,
    batch_dscale,
    batch_dshift,
    batch_dmean,
    batch_dvar,
)


def _window_sum(t: Term, before: int, after: int, channels: int) -> Term:
    """Return for each channel the sum over itself, `before` channels ahead of it and `after` behind it."""
    wide = pad_axis(t, 1, before, after)
    parts = [wide.slice(1, i, i + channels) for i in range(before + after + 1)]
    return parts[0] if len(parts) == 1 else t.op.Sum(*parts)


def local_response(dy: Term, n: NodeView) -> Term:
    """y = x s^-beta with s = bias + alpha / size * (sum of squares over neighbouring channels)."""
    x, size = n.x[0], int(n.attr("size"))
    alpha, beta, bias = float(n.attr("alpha", 1e-4)), float(n.attr("beta", 0.75)), float(n.attr("bias", 1.0))
    channels = x.dims[1]
    if not isinstance(channels, int):
        raise n.error("the number of channels is unknown")
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    s = bias + alpha / size * _window_sum(x * x, before, after, channels)
    inner = _window_sum(dy * n.y / s, after, before, channels)
    return dy * n.op.Pow(s, s.like(-beta)) - 2 * alpha * beta / size * (x * inner)


def lp_normalization(dy: Term, n: NodeView) -> Term:
    """(dy - d|x| <dy, y>) / |x|, and zero where the norm is zero."""
    x, axis, p = n.x[0], n.axis(-1), n.attr("p", 2)
    norm = n.op.ReduceL1(x, [axis]) if p == 1 else n.op.ReduceL2(x, [axis])
    direction = n.op.Sign(x) if p == 1 else n.y
    none = norm.equals(0)
    return none.where(0, (dy - direction * (dy * n.y).sum([axis])) / none.where(1, norm))


def root_mean_square_dx(dy: Term, n: NodeView) -> Term:
    """inverse (dxhat - xhat mean(dxhat xhat)): as layer normalisation without the mean (Zhang and Sennrich, 2019)."""
    xhat, inverse, axes = _root_mean_square(n)
    dxhat = dy * n.x[1]
    return inverse * (dxhat - xhat * mean(dxhat * xhat, axes))


def _root_mean_square(n: NodeView) -> tuple[Term, Term, list[int]]:
    x = n.x[0]
    axes = list(range(n.axis(-1), x.rank))
    inverse = n.op.Reciprocal(n.op.Sqrt(mean(x * x, axes) + n.attr("epsilon", 1e-5)))
    return x * inverse, inverse, axes


vjp("LRN", local_response)
vjp("LpNormalization", lp_normalization)
vjp("RMSNormalization", root_mean_square_dx, lambda dy, n: _parameter(dy * _root_mean_square(n)[0], n, 1))
vjp(
    "MeanVarianceNormalization",
    lambda dy, n: through_statistics(dy, *centred(n.x[0], _mvn_axes(n), 1e-9), _mvn_axes(n)),
)


def _mvn_axes(n: NodeView) -> list[int]:
    return [a + n.x[0].rank if a < 0 else a for a in n.attr("axes", [0, 2, 3])]
