"""What losses and metrics share: a prediction beside a target, which of its elements count, and their mean.

A loss or metric gives one number for the whole batch. Where a batch may hold a varying number of elements (a symbolic
axis, masked or not, or an ignored label), it gives a second one: how many it averaged, by which the mean of an epoch
weighs it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from nnspec.layers.base import Layer, Lowering, ShapeError, TensorType

NUMBER = TensorType(shape=(), batch=False)


class Score(Layer):
    """Base of losses and metrics: takes a prediction and a target, gives a number."""

    where = "train"
    arity = 2
    elementwise = True
    goal: ClassVar[Literal["min", "max"]] = "min"
    """Which way is better."""

    def window(self, *x: TensorType) -> str | None:
        return "all"

    def classes(self, *x: TensorType) -> int | None:
        """Return how many values an integer target may have, counted from 0; None where any will do."""
        return None

    def ignored(self) -> int | None:
        """Return the label that does not count."""
        return None

    def counted(self, *x: TensorType) -> TensorType:
        """Return the type of what is averaged, checking that the inputs fit."""
        raise NotImplementedError

    def infer(self, *x: TensorType) -> TensorType | tuple[TensorType, ...]:
        over = self.counted(*x)
        return (NUMBER, NUMBER) if over.symbols or self.ignored() is not None else NUMBER


def real(layer: Layer, x: TensorType, at: int, what: str) -> None:
    """Raise ShapeError where a tensor does not hold real numbers."""
    if x.dtype != "float32":
        message = f"`{layer.keyword}` needs real numbers as its {what}, and gets {x}"
        raise ShapeError(message, input=at, label=f"gives {x}")


def same_shape(layer: Layer, x: tuple[TensorType, ...], what: str = "target") -> TensorType:
    """Return the common type of prediction and target; raise ShapeError where their shapes differ."""
    if x[0].shape != x[1].shape:
        raise ShapeError(
            f"`{layer.keyword}` compares elements, and its prediction is {x[0]} while its {what} is {x[1]}",
            input=1,
            label=f"must be {TensorType(shape=x[0].shape, dtype=x[1].dtype)}",
            help=f"declare the {what} with the prediction's shape, or `reshape` one of them",
        )
    return TensorType(shape=x[0].shape, batch=any(t.batch for t in x))


def class_axis(layer: Layer, logits: TensorType, label: TensorType) -> int:
    """Return the axis of the logits that integer labels choose from, counted after the batch.

    It is the first of images, [classes, height, width] with labels [height, width], and else the last.
    """
    if label.dtype == "float32":
        raise ShapeError(
            f"`{layer.keyword}` needs whole numbers as its label, or a distribution of the logits' shape {logits}, "
            f"and gets {label}",
            input=1,
            label=f"gives {label}",
            help="declare the target as `int`: `target label: int`",
        )
    if logits.rank == 0:
        raise ShapeError(
            f"`{layer.keyword}` needs one number for each class, and gets a single one",
            input=0,
            label="has no axis of classes",
            help="for two classes and a single logit take `binary_cross_entropy`",
        )
    order = [0, logits.rank - 1] if logits.rank >= 3 else [logits.rank - 1]
    for axis in order:
        if logits.shape[:axis] + logits.shape[axis + 1 :] == label.shape:
            return axis
    expected = logits.shape[:-1] if order[0] else logits.shape[1:]
    wanted = TensorType(shape=expected, dtype="int64")
    what = "one label for each sample" if not expected else f"labels of shape [{', '.join(map(str, expected))}]"
    raise ShapeError(
        f"`{layer.keyword}` of logits {logits} needs {what}, and gets {label}",
        input=1,
        label=f"must be {wanted}",
        help=f"declare the target as `{wanted}`",
    )


def class_count(logits: TensorType, axis: int) -> int | None:
    """Return the number of classes where it is known."""
    size = logits.shape[axis]
    return size if isinstance(size, int) else None


def size_of(ctx: Lowering, axis: int) -> Any:
    """Return the size of an axis of the first input, counted after the batch, as a float32 scalar."""
    import onnx_ir as ir

    size = ctx.inputs[0].shape[axis]
    if isinstance(size, int):
        return ctx.op.constant(float(size))
    return ctx.op.Cast(ctx.op.Squeeze(ctx.dim(size), [0]), to=int(ir.DataType.FLOAT))


def batched(ctx: Lowering, value: Any, type_: TensorType) -> Any:
    """Return a value with a batch axis, repeated for each sample where it has none."""
    if type_.batch:
        return value
    if not any(t.batch for t in ctx.inputs):
        return ctx.op.Unsqueeze(value, [0])
    dims = [ctx.dim(d) for d in type_.shape]
    return ctx.op.Expand(value, ctx.op.Concat(ctx.batch_size(), *dims, axis=0))


def valid(ctx: Lowering, like: Any, over: TensorType, label: Any = None, ignore: int | None = None) -> Any:
    """Return 1 for what counts and 0 for the rest, broadcastable to a value of type `over`; None where all counts."""
    keep = ctx.mask(like, over)
    if ignore is None:
        return keep
    import onnx_ir as ir

    known = ctx.op.Cast(ctx.op.Not(ctx.op.Equal(label, ctx.op.constant(ignore))), to=int(ir.DataType.FLOAT))
    return known if keep is None else ctx.op.Mul(known, keep)


def mean(ctx: Lowering, value: Any, over: TensorType, keep: Any, sign: int = 1) -> Any:
    """Return the mean of what counts (all where `keep` is None), and how much that is where the layer gives it."""
    op = ctx.op
    if keep is None:
        average = mean_of_all(op, value) if sign > 0 else op.Neg(mean_of_all(op, value))
        return (average, count(ctx, value, None)) if len(ctx.outputs) > 1 else average
    number = count(ctx, value, keep)
    total = op.ReduceSum(_rows(op, op.Mul(value, keep), "ReduceSum"), keepdims=0)
    return op.Div(total, op.Max(number, 1.0)), number


def count(ctx: Lowering, value: Any, keep: Any) -> Any:
    """Return how many elements of `value` count, as a float32 scalar."""
    import onnx_ir as ir

    op = ctx.op
    if keep is None:
        return op.Cast(op.Size(value), to=int(ir.DataType.FLOAT))
    number = op.ReduceSum(keep, keepdims=0)
    for axis in range(len(value.shape)):
        if keep.shape[axis] == 1 and value.shape[axis] != 1:
            size = op.Squeeze(op.Shape(value, start=axis, end=axis + 1), [0])
            number = op.Mul(number, op.Cast(size, to=int(ir.DataType.FLOAT)))
    return number


def mean_of_all(op: Any, value: Any) -> Any:
    """Return the mean over all elements."""
    return op.ReduceMean(_rows(op, value, "ReduceMean"), keepdims=0)


def _rows(op: Any, value: Any, reduction: str) -> Any:
    # In two stages: ONNX Runtime sums one long axis naively, which loses digits.
    axes = list(range(1, len(value.shape)))
    if all(value.shape[a] == 1 for a in axes):
        return value
    return op.emit(reduction, (value, axes), {"keepdims": 0}) if axes else value


def chosen(ctx: Lowering, scores: Any, label: Any, axis: int) -> Any:
    """Return the score of each label; `axis` counts the batch."""
    op = ctx.op
    return op.Squeeze(op.GatherElements(scores, op.Unsqueeze(label, [axis]), axis=axis), [axis])


def whole_label(ctx: Lowering, label: Any, keep: Any) -> Any:
    """Return labels of which those that do not count are replaced by 0, a valid index."""
    if keep is None:
        return label
    import onnx_ir as ir

    return ctx.op.Mul(label, ctx.op.Cast(keep, to=int(ir.DataType.INT64)))
