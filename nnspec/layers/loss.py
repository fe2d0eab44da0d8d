"""Losses: a prediction and a target give one number, the mean over samples (and steps, and pixels)."""

from typing import Annotated, Any

from pydantic import Field

from nnspec.layers.base import Lowering, ShapeError, TensorType
from nnspec.layers.scoring import (
    Score,
    batched,
    chosen,
    class_axis,
    class_count,
    mean,
    real,
    same_shape,
    size_of,
    valid,
    whole_label,
)

Above = Annotated[float, Field(gt=0)]


class Categorical(Score):
    """Base of the losses of a choice among classes.

    Logits are [classes] and the label `int`, or [T, classes] and `int[T]`, or [classes, H, W] and `int[H, W]`.
    """

    ignore: int | None = None
    """A label that does not count."""

    def ignored(self) -> int | None:
        return self.ignore

    def classes(self, *x: TensorType) -> int | None:
        if x[1].dtype != "int64":
            return None
        classes = class_count(x[0], class_axis(self, *x))
        inside = self.ignore is None or (classes is not None and 0 <= self.ignore < classes)
        return classes if inside else None

    def counted(self, *x: TensorType) -> TensorType:
        real(self, x[0], 0, "logits")
        axis = class_axis(self, *x)
        return TensorType(shape=x[0].shape[:axis] + x[0].shape[axis + 1 :], batch=any(t.batch for t in x))

    def _chosen(self, ctx: Lowering, x: tuple[Any, ...]) -> tuple[TensorType, int, Any, Any, Any]:
        """Return what is averaged, the axis of classes, scores, labels, and what counts, all with the batch."""
        over = self.counted(*ctx.inputs)
        axis = class_axis(self, *ctx.inputs) + 1
        scores, label = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
        keep = valid(ctx, x[0], over, label, self.ignore)
        return over, axis, scores, whole_label(ctx, label, keep), keep


class CrossEntropy(Categorical, keyword="cross_entropy"):
    """Cross entropy of a softmax: `cross_entropy(logits, label)`; -log softmax(logits)[label].

    The label is a whole number, or a distribution of the logits' shape (soft targets), and then the loss is
    -sum(label log softmax(logits)).
    """

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing (Szegedy et al. 2016): this part of the target is spread evenly over all classes."""

    def _soft(self, *x: TensorType) -> bool:
        return x[1].dtype == "float32" and x[1].shape == x[0].shape and x[0].rank > 0

    def _axis(self, *x: TensorType) -> int:
        if self._soft(*x):
            return 0 if x[0].rank >= 3 else x[0].rank - 1
        return class_axis(self, *x)

    def counted(self, *x: TensorType) -> TensorType:
        real(self, x[0], 0, "logits")
        axis = self._axis(*x)
        if self._soft(*x) and self.ignore is not None:
            raise ShapeError("`ignore` names a whole number, and the label is a distribution", field="ignore")
        return TensorType(shape=x[0].shape[:axis] + x[0].shape[axis + 1 :], batch=any(t.batch for t in x))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op = ctx.op
        axis = self._axis(*ctx.inputs) + 1
        if self._soft(*ctx.inputs):
            over = self.counted(*ctx.inputs)
            logits, target = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
            if self.smoothing:
                even = op.Div(self.smoothing, size_of(ctx, axis - 1))
                target = op.Add(op.Mul(target, 1 - self.smoothing), even)
            likelihood = op.ReduceSum(op.Mul(op.LogSoftmax(logits, axis=axis), target), [axis], keepdims=0)
            return mean(ctx, op.Neg(likelihood), over, valid(ctx, x[0], over))
        over, axis, logits, label, keep = self._chosen(ctx, x)
        log_probabilities = op.LogSoftmax(logits, axis=axis)
        if keep is None and not self.smoothing:
            # With the axis of classes kept and one sign for the whole batch there is less to go back through.
            picked = op.GatherElements(log_probabilities, op.Unsqueeze(label, [axis]), axis=axis)
            return mean(ctx, picked, over, None, sign=-1)
        likelihood = chosen(ctx, log_probabilities, label, axis)
        if self.smoothing:
            even = op.Mul(op.ReduceMean(log_probabilities, [axis], keepdims=0), self.smoothing)
            likelihood = op.Add(op.Mul(likelihood, 1 - self.smoothing), even)
        return mean(ctx, op.Neg(likelihood), over, keep)


class Nll(Categorical, keyword="nll"):
    """Negative log likelihood: `nll(log_probabilities, label)`; -log_probabilities[label]."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        over, axis, scores, label, keep = self._chosen(ctx, x)
        return mean(ctx, ctx.op.Neg(chosen(ctx, scores, label, axis)), over, keep)


class Elementwise(Score):
    """Base of the losses that compare prediction and target element by element."""

    def counted(self, *x: TensorType) -> TensorType:
        real(self, x[0], 0, "prediction")
        return same_shape(self, x)

    def pair(self, ctx: Lowering, x: tuple[Any, ...]) -> list[Any]:
        """Return prediction and target as real numbers with a batch axis."""
        import onnx_ir as ir

        values = [batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True)]
        if ctx.inputs[1].dtype != "float32":
            values[1] = ctx.op.Cast(values[1], to=int(ir.DataType.FLOAT))
        return values

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        over = self.counted(*ctx.inputs)
        prediction, target = self.pair(ctx, x)
        return mean(ctx, self.each(ctx, prediction, target), over, valid(ctx, x[0], over))

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        """Return the loss of each element."""
        raise NotImplementedError


class SquareError(Elementwise, keyword="square_error"):
    """Mean square error: `square_error(y, target)`; (y - target)^2."""

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        difference = ctx.op.Sub(prediction, target)
        return ctx.op.Mul(difference, difference)


class AbsoluteError(Elementwise, keyword="absolute_error"):
    """Mean absolute error: `absolute_error(y, target)`; |y - target|."""

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        return ctx.op.Abs(ctx.op.Sub(prediction, target))


class Huber(Elementwise, keyword="huber"):
    """Square near 0, absolute beyond `delta` (Huber 1964): `huber(y, target)`; d^2 / 2, or delta (|d| - delta / 2)."""

    delta: Above = 1.0
    """Where the square ends."""

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        # With c = clip(d) the loss is c (d - c / 2), and its gradient is c: nothing need flow through c.
        op = ctx.op
        difference = op.Sub(prediction, target)
        delta = float(self.delta)
        low, high = (op.constant(v, difference.dtype) for v in (-delta, delta))
        clipped = ctx.stop(op.Clip(difference, low, high))
        return op.Mul(clipped, op.Sub(difference, op.Mul(clipped, 0.5)))


class BinaryCrossEntropy(Elementwise, keyword="binary_cross_entropy"):
    """Cross entropy of a sigmoid: `binary_cross_entropy(logits, label)`; log(1 + exp(x)) - x label.

    Labels are 0 or 1, whole numbers or real ones between (soft targets), one for each logit.
    """

    def classes(self, *x: TensorType) -> int | None:
        return 2 if x[1].dtype == "int64" else None

    def each(self, ctx: Lowering, prediction: Any, target: Any) -> Any:
        return ctx.op.Sub(ctx.op.Softplus(prediction), ctx.op.Mul(prediction, target))


class Hinge(Categorical, keyword="hinge"):
    """Hinge loss: `hinge(scores, label)`; sum over other classes of max(0, margin - s[label] + s[other]) / classes.

    With a real target of the scores' shape, -1 or 1, it is the binary one: max(0, margin - target s).
    """

    margin: Above = 1.0
    """By how much the right class has to lead."""

    def _binary(self, *x: TensorType) -> bool:
        return x[1].dtype == "float32" and x[1].shape == x[0].shape

    def counted(self, *x: TensorType) -> TensorType:
        return same_shape(self, x) if self._binary(*x) else super().counted(*x)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, margin = ctx.op, float(self.margin)
        if self._binary(*ctx.inputs):
            over = self.counted(*ctx.inputs)
            scores, target = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
            return mean(ctx, op.Relu(op.Sub(margin, op.Mul(scores, target))), over, valid(ctx, x[0], over))
        over, axis, scores, label, keep = self._chosen(ctx, x)
        right = op.GatherElements(scores, op.Unsqueeze(label, [axis]), axis=axis)
        lacking = op.Relu(op.Add(op.Sub(scores, right), margin))
        # The right class itself lacks the margin exactly, whatever the scores: its share is taken off the mean.
        share = op.Div(margin, size_of(ctx, axis - 1))
        return mean(ctx, op.Sub(op.ReduceMean(lacking, [axis], keepdims=0), share), over, keep)


class KlDivergence(Score, keyword="kl_divergence"):
    """Relative entropy: `kl_divergence(logits, target)`; sum(target (log target - log softmax(logits))).

    The target is a distribution of the logits' shape, such as a teacher's probabilities. The sum is over the
    classes, the mean over samples and steps.
    """

    def counted(self, *x: TensorType) -> TensorType:
        for at, what in enumerate(("logits", "target")):
            real(self, x[at], at, what)
        whole = same_shape(self, x)
        if whole.rank == 0:
            raise ShapeError("`kl_divergence` needs an axis of classes, and gets a single number", input=0)
        axis = self._axis(*x)
        return whole.with_shape(whole.shape[:axis] + whole.shape[axis + 1 :])

    def _axis(self, *x: TensorType) -> int:
        return 0 if x[0].rank >= 3 else x[0].rank - 1

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, over = ctx.op, self.counted(*ctx.inputs)
        axis = self._axis(*ctx.inputs) + 1
        logits, target = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
        # 0 log 0 is 0: the smallest normal number keeps the logarithm finite.
        entropy = op.Log(op.Max(target, op.constant(1.1754944e-38, target.dtype)))
        each = op.Mul(target, op.Sub(entropy, op.LogSoftmax(logits, axis=axis)))
        return mean(ctx, op.ReduceSum(each, [axis], keepdims=0), over, valid(ctx, x[0], over))


class CosineDistance(Score, keyword="cosine_distance"):
    """One minus the cosine between vectors along the last axis: `cosine_distance(a, b)`; 1 - a b / (|a| |b|)."""

    epsilon: Above = 1e-8
    """The least length that a vector counts as."""

    def counted(self, *x: TensorType) -> TensorType:
        for at, what in enumerate(("prediction", "target")):
            real(self, x[at], at, what)
        whole = same_shape(self, x)
        if whole.rank == 0:
            raise ShapeError("`cosine_distance` compares vectors, and gets single numbers", input=0)
        return whole.with_shape(whole.shape[:-1])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, over = ctx.op, self.counted(*ctx.inputs)
        a, b = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
        squared = float(self.epsilon) ** 2
        lengths = [
            op.Sqrt(op.Max(op.ReduceSum(op.Mul(v, v), [-1], keepdims=0), op.constant(squared, v.dtype))) for v in (a, b)
        ]
        cosine = op.Div(op.ReduceSum(op.Mul(a, b), [-1], keepdims=0), op.Mul(*lengths))
        return mean(ctx, op.Sub(1.0, cosine), over, valid(ctx, x[0], over))
