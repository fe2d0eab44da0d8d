"""Normalisation and dropout: layers that behave differently in training, or keep statistics."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from nnspec.initializers import ONES, ZEROS
from nnspec.layers.base import AnyInitializer, Layer, Lowering, Positive, ShapeError, TensorType, WeightSpec, joined

Fraction = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class Dropout(Layer, keyword="dropout"):
    """Set a random part of the elements to 0 in training, and scale the rest by 1 / (1 - rate): `dropout(0.5)`."""

    rate: Fraction = 0.5
    """Probability that an element is dropped."""
    whole: Literal["elements", "channels"] = "elements"
    """Drop single elements, or whole channels of an image (or features of a sequence over all steps)."""

    def infer(self, *x: TensorType) -> TensorType:
        return x[0]

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        if not ctx.training or self.rate == 0:
            return x[0]
        import onnx_ir as ir

        like = x[0]
        if self.whole == "channels":
            rank = ctx.inputs[0].rank
            axes = list(range(2, rank + 1)) if rank != 2 else [1]
            like = ctx.op.ReduceMax(x[0], axes, keepdims=1) if axes else x[0]
        keep = ctx.op.GreaterOrEqual(ctx.uniform(like), float(self.rate))
        return ctx.op.Mul(x[0], ctx.op.Mul(ctx.op.Cast(keep, to=int(ir.DataType.FLOAT)), 1 / (1 - self.rate)))


class BatchNorm(Layer, keyword="batchnorm"):
    """Normalise each channel over batch and space, then scale and shift (Ioffe and Szegedy 2015): `batchnorm`.

    In training by the batch's mean and biased variance, while running averages are kept (of the unbiased variance);
    afterwards by those. Channels are the first axis of images and the last of vectors and sequences.
    """

    epsilon: Epsilon = 1e-5
    """Added to the variance."""
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of the newest batch in the running averages."""
    affine: bool = True
    """Whether to learn a scale and a shift."""
    scale_init: AnyInitializer = ONES
    """How the scale starts."""
    shift_init: AnyInitializer = ZEROS
    """How the shift starts."""

    def _channels(self, x: TensorType) -> tuple[int, int]:
        if x.rank == 0:
            raise ShapeError("`batchnorm` needs channels or features, and gets a scalar", input=0)
        axis = 0 if x.rank >= 3 else x.rank - 1
        channels = x.shape[axis]
        if not isinstance(channels, int):
            raise ShapeError(
                f"`batchnorm` needs a fixed number of channels, and gets `{channels}`", input=0, label=f"gives {x}"
            )
        return axis, channels

    def infer(self, *x: TensorType) -> TensorType:
        self._channels(x[0])
        return x[0]

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        _, c = self._channels(x[0])
        specs: dict[str, WeightSpec] = {}
        if self.affine:
            specs["weight"] = WeightSpec(shape=(c,), init=self.scale_init)
            specs["bias"] = WeightSpec(shape=(c,), init=self.shift_init)
        specs["running_mean"] = WeightSpec(shape=(c,), init=ZEROS, kind="buffer")
        specs["running_var"] = WeightSpec(shape=(c,), init=ONES, kind="buffer")
        return specs

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op = ctx.op
        axis, channels = self._channels(ctx.inputs[0])
        rank = ctx.inputs[0].rank
        if not ctx.training and axis == 0 and rank >= 3:
            import numpy as np

            scale = w.get("weight", op.constant(np.ones(channels, np.float32)) if not self.affine else None)
            shift = w.get("bias", op.constant(np.zeros(channels, np.float32)) if not self.affine else None)
            return op.BatchNormalization(x[0], scale, shift, w["running_mean"], w["running_var"], epsilon=self.epsilon)

        def wide(value: Any) -> Any:
            return op.Unsqueeze(value, list(range(1, rank))) if axis == 0 and rank > 1 else value

        mean, var = w["running_mean"], w["running_var"]
        if ctx.training:
            axes = [0, *(i + 1 for i in range(rank) if i != axis)]
            keep = ctx.mask(x[0], ctx.inputs[0])
            if keep is None and axis == 0 and rank >= 3:
                return self._by_batch(ctx, x[0], channels, w)
            if keep is None:
                batch_mean = op.ReduceMean(x[0], axes, keepdims=1)
                centred = op.Sub(x[0], batch_mean)
                batch_var = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
                count = op.Cast(op.Div(op.Size(x[0]), op.constant(channels)), to=1)
            else:
                count = op.ReduceSum(keep, keepdims=0)
                batch_mean = op.Div(op.ReduceSum(op.Mul(x[0], keep), axes, keepdims=1), count)
                centred = op.Sub(x[0], batch_mean)
                batch_var = op.Div(op.ReduceSum(op.Mul(op.Mul(centred, centred), keep), axes, keepdims=1), count)
            self._keep(ctx, op.Reshape(batch_mean, [channels]), op.Reshape(batch_var, [channels]), count, w)
            y = op.Mul(centred, op.Reciprocal(op.Sqrt(op.Add(batch_var, float(self.epsilon)))))
        else:
            y = op.Mul(op.Sub(x[0], wide(mean)), wide(op.Reciprocal(op.Sqrt(op.Add(var, float(self.epsilon))))))
        return op.Add(op.Mul(y, wide(w["weight"])), wide(w["bias"])) if self.affine else y

    def _by_batch(self, ctx: Lowering, x: Any, channels: int, w: Mapping[str, Any]) -> Any:
        """Normalise images by the batch's own statistics, in few passes; one gradient rule covers all of it."""
        op = ctx.op
        space = list(range(2, len(x.shape)))
        # In two stages: that is more exact, and faster.
        mean = op.ReduceMean(op.ReduceMean(x, space, keepdims=1), [0], keepdims=1)
        centred = op.Sub(x, ctx.stop(mean))
        squares = op.ReduceMean(op.Mul(centred, centred), space, keepdims=0)
        var = op.ReduceMean(squares, [0], keepdims=0)
        count = op.Cast(op.Div(op.Size(x), op.constant(channels)), to=1)
        self._keep(ctx, op.Reshape(mean, [channels]), var, count, w)
        zeros, ones = op.constant([0.0] * channels), op.constant([1.0] * channels)
        scale, shift = (w["weight"], w["bias"]) if self.affine else (ones, zeros)
        y = op.BatchNormalization(centred, scale, shift, zeros, ctx.stop(var), epsilon=self.epsilon)
        return ctx.of_batch(y)

    def _keep(self, ctx: Lowering, mean: Any, var: Any, count: Any, w: Mapping[str, Any]) -> None:
        """Enter a batch's statistics into the running averages; the variance as if it were of the whole population."""
        op, m = ctx.op, float(self.momentum)
        unbiased = op.Mul(op.Div(count, op.Max(op.Sub(count, 1.0), 1.0)), m)
        ctx.update("running_mean", op.Add(op.Mul(w["running_mean"], 1 - m), op.Mul(mean, m)))
        ctx.update("running_var", op.Add(op.Mul(w["running_var"], 1 - m), op.Mul(var, unbiased)))


class LayerNorm(Layer, keyword="layernorm"):
    """Normalise each sample over its last axis, then scale and shift (Ba et al. 2016): `layernorm`.

    Of an image, over channels and space together with one scale and shift for each channel.
    """

    epsilon: Epsilon = 1e-5
    """Added to the variance."""
    affine: bool = True
    """Whether to learn a scale and a shift."""

    def _features(self, x: TensorType) -> int:
        size = x.shape[0 if x.rank >= 3 else -1] if x.rank else None
        if not isinstance(size, int):
            raise ShapeError(f"`layernorm` needs an axis of fixed size, and gets {x}", input=0, label=f"gives {x}")
        return size

    def infer(self, *x: TensorType) -> TensorType:
        self._features(x[0])
        return x[0]

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        if not self.affine:
            return {}
        n = self._features(x[0])
        return {"weight": WeightSpec(shape=(n,), init=ONES), "bias": WeightSpec(shape=(n,), init=ZEROS)}

    def window(self, *x: TensorType) -> str | None:
        return joined([-1], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, rank, n = ctx.op, ctx.inputs[0].rank, self._features(ctx.inputs[0])
        if rank < 3:
            import numpy as np

            weight = w["weight"] if self.affine else op.constant(np.ones(n, np.float32))
            return op.LayerNormalization(x[0], weight, w.get("bias"), axis=-1, epsilon=self.epsilon)
        axes = list(range(1, rank + 1))
        centred = op.Sub(x[0], op.ReduceMean(x[0], axes, keepdims=1))
        variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
        y = op.Div(centred, op.Sqrt(op.Add(variance, float(self.epsilon))))
        if not self.affine:
            return y
        last = list(range(1, rank))
        return op.Add(op.Mul(y, op.Unsqueeze(w["weight"], last)), op.Unsqueeze(w["bias"], last))


class GroupNorm(Layer, keyword="groupnorm"):
    """Normalise groups of channels of each sample (Wu and He 2018): `groupnorm(32)`; one for each: instance norm."""

    groups: Positive
    """Number of groups."""
    epsilon: Epsilon = 1e-5
    """Added to the variance."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank < 2:
            raise ShapeError(
                f"`groupnorm` needs channels and spatial axes, and gets {x[0]}", input=0, label=f"gives {x[0]}"
            )
        channels = x[0].shape[0]
        if not isinstance(channels, int) or channels % self.groups:
            raise ShapeError(
                f"{channels} channels cannot be split into {self.groups} groups",
                field="groups",
                label=f"does not divide {channels}",
            )
        return x[0]

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        c = int(x[0].shape[0])  # type: ignore[arg-type]
        return {"weight": WeightSpec(shape=(c,), init=ONES), "bias": WeightSpec(shape=(c,), init=ZEROS)}

    def window(self, *x: TensorType) -> str | None:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, rank = ctx.op, ctx.inputs[0].rank
        grouped = op.Reshape(x[0], [0, self.groups, -1])
        centred = op.Sub(grouped, op.ReduceMean(grouped, [2], keepdims=1))
        variance = op.ReduceMean(op.Mul(centred, centred), [2], keepdims=1)
        y = op.Reshape(op.Div(centred, op.Sqrt(op.Add(variance, float(self.epsilon)))), op.Shape(x[0]))
        last = list(range(1, rank))
        return op.Add(op.Mul(y, op.Unsqueeze(w["weight"], last)), op.Unsqueeze(w["bias"], last))


class Lrn(Layer, keyword="lrn"):
    """Local response normalisation over neighbouring channels (Krizhevsky et al. 2012): `lrn(5)`.

    y = x / (k + alpha / size * sum of x^2 over `size` channels around)^beta, as ONNX and PyTorch define it; AlexNet's
    paper has alpha without the division by the size.
    """

    size: Positive = 5
    """How many channels are summed."""
    alpha: float = 1e-4
    """Scale of the sum."""
    beta: float = 0.75
    """Exponent."""
    k: float = 1.0
    """Offset."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank < 2:
            raise ShapeError(f"`lrn` needs channels and spatial axes, and gets {x[0]}", input=0, label=f"gives {x[0]}")
        if self.size % 2 == 0:
            raise ShapeError(
                "`lrn` sums as many channels before as behind",
                field="size",
                label="must be odd",
                help="ONNX Runtime knows odd sizes only",
            )
        return x[0]

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, image = ctx.op, ctx.inputs[0].rank == 3
        # ONNX Runtime's kernel takes images only; the shape of space does not matter here.
        flat = x[0] if image else op.Reshape(x[0], [0, 0, -1, 1])
        y = op.LRN(flat, size=self.size, alpha=float(self.alpha), beta=float(self.beta), bias=float(self.k))
        return y if image else op.Reshape(y, op.Shape(x[0]))
