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
    _no_weight_gradient(n)
    hit, weight = example_gradient(dy, n)
    dx = hit.where(-weight, 0)
    return [dx, *[None] * (len(n.x) - 1)]


def softmax_cross_entropy(n: NodeView) -> list[Term | None]:
    """(softmax - one-hot label) times the example's gradient, and what comes back through the log-probabilities."""
    _no_weight_gradient(n)
    scores = n.x[0]
    total: Term | None = None
    if n.dys[0] is not None:
        hit, weight = example_gradient(n.dys[0], n)
        total = (n.op.Softmax(scores, axis=1) - hit.cast(scores.dtype)) * weight
    if len(n.dys) > 1 and n.dys[1] is not None:
        dlog = n.dys[1]
        part = dlog - n.op.Softmax(scores, axis=1) * dlog.sum([1])
        total = part if total is None else total + part
    return [total, *[None] * (len(n.x) - 1)]


def _no_weight_gradient(n: NodeView) -> None:
    if len(n.wanted) > 2 and n.wanted[2]:
        raise n.error("the gradient by the class weights has no rule")


joint("NegativeLogLikelihoodLoss", negative_log_likelihood)
joint("SoftmaxCrossEntropyLoss", softmax_cross_entropy)
