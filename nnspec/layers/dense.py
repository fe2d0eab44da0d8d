"""Fully connected layers and embeddings."""

from collections.abc import Mapping
from typing import Any

from nnspec.dims import Dim, product
from nnspec.initializers import GLOROT_UNIFORM, ZEROS, Normal
from nnspec.layers.base import AnyInitializer, Layer, Lowering, Positive, ShapeError, TensorType, WeightSpec, joined


class Dense(Layer, keyword="dense"):
    """Fully connected layer on the last axis: `dense(100)`; y = W x + b.

    [..., features] becomes [..., units]; the weight is [units, features].
    """

    units: Positive
    """Number of outputs."""
    bias: bool = True
    """Whether a bias is added."""
    init: AnyInitializer = GLOROT_UNIFORM
    """How the weight starts."""
    bias_init: AnyInitializer = ZEROS
    """How the bias starts."""

    def _features(self, x: TensorType) -> int:
        if x.rank < 1:
            raise ShapeError(
                "`dense` needs at least one axis, and gets a scalar", input=0, help="use `reshape([1])` before it"
            )
        if x.dtype != "float32":
            raise ShapeError(
                f"`dense` needs real numbers and gets {x}",
                input=0,
                label=f"gives {x}",
                help="an `embedding` turns integers into vectors",
            )
        features = x.shape[-1]
        if not isinstance(features, int):
            raise ShapeError(
                f"`dense` needs a last axis of fixed size, and gets `{features}`",
                input=0,
                label=f"gives {x}",
                help="a global pool, `last` or a reduction removes a symbolic axis",
            )
        return features

    def infer(self, *x: TensorType) -> TensorType:
        self._features(x[0])
        return x[0].with_shape((*x[0].shape[:-1], self.units))

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        specs = {"weight": WeightSpec(shape=(self.units, self._features(x[0])), init=self.init, decay=True)}
        if self.bias:
            specs["bias"] = WeightSpec(shape=(self.units,), init=self.bias_init)
        return specs

    def macs(self, *x: TensorType) -> Dim:
        return product(x[0].shape) * self.units

    def window(self, *x: TensorType) -> str | None:
        return joined([-1], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op, value = ctx.op, x[0]
        bias = [w["bias"]] if "bias" in w else []
        if len(value.shape) == 2:
            return op.Gemm(value, w["weight"], *bias, transB=1)
        if not op.target.alone:
            y = op.MatMul(value, op.Transpose(w["weight"], perm=[1, 0]))
            return op.Add(y, *bias) if bias else y
        # ONNX Runtime makes this of product and sum by itself. Written here, the gradients are products of rows too.
        y = op.Gemm(op.Reshape(value, [-1, w["weight"].shape[1]]), w["weight"], *bias, transB=1)
        leading = [d if isinstance(d, int) else -1 for d in value.shape[:-1]]
        if leading.count(-1) <= 1:
            return op.Reshape(y, [*leading, self.units])
        return op.Reshape(y, op.Concat(op.Shape(value, start=0, end=-1), [self.units], axis=0))


class Embedding(Layer, keyword="embedding"):
    """A vector for each integer: `embedding(10000, 300)`; int [...] becomes [..., features]."""

    vocabulary: Positive
    """Number of different integers, which count from 0."""
    features: Positive
    """Length of each vector."""
    init: AnyInitializer = Normal(std=1.0)
    """How the table starts."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].dtype != "int64":
            raise ShapeError(
                f"`embedding` needs integers and gets {x[0]}",
                input=0,
                label=f"gives {x[0]}",
                help="declare the input as `int[T]`",
            )
        return TensorType(shape=(*x[0].shape, self.features), batch=x[0].batch)

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        return {"weight": WeightSpec(shape=(self.vocabulary, self.features), init=self.init, decay=True)}

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Gather(w["weight"], x[0], axis=0)


class OneHot(Layer, keyword="one_hot"):
    """A vector with a one at each integer's place: `one_hot(10)`; int [...] becomes [..., classes]."""

    classes: Positive
    """Length of each vector."""
    elementwise = True

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].dtype != "int64":
            raise ShapeError(f"`one_hot` needs integers and gets {x[0]}", input=0, label=f"gives {x[0]}")
        return TensorType(shape=(*x[0].shape, self.classes), batch=x[0].batch)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        places = ctx.op.constant(list(range(self.classes)))
        return ctx.op.Cast(ctx.op.Equal(ctx.op.Unsqueeze(x[0], [-1]), places), to=int(ir.DataType.FLOAT))


class Param(Layer, keyword="param"):
    """A weight of a block's own: `param b: [units] = zeros`."""

    arity = 0
    elementwise = True
    shape: tuple[int, ...]
    """Its shape, without a batch axis."""
    init: AnyInitializer = ZEROS
    """How it starts."""

    def infer(self, *x: TensorType) -> TensorType:
        return TensorType(shape=self.shape, batch=False)

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        return {"": WeightSpec(shape=self.shape, init=self.init, decay=len(self.shape) > 1)}

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return w[""]


class Literal(Layer, keyword="literal"):
    """Numbers written in the spec, as a tensor without a batch axis: `x * [0.5, 2]`."""

    arity = 0
    elementwise = True
    shape: tuple[int, ...]
    """Their shape."""
    values: tuple[float, ...]
    """The numbers, row by row."""

    def infer(self, *x: TensorType) -> TensorType:
        return TensorType(shape=self.shape, batch=False)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import numpy as np

        return ctx.op.constant(np.array(self.values, dtype=np.float32).reshape(self.shape))
