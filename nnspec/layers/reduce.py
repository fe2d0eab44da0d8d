"""Reductions over an axis or over everything; masked steps do not count along time."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from nnspec.dims import Dim
from nnspec.layers.base import Layer, Lowering, Positive, ShapeError, TensorType, axis_of, joined


class Reduction(Layer):
    """Base of the reductions; `neutral` is what a masked step counts as."""

    axis: int | None = None
    """The axis to reduce, counted after the batch; all of them without it."""
    keep: bool = False
    """Whether the reduced axis stays, with size 1."""
    onnx: ClassVar[str] = ""
    neutral: ClassVar[float] = 0.0

    def _axes(self, rank: int) -> list[int]:
        return list(range(rank)) if self.axis is None else [axis_of(self.axis, rank)]

    def infer(self, *x: TensorType) -> TensorType:
        axes = self._axes(x[0].rank)
        shape: list[Dim] = []
        for i, d in enumerate(x[0].shape):
            if i not in axes:
                shape.append(d)
            elif self.keep:
                shape.append(1)
        return TensorType(shape=tuple(shape), dtype=self._dtype(x[0]), batch=x[0].batch)

    def _dtype(self, x: TensorType) -> Any:
        return x.dtype

    def window(self, *x: TensorType) -> str | None:
        return joined(self._axes(x[0].rank), x[0])

    def _masked(self, ctx: Lowering, x: Any) -> tuple[Any, Any]:
        """Return the input with padding neutralised, and the mask or None."""
        t = ctx.inputs[0]
        axes = self._axes(t.rank)
        keep = ctx.mask(x, t.with_shape(tuple(d if i in axes else 1 for i, d in enumerate(t.shape))))
        if keep is None:
            return x, None
        return ctx.op.Where(ctx.op.Greater(keep, 0.5), x, ctx.op.constant(self.neutral, x.dtype)), keep

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        value, _ = self._masked(ctx, x[0])
        return self._reduce(ctx, self.onnx, value)

    def _reduce(self, ctx: Lowering, onnx: str, value: Any) -> Any:
        axes = [a + 1 for a in self._axes(ctx.inputs[0].rank)]
        if not axes:
            return value
        return ctx.op.emit(onnx, (value, axes), {"keepdims": int(self.keep)})


class Sum(Reduction, keyword="sum"):
    """Sum over an axis, or over everything: `sum`, `sum(axis = 0)`."""

    onnx = "ReduceSum"


class Mean(Reduction, keyword="mean"):
    """Mean over an axis, or over everything: `mean(axis = 0)`; of a masked sequence, over the steps that count."""

    onnx = "ReduceMean"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        value, keep = self._masked(ctx, x[0])
        if keep is None:
            return self._reduce(ctx, "ReduceMean", value)
        ones = ctx.op.Expand(keep, ctx.op.Shape(x[0]))
        return ctx.op.Div(self._reduce(ctx, "ReduceSum", value), self._reduce(ctx, "ReduceSum", ones))


class Max(Reduction, keyword="max"):
    """Maximum over an axis, or over everything: `max(axis = 0)`."""

    onnx = "ReduceMax"
    neutral = -3.0e38


class Min(Reduction, keyword="min"):
    """Minimum over an axis, or over everything."""

    onnx = "ReduceMin"
    neutral = 3.0e38


class L2Norm(Reduction, keyword="l2norm"):
    """Euclidean norm over an axis, or over everything: sqrt(sum x^2)."""

    onnx = "ReduceL2"


class L1Norm(Reduction, keyword="l1norm"):
    """Sum of absolute values over an axis, or over everything."""

    onnx = "ReduceL1"


class LogSumExp(Reduction, keyword="logsumexp"):
    """log(sum exp(x)) over an axis, or over everything, without overflow."""

    onnx = "ReduceLogSumExp"
    neutral = -1.0e30


class ArgMax(Layer, keyword="argmax"):
    """Index of the largest element along an axis, the last by default: real [..., n] becomes int [...]."""

    axis: int = -1
    """The axis, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        axis = axis_of(self.axis, x[0].rank)
        return TensorType(shape=(*x[0].shape[:axis], *x[0].shape[axis + 1 :]), dtype="int64", batch=x[0].batch)

    def window(self, *x: TensorType) -> str | None:
        return joined([self.axis], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.ArgMax(x[0], axis=axis_of(self.axis, ctx.inputs[0].rank) + 1, keepdims=0)


class CumSum(Layer, keyword="cumsum"):
    """Running sum along an axis: `cumsum(axis = 0)`."""

    axis: int = 0
    """The axis, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        axis_of(self.axis, x[0].rank)
        return x[0]

    def window(self, *x: TensorType) -> str | None:
        return joined([self.axis], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.CumSum(x[0], ctx.op.constant(axis_of(self.axis, ctx.inputs[0].rank) + 1))


class Normalize(Layer, keyword="normalize"):
    """Scale to Euclidean length 1 along the last axis: x / max(|x|, epsilon)."""

    epsilon: Annotated[float, Field(gt=0)] = 1e-12
    """Smallest divisor."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank == 0:
            raise ShapeError("`normalize` needs an axis, and gets a scalar", input=0)
        return x[0]

    def window(self, *x: TensorType) -> str | None:
        return joined([-1], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        norm = ctx.op.ReduceL2(x[0], [-1], keepdims=1)
        return ctx.op.Div(x[0], ctx.op.Max(norm, self.epsilon))


class TopK(Layer, keyword="topk"):
    """The largest elements along the last axis, largest first, and their indices: `values, at = x -> topk(5)`."""

    count: Positive
    """How many."""

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        if x[0].rank == 0:
            raise ShapeError("`topk` needs an axis, and gets a scalar", input=0)
        size = x[0].shape[-1]
        if isinstance(size, int) and size < self.count:
            raise ShapeError(
                f"there are {size} elements, fewer than {self.count}", field="count", label=f"at most {size}"
            )
        shape = (*x[0].shape[:-1], self.count)
        return x[0].with_shape(shape), TensorType(shape=shape, dtype="int64", batch=x[0].batch)

    def window(self, *x: TensorType) -> str | None:
        return joined([-1], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.TopK(x[0], [self.count], axis=-1, outputs=2)


class BatchMean(Layer, keyword="batch_mean"):
    """Mean over the samples of a batch: what makes a loss of one number for each sample a loss of the batch."""

    where = "train"
    elementwise = True

    def infer(self, *x: TensorType) -> TensorType:
        return TensorType(shape=x[0].shape, batch=False)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.ReduceMean(x[0], [0], keepdims=0) if ctx.inputs[0].batch else x[0]
