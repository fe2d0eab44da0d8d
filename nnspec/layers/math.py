"""Arithmetic between tensors, comparisons, and the mathematical functions of each element."""

from typing import Any, ClassVar

from nnspec.dims import Dim, product
from nnspec.layers.activation import Elementwise
from nnspec.layers.base import Layer, Lowering, ShapeError, TensorType, joined


def broadcast(layer: str, x: tuple[TensorType, ...]) -> tuple[Dim, ...]:
    """Return the common shape by NumPy's rules over the axes after the batch."""
    rank = max(t.rank for t in x)
    out: list[Dim] = []
    for i in range(rank):
        size: Dim = 1
        for t in x:
            at = i - (rank - t.rank)
            if at < 0 or t.shape[at] == 1 or t.shape[at] == size:
                continue
            if size != 1:
                shapes = " and ".join(str(list(map(str, t.shape))).replace("'", "") for t in x)
                raise ShapeError(
                    f"`{layer}` cannot combine the shapes {shapes}",
                    help=f"axis {i - rank} is {size} on one side and {t.shape[at]} on the other; "
                    "only equal sizes or 1 go together",
                )
            size = t.shape[at]
        out.append(size)
    return tuple(out)


def align(ctx: Lowering, x: tuple[Any, ...], types: tuple[TensorType, ...]) -> list[Any]:
    """Give batched operands of lower rank the axes that they lack, behind the batch axis."""
    rank = max(t.rank for t in types)
    aligned = []
    for value, type_ in zip(x, types, strict=True):
        if type_.batch and rank - type_.rank > 0:
            value = ctx.op.Unsqueeze(value, list(range(1, rank - type_.rank + 1)))
        aligned.append(value)
    return aligned


class Binary(Layer):
    """Base of the operators between two tensors, or between a tensor and a number."""

    elementwise = True
    arity = None
    symbol: ClassVar[str] = ""
    onnx: ClassVar[str] = ""
    number: float | None = None
    """The other operand, where it is a number."""
    number_first: bool = False
    """Whether the number stands on the left."""

    def infer(self, *x: TensorType) -> TensorType:
        given = len(x) + (self.number is not None)
        if given < 2:
            raise ShapeError(f"`{self.keyword}` needs two operands, and gets {given}")
        if given > 2 and self.keyword not in ("add", "mul", "minimum", "maximum"):
            raise ShapeError(f"`{self.keyword}` takes two operands, and gets {given}")
        shape = broadcast(self.symbol or self.keyword, x)
        return TensorType(shape=shape, dtype=self._dtype(x), batch=any(t.batch for t in x))

    def _dtype(self, x: tuple[TensorType, ...]) -> Any:
        whole = self.number is None or float(self.number).is_integer()
        return "int64" if whole and all(t.dtype == "int64" for t in x) else "float32"

    def _operand_dtype(self, x: tuple[TensorType, ...]) -> Any:
        return self._dtype(x)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        dtype = self._operand_dtype(ctx.inputs)
        target = ir.DataType.FLOAT if dtype == "float32" else ir.DataType.INT64
        values = [
            v if t.dtype == dtype else ctx.op.Cast(v, to=int(target))
            for v, t in zip(align(ctx, x, ctx.inputs), ctx.inputs, strict=True)
        ]
        if self.number is not None:
            number = ctx.op.constant(self.number, target)
            values = [number, *values] if self.number_first else [*values, number]
        return self._combine(ctx, values)

    def _combine(self, ctx: Lowering, values: list[Any]) -> Any:
        result = values[0]
        for value in values[1:]:
            result = ctx.op.emit(self.onnx, (result, value), {})
        return result


class Add(Binary, keyword="add"):
    """Sum of tensors: `a + b`, `(a, b, c) -> add`."""

    symbol, onnx = "+", "Add"


class Sub(Binary, keyword="sub"):
    """Difference: `a - b`."""

    symbol, onnx = "-", "Sub"


class Mul(Binary, keyword="mul"):
    """Product of elements: `a * b`, `(a, b) -> mul`."""

    symbol, onnx = "*", "Mul"


class Div(Binary, keyword="div"):
    """Quotient: `a / b`."""

    symbol, onnx = "/", "Div"

    def _dtype(self, x: tuple[TensorType, ...]) -> Any:
        return "float32"


class Pow(Binary, keyword="pow"):
    """Power: `a ** b`."""

    symbol, onnx = "**", "Pow"

    def _dtype(self, x: tuple[TensorType, ...]) -> Any:
        return "float32"


class Minimum(Binary, keyword="minimum"):
    """The smaller of each pair: `(a, b) -> minimum`."""

    onnx = "Min"


class Maximum(Binary, keyword="maximum"):
    """The larger of each pair: `(a, b) -> maximum`."""

    onnx = "Max"


class Comparison(Binary):
    """Base of the comparisons, which give 1 where they hold and 0 elsewhere."""

    def _dtype(self, x: tuple[TensorType, ...]) -> Any:
        return "float32"

    def _operand_dtype(self, x: tuple[TensorType, ...]) -> Any:
        return Binary._dtype(self, x)

    def _combine(self, ctx: Lowering, values: list[Any]) -> Any:
        import onnx_ir as ir

        result = super()._combine(ctx, values)
        if self.keyword == "not_equal":
            result = ctx.op.Not(result)
        return ctx.op.Cast(result, to=int(ir.DataType.FLOAT))


class Equal(Comparison, keyword="equal"):
    """1 where equal: `a == b`."""

    symbol, onnx = "==", "Equal"


class NotEqual(Comparison, keyword="not_equal"):
    """1 where different: `a != b`."""

    symbol, onnx = "!=", "Equal"


class Less(Comparison, keyword="less"):
    """1 where smaller: `a < b`."""

    symbol, onnx = "<", "Less"


class LessEqual(Comparison, keyword="less_equal"):
    """1 where smaller or equal: `a <= b`."""

    symbol, onnx = "<=", "LessOrEqual"


class Greater(Comparison, keyword="greater"):
    """1 where larger: `a > b`."""

    symbol, onnx = ">", "Greater"


class GreaterEqual(Comparison, keyword="greater_equal"):
    """1 where larger or equal: `a >= b`."""

    symbol, onnx = ">=", "GreaterOrEqual"


class MatMul(Layer, keyword="matmul"):
    """Matrix product: `a @ b`; vectors count as rows on the left and columns on the right, further axes broadcast."""

    elementwise = True
    arity = 2

    def infer(self, *x: TensorType) -> TensorType:
        a, b = x
        if any(t.dtype != "float32" for t in x):
            raise ShapeError(f"`@` needs real numbers, and gets {a} and {b}")
        if a.rank == 0 or b.rank == 0:
            raise ShapeError("`@` needs vectors or matrices, and gets a scalar", help="use `*`")
        inner_b = b.shape[-2] if b.rank > 1 else b.shape[-1]
        if a.shape[-1] != inner_b:
            raise ShapeError(
                f"`@` cannot multiply {a} by {b}",
                help=f"the last axis on the left is {a.shape[-1]}, the one it meets on the right {inner_b}",
            )
        outer = broadcast("@", (a.with_shape(a.shape[:-2]), b.with_shape(b.shape[:-2])))
        shape = outer + (a.shape[-2:-1] if a.rank > 1 else ()) + (b.shape[-1:] if b.rank > 1 else ())
        return TensorType(shape=shape, batch=a.batch or b.batch)

    def macs(self, *x: TensorType) -> Dim:
        return product(self.infer(*x).shape) * x[0].shape[-1]

    def window(self, *x: TensorType) -> str | None:
        # A product with a weight joins features; one of two tensors with a batch, such as attention's, joins all.
        return "all" if x[1].batch else joined([-1], x[0])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        a, b = x
        ta, tb = ctx.inputs
        if not tb.batch and tb.rank == 2:
            return ctx.op.MatMul(a, b)
        squeeze = []
        if ta.rank == 1:
            a, ta = ctx.op.Unsqueeze(a, [-2]), ta.with_shape((1, *ta.shape))
            squeeze.append(-2)
        if tb.rank == 1:
            b, tb = ctx.op.Unsqueeze(b, [-1]), tb.with_shape((*tb.shape, 1))
            squeeze.append(-1)
        a, b = align(ctx, (a, b), (ta, tb))
        y = ctx.op.MatMul(a, b)
        return ctx.op.Squeeze(y, squeeze) if squeeze else y


class Square(Elementwise, keyword="square"):
    """x * x."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Mul(x[0], x[0])


class Exp(Elementwise, keyword="exp"):
    """Exponential function."""

    onnx = "Exp"


class Log(Elementwise, keyword="log"):
    """Natural logarithm."""

    onnx = "Log"


class Sqrt(Elementwise, keyword="sqrt"):
    """Square root."""

    onnx = "Sqrt"


class Abs(Elementwise, keyword="abs"):
    """Absolute value."""

    onnx = "Abs"


class Neg(Elementwise, keyword="neg"):
    """Negative: `-a`."""

    onnx = "Neg"


class Sign(Elementwise, keyword="sign"):
    """-1, 0 or 1; its gradient is zero."""

    onnx = "Sign"


class Reciprocal(Elementwise, keyword="reciprocal"):
    """1 / x."""

    onnx = "Reciprocal"


class Sin(Elementwise, keyword="sin"):
    """Sine."""

    onnx = "Sin"


class Cos(Elementwise, keyword="cos"):
    """Cosine."""

    onnx = "Cos"


class Tan(Elementwise, keyword="tan"):
    """Tangent."""

    onnx = "Tan"


class Erf(Elementwise, keyword="erf"):
    """Gaussian error function."""

    onnx = "Erf"


class Floor(Elementwise, keyword="floor"):
    """Largest integer not above x; its gradient is zero."""

    onnx = "Floor"


class Ceil(Elementwise, keyword="ceil"):
    """Smallest integer not below x; its gradient is zero."""

    onnx = "Ceil"


class Round(Elementwise, keyword="round"):
    """Nearest integer, halves to even; its gradient is zero."""

    onnx = "Round"


class LogicalNot(Elementwise, keyword="logical_not"):
    """1 where x is 0, and 0 elsewhere: `not a`."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        return ctx.op.Cast(ctx.op.Equal(x[0], 0.0), to=int(ir.DataType.FLOAT))


class Real(Layer, keyword="real"):
    """Integers as real numbers: `year -> real`."""

    elementwise = True

    def infer(self, *x: TensorType) -> TensorType:
        return TensorType(shape=x[0].shape, batch=x[0].batch)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        return ctx.op.Cast(x[0], to=int(ir.DataType.FLOAT))


class Where(Layer, keyword="where"):
    """Choose by a condition: `where(c, a, b)` is a where c is not 0, and b elsewhere."""

    elementwise = True
    arity = 3

    def infer(self, *x: TensorType) -> TensorType:
        if x[1].dtype != x[2].dtype:
            raise ShapeError(
                f"`where` cannot mix {x[1]} and {x[2]}", input=(1, 2), help="`real` turns integers into real numbers"
            )
        return TensorType(shape=broadcast("where", x), dtype=x[1].dtype, batch=any(t.batch for t in x))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        c, a, b = align(ctx, x, ctx.inputs)
        return ctx.op.Where(ctx.op.Cast(c, to=int(ir.DataType.BOOL)), a, b)


class StopGradient(Layer, keyword="stop_gradient"):
    """The same value, through which no gradient flows: `teacher -> stop_gradient`."""

    elementwise = True

    def infer(self, *x: TensorType) -> TensorType:
        return x[0]

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.stop(x[0])
