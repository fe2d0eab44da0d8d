"""Activation functions; from their outputs where these say enough, so that the inputs need not be kept."""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.autodiff.registry import pointwise, vjp, zero
from nnspec.autodiff.terms import NodeView, Term

_STEEP = 1e38
"""The slope with which hard_sigmoid is 0 for 0 and 1 for every normal float32 above it."""


def relu(dy: Term, n: NodeView) -> Term:
    """Slope 1 above zero, 0 at zero and below."""
    if n.op.target.cpu and dy.dtype == ir.DataType.FLOAT:
        # One pass makes the mask, where a comparison and Where make five on ONNX Runtime's CPU kernels.
        return dy * n.op.HardSigmoid(n.y, alpha=_STEEP, beta=0.0)
    return (n.y > 0).where(dy, 0)


pointwise("Tanh", lambda dy, n: dy * (1 - n.y * n.y))
pointwise("Sigmoid", lambda dy, n: dy * (n.y * (1 - n.y)))
pointwise("Relu", relu)
pointwise("ThresholdedRelu", lambda dy, n: (n.x[0] > n.attr("alpha", 1.0)).where(dy, 0))
pointwise("Softplus", lambda dy, n: dy * n.op.Sigmoid(n.x[0]))
pointwise("Softsign", lambda dy, n: dy / (1 + n.op.Abs(n.x[0])) ** 2)
pointwise("Erf", lambda dy, n: dy * (2 / math.sqrt(math.pi)) * n.op.Exp(-(n.x[0] ** 2)))
zero("Hardmax")


def sign_source(n: NodeView, alpha: float) -> Term:
    """Return something with the sign of the input: the output, unless a slope below zero turns it over."""
    return n.y if alpha > 0 else n.x[0]


def leaky_relu(dy: Term, n: NodeView) -> Term:
    """Slope 1 above zero, alpha below."""
    alpha = n.attr("alpha", 0.01)
    return (sign_source(n, alpha) > 0).where(dy, dy * alpha)


def hard_sigmoid(dy: Term, n: NodeView) -> Term:
    """Slope alpha on the ramp."""
    alpha = n.attr("alpha", 0.2)
    return ((n.y > 0).where((n.y < 1).where(dy * alpha, 0), 0)) if alpha else dy * 0


def elu(dy: Term, n: NodeView) -> Term:
    """y + alpha = alpha exp(x) below zero."""
    alpha = n.attr("alpha", 1.0)
    return (sign_source(n, alpha) > 0).where(dy, dy * (n.y + alpha))


def selu(dy: Term, n: NodeView) -> Term:
    """The scaled form of elu."""
    alpha, gamma = n.attr("alpha", 1.6732631921768188), n.attr("gamma", 1.0507010221481323)
    return (sign_source(n, alpha * gamma) > 0).where(dy * gamma, dy * (n.y + alpha * gamma))


def celu(dy: Term, n: NodeView) -> Term:
    """exp(x / alpha) = 1 + y / alpha below zero."""
    alpha = n.attr("alpha", 1.0)
    return (n.x[0] > 0).where(dy, dy * (1 + n.y / alpha))


def gelu(dy: Term, n: NodeView) -> Term:
    """x Phi(x), or its approximation by tanh (Hendrycks and Gimpel, 2016)."""
    x = n.x[0]
    if n.attr("approximate", "none") == "tanh":
        c = math.sqrt(2 / math.pi)
        t = n.op.Tanh((x + 0.044715 * (x * x * x)) * c)
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (c * (1 + 3 * 0.044715 * (x * x))))
    cdf = 0.5 * (1 + n.op.Erf(x * math.sqrt(0.5)))
    return dy * (cdf + x * n.op.Exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi)))


def mish(dy: Term, n: NodeView) -> Term:
    """x tanh(softplus(x))."""
    x = n.x[0]
    t = n.op.Tanh(n.op.Softplus(x))
    return dy * (t + x * (1 - t * t) * n.op.Sigmoid(x))


def hard_swish(dy: Term, n: NodeView) -> Term:
    """x times the ramp from -3 to 3."""
    x = n.x[0]
    return (x >= 3).where(dy, (x > -3).where(dy * (x / 3 + 0.5), 0))


def swish(dy: Term, n: NodeView) -> Term:
    """x sigmoid(alpha x)."""
    alpha = float(n.attr("alpha", 1.0))
    s = n.op.Sigmoid(n.x[0] * alpha)
    return dy * (s + alpha * n.y * (1 - s))


def softmax(dy: Term, n: NodeView) -> Term:
    """y (dy - <dy, y>)."""
    return n.y * (dy - (dy * n.y).sum([n.axis(-1)]))


def log_softmax(dy: Term, n: NodeView) -> Term:
    """dy - softmax * sum(dy); where dy is zero but for one element of each row, as for a label, without that sum."""
    axis = n.axis(-1)
    placed = _single(dy, axis)
    if placed is None:
        return dy - n.op.Exp(n.y) * dy.sum([axis])
    index, value = placed
    return n.op.ScatterElements(n.op.Exp(n.y) * -value, index, value, axis=axis, reduction="add")


def _single(dy: Term, axis: int) -> tuple[Term, Term] | None:
    """Return index and value of the only elements along an axis that are not zero, where `dy` was made of them."""
    node = dy.value.producer()
    if node is None or node.op_type != "ScatterElements" or dy.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    data, index, value = (dy.op.term(v) for v in node.inputs if v is not None)
    filled = data.value.producer()
    zeros = filled is not None and filled.op_type == "Expand" and filled.inputs[0] is not None
    if not zeros or dy.op.term(filled.inputs[0]).number != 0 or index.dims[axis] != 1:  # type: ignore[union-attr, arg-type]
        return None
    along = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    same = all(i == d and d is not None for k, (i, d) in enumerate(zip(index.dims, dy.dims, strict=True)) if k != axis)
    return (index, value) if same and along % dy.rank == axis else None


pointwise("LeakyRelu", leaky_relu)
pointwise("PRelu", lambda dy, n: (n.x[0] >= 0).where(dy, dy * n.x[1]), lambda dy, n: (n.x[0] < 0).where(dy * n.x[0], 0))
pointwise("HardSigmoid", hard_sigmoid)
pointwise("Elu", elu)
pointwise("Selu", selu)
pointwise("Celu", celu)
pointwise("Gelu", gelu)
pointwise("Mish", mish)
pointwise("HardSwish", hard_swish)
pointwise("Swish", swish)
vjp("Softmax", softmax)
vjp("LogSoftmax", log_softmax)
