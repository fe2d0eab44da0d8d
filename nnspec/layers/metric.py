"""Metrics: figures to report, through which nothing is learned. Losses may stand as metrics too."""

from typing import Any, ClassVar, Literal

from nnspec.layers.base import Lowering, Positive, TensorType
from nnspec.layers.loss import Categorical, Elementwise
from nnspec.layers.scoring import chosen, mean


def number(ctx: Lowering, condition: Any) -> Any:
    """Return 1 where a condition holds and 0 elsewhere."""
    import onnx_ir as ir

    return ctx.op.Cast(condition, to=int(ir.DataType.FLOAT))


class Choice(Categorical):
    """Base of the metrics of a choice among classes: `right` says for each sample, step or pixel if it is right."""

    goal: ClassVar[Literal["min", "max"]] = "max"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        over, axis, scores, label, keep = self._chosen(ctx, x)
        return mean(ctx, number(ctx, self.right(ctx, scores, label, axis)), over, keep)

    def right(self, ctx: Lowering, scores: Any, label: Any, axis: int) -> Any:
        """Return where the scores choose the label; `axis` counts the batch."""
        return ctx.op.Equal(ctx.op.ArgMax(scores, axis=axis, keepdims=0), label)


class Accuracy(Choice, keyword="accuracy"):
    """How often the highest score is that of the label: `accuracy(logits, label)`; of sequences, each step counts."""


class ErrorRate(Choice, keyword="error_rate"):
    """How often the highest score is not that of the label: `error_rate(logits, label)`; 1 - accuracy."""

    goal: ClassVar[Literal["min", "max"]] = "min"

    def right(self, ctx: Lowering, scores: Any, label: Any, axis: int) -> Any:
        return ctx.op.Not(super().right(ctx, scores, label, axis))


class TopKAccuracy(Choice, keyword="top_k_accuracy"):
    """How often the label is among the k highest scores: `top_k_accuracy(logits, label, k = 5)`."""

    k: Positive = 5
    """How many scores may be at least as high as the label's, its own included."""

    def right(self, ctx: Lowering, scores: Any, label: Any, axis: int) -> Any:
        op = ctx.op
        own = op.Unsqueeze(chosen(ctx, scores, label, axis), [axis])
        higher = op.ReduceSum(number(ctx, op.Greater(scores, own)), [axis], keepdims=0)
        return op.Less(higher, float(self.k))


class BinaryAccuracy(Elementwise, keyword="binary_accuracy"):
    """How often a logit lies on its label's side: `binary_accuracy(logits, label)`; `threshold = 0.5`."""

    goal: ClassVar[Literal["min", "max"]] = "max"
    threshold: float = 0.0
    """Above it a prediction says 1; labels say so above one half."""

    def classes(self, *x: TensorType) -> int | None:
        return 2 if x[1].dtype == "int64" else None

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        op = ctx.op
        said = op.Greater(prediction, float(self.threshold))
        return number(ctx, op.Equal(said, op.Greater(target, 0.5)))
