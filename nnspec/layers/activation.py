"""Activations: functions of each element, and the softmaxes."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from nnspec.initializers import Constant
from nnspec.layers.base import (
    AnyInitializer,
    Layer,
    Lowering,
    Positive,
    ShapeError,
    TensorType,
    WeightSpec,
    axis_of,
    joined,
)


class Elementwise(Layer):
    """Base of the functions of each element; `onnx` names the operator."""

    elementwise = True
    onnx: ClassVar[str] = ""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].dtype != "float32":
            raise ShapeError(f"`{self.keyword}` needs real numbers and gets {x[0]}", input=0, label=f"gives {x[0]}")
        return x[0]

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.emit(self.onnx, x, {})


class Relu(Elementwise, keyword="relu"):
    """Rectified linear unit: max(x, 0)."""

    onnx = "Relu"


class Sigmoid(Elementwise, keyword="sigmoid"):
    """Logistic function: 1 / (1 + exp(-x))."""

    onnx = "Sigmoid"


class Tanh(Elementwise, keyword="tanh"):
    """Hyperbolic tangent."""

    onnx = "Tanh"


class Softplus(Elementwise, keyword="softplus"):
    """Smooth rectifier: log(1 + exp(x))."""

    onnx = "Softplus"


class Softsign(Elementwise, keyword="softsign"):
    """x / (1 + |x|)."""

    onnx = "Softsign"


class Selu(Elementwise, keyword="selu"):
    """Self-normalising exponential unit (Klambauer et al. 2017): 1.0507 x, or 1.0507 * 1.6733 (exp(x) - 1) below 0."""

    onnx = "Selu"


class HardSigmoid(Elementwise, keyword="hard_sigmoid"):
    """Piecewise linear sigmoid: clip(x / 6 + 1/2, 0, 1)."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.HardSigmoid(x[0], alpha=1 / 6, beta=0.5)


class Silu(Elementwise, keyword="silu"):
    """x sigmoid(x), also called swish."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Mul(x[0], ctx.op.Sigmoid(x[0]))


class Mish(Elementwise, keyword="mish"):
    """x tanh(softplus(x)) (Misra 2019)."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Mul(x[0], ctx.op.Tanh(ctx.op.Softplus(x[0])))


class LeakyRelu(Elementwise, keyword="leaky_relu"):
    """x, or slope x below 0: `leaky_relu(0.1)`."""

    slope: float = 0.01
    """Slope below zero."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.LeakyRelu(x[0], alpha=self.slope)


class Prelu(Elementwise, keyword="prelu"):
    """Leaky ReLU whose slope is learned, one for each channel (He et al. 2015)."""

    elementwise = False
    init: AnyInitializer = Constant(value=0.25)
    """How the slopes start."""

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        channels = x[0].shape[0 if x[0].rank > 2 else -1] if x[0].rank else 1
        if not isinstance(channels, int):
            raise ShapeError("`prelu` needs a fixed number of channels", input=0, label=f"gives {x[0]}")
        return {"weight": WeightSpec(shape=(channels, *(1,) * (x[0].rank - 1 if x[0].rank > 2 else 0)), init=self.init)}

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.PRelu(x[0], w["weight"])


class Elu(Elementwise, keyword="elu"):
    """x, or alpha (exp(x) - 1) below 0 (Clevert et al. 2016)."""

    alpha: float = 1.0
    """Where it levels off: at -alpha."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Elu(x[0], alpha=self.alpha)


class Gelu(Elementwise, keyword="gelu"):
    """x times the Gaussian distribution function of x (Hendrycks and Gimpel 2016)."""

    approximate: bool = False
    """Whether to use the tanh formula instead of erf."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Gelu(x[0], approximate="tanh" if self.approximate else "none")


class Softmax(Elementwise, keyword="softmax"):
    """exp(x) / sum exp(x) along an axis, the last unless `axis` says otherwise; masked steps get 0 along time."""

    elementwise = False
    axis: int = -1
    """The axis that sums to one, counted after the batch."""
    onnx = "Softmax"

    def infer(self, *x: TensorType) -> TensorType:
        super().infer(*x)
        if x[0].rank == 0:
            raise ShapeError(f"`{self.keyword}` needs an axis, and gets a scalar", input=0)
        axis_of(self.axis, x[0].rank)
        return x[0]

    def window(self, *x: TensorType) -> str | None:
        return joined([self.axis], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        rank = ctx.inputs[0].rank
        axis = axis_of(self.axis, rank) + 1
        lengths = ctx.lengths(ctx.inputs[0].shape[axis - 1])
        value = x[0]
        if lengths is not None:
            keep = ctx.mask(
                value,
                ctx.inputs[0].with_shape(tuple(d if i == axis - 1 else 1 for i, d in enumerate(ctx.inputs[0].shape))),
            )
            value = ctx.op.Where(ctx.op.Greater(keep, 0.5), value, -1.0e30)
        return ctx.op.emit(self.onnx, (value,), {"axis": axis - rank - 1})


class LogSoftmax(Softmax, keyword="log_softmax"):
    """Logarithm of the softmax, computed without overflow."""

    onnx = "LogSoftmax"


class Maxout(Layer, keyword="maxout"):
    """Maximum of each group of `pieces` neighbouring features or channels (Goodfellow et al. 2013): `maxout(2)`."""

    pieces: Positive
    """How many linear pieces each unit takes the maximum of."""

    def _axis(self, x: TensorType) -> int:
        return 0 if x.rank > 2 else x.rank - 1

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank == 0:
            raise ShapeError("`maxout` needs an axis, and gets a scalar", input=0)
        axis = self._axis(x[0])
        size = x[0].shape[axis]
        if not isinstance(size, int) or size % self.pieces:
            raise ShapeError(
                f"`maxout` cannot split {size} features into groups of {self.pieces}",
                field="pieces",
                label=f"does not divide {size}",
            )
        return x[0].with_shape((*x[0].shape[:axis], size // self.pieces, *x[0].shape[axis + 1 :]))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axis = self._axis(ctx.inputs[0])
        out = ctx.outputs[0].shape
        grouped = ctx.inputs[0].with_shape((*out[: axis + 1], self.pieces, *out[axis + 1 :]))
        return ctx.op.ReduceMax(ctx.op.Reshape(x[0], ctx.shape(grouped)), [axis + 2], keepdims=0)


class Clip(Elementwise, keyword="clip"):
    """Limits to a range: `clip(-1, 1)`."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Clip(x[0], float(self.low), float(self.high))


class Power(Elementwise, keyword="power"):
    """x to a fixed power: `power(3)`."""

    exponent: Annotated[float, Field()]
    """The exponent."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Pow(x[0], float(self.exponent))
