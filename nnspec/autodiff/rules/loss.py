"""ONNX's own loss operators."""

from __future__ import annotations

from nnspec.autodiff.registry import joint
from nnspec.autodiff.terms import NodeView, Term


def class_weights(n: NodeView) -> tuple[Term, Term]:
    """Return where each class is the label, [N, C, ...], and what each example weighs in the loss, [N, 1, ...]."""
    scores, label, op = n.x[0], n.x[1], n.op
    classes = scores.dims[1]
    if not isinstance(classes, int):
        raise n.error("the number of classes is unknown")
    label = label.unsqueeze([1])
    zero = op.const(0, label.dtype)
    index = op.const(list(range(classes)), label.dtype).reshape([1, classes, *[1] * (scores.rank - 2)])
    ignored = n.attr("ignore_index")
    hit = op.Equal(label, index)
    weights = n.input(2)
    if weights is None and ignored is None:
        return hit, scores.like(1)
    skipped = None if ignored is None else op.Equal(label, op.const(int(ignored), label.dtype))
    if weights is None:
        assert skipped is not None
        return hit, skipped.where(0, scores.like(1))
    valid = label if skipped is None else op.Where(skipped, zero, label)
    weight = op.Gather(weights, valid)
    return hit, weight if skipped is None else skipped.where(0, weight)


def example_gradient(dy: Term, n: NodeView) -> tuple[Term, Term]:
    """Return where each class is the label, and the loss's gradient by each example's own negative log-likelihood."""
    hit, weight = class_weights(n)
    reduction = n.attr("reduction", "mean")
    if reduction == "none":
        return hit, dy.unsqueeze([1]) * weight
    if reduction == "sum":
        return hit, dy * weight
    if weight.number is not None:
        return hit, dy / n.op.Size(n.x[1]).cast(dy.dtype)
    return hit, dy * weight / weight.sum(keepdims=False)


def negative_log_likelihood(n: NodeView) -> list[Term | None]:
    """Minus the example's gradient at the label, zero elsewhere."""
    (dy,) = n.dys
    assert dy is not None
    hit, weight = example_gradient(dy, n)
    dx = hit.where(-weight, 0) if n.wanted[0] else None
    return [dx, None, *_weight_gradients(dy, n, n.x[0])]


def softmax_cross_entropy(n: NodeView) -> list[Term | None]:
    """(softmax - one-hot label) times the example's gradient, and what comes back through the log-probabilities."""
    scores = n.x[0]
    total: Term | None = None
    weights: list[Term | None] = [None] * (len(n.x) - 2)
    if n.dys[0] is not None:
        weights = _weight_gradients(n.dys[0], n, n.op.LogSoftmax(scores, axis=1))
        hit, weight = example_gradient(n.dys[0], n)
        total = (n.op.Softmax(scores, axis=1) - hit.cast(scores.dtype)) * weight
    if len(n.dys) > 1 and n.dys[1] is not None:
        dlog = n.dys[1]
        part = dlog - n.op.Softmax(scores, axis=1) * dlog.sum([1])
        total = part if total is None else total + part
    return [total, None, *weights]


def _weight_gradients(dy: Term, n: NodeView, log_probabilities: Term) -> list[Term | None]:
    """Return the gradient by the class weights, in a list that is empty where there are none.

    The loss is sum_i w_i l_i, in the mean divided by sum_i w_i: its gradient by w_i is l_i, or (l_i - loss) / sum w.
    """
    if len(n.x) < 3:
        return []
    if not n.wanted[2]:
        return [None]
    hit, weight = class_weights(n)
    loss = -log_probabilities
    reduction = n.attr("reduction", "mean")
    if reduction == "mean":
        part = (loss - n.y) * (dy / weight.sum(keepdims=False))
    else:
        part = loss * (dy.unsqueeze([1]) if reduction == "none" else dy)
    if n.attr("ignore_index") is not None:
        ignored = n.op.const(int(n.attr("ignore_index")), n.x[1].dtype)
        part = n.op.Equal(n.x[1], ignored).unsqueeze([1]).where(0, part)
    return [hit.where(part, 0).sum([0, *range(2, n.x[0].rank)], keepdims=False)]


joint("NegativeLogLikelihoodLoss", negative_log_likelihood)
joint("SoftmaxCrossEntropyLoss", softmax_cross_entropy)
