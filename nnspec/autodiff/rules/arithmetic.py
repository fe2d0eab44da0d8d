"""Element-wise arithmetic, comparisons, rounding and casts."""

from __future__ import annotations

from nnspec.autodiff.registry import pointwise, vjp, zero
from nnspec.autodiff.terms import NodeView, Term

pointwise("Add", lambda dy, n: dy, lambda dy, n: dy)
pointwise("Sub", lambda dy, n: dy, lambda dy, n: -dy)
pointwise("Div", lambda dy, n: dy / n.x[1], lambda dy, n: -dy * n.y / n.x[1])
pointwise("Sum", each=lambda dy, n, i: dy)
pointwise("Mean", each=lambda dy, n, i: dy * (1 / len(n.x)))
pointwise("Neg", lambda dy, n: -dy)
pointwise("Abs", lambda dy, n: dy * n.op.Sign(n.x[0]))
pointwise("Exp", lambda dy, n: dy * n.y)
pointwise("Log", lambda dy, n: dy / n.x[0])
pointwise("Sqrt", lambda dy, n: dy * 0.5 / n.y)
pointwise("Reciprocal", lambda dy, n: -dy * (n.y * n.y))
pointwise("Sin", lambda dy, n: dy * n.op.Cos(n.x[0]))
pointwise("Cos", lambda dy, n: -dy * n.op.Sin(n.x[0]))
pointwise("Tan", lambda dy, n: dy * (1 + n.y * n.y))
pointwise("Asin", lambda dy, n: dy / n.op.Sqrt(1 - n.x[0] ** 2))
pointwise("Acos", lambda dy, n: -dy / n.op.Sqrt(1 - n.x[0] ** 2))
pointwise("Atan", lambda dy, n: dy / (1 + n.x[0] ** 2))
pointwise("Sinh", lambda dy, n: dy * n.op.Sqrt(1 + n.y * n.y))
pointwise("Cosh", lambda dy, n: dy * n.op.Sinh(n.x[0]))
pointwise("Asinh", lambda dy, n: dy / n.op.Sqrt(n.x[0] ** 2 + 1))
pointwise("Acosh", lambda dy, n: dy / n.op.Sqrt(n.x[0] ** 2 - 1))
pointwise("Atanh", lambda dy, n: dy / (1 - n.x[0] ** 2))
pointwise("Identity", lambda dy, n: dy)
pointwise("Where", None, lambda dy, n: n.x[0].where(dy, 0), lambda dy, n: n.x[0].where(0, dy))
pointwise("Cast", lambda dy, n: dy.cast(n.x[0].dtype))
pointwise("CastLike", lambda dy, n: dy.cast(n.x[0].dtype), None)


def mul_first(dy: Term, n: NodeView) -> Term:
    """dy times the other factor; a square in one go."""
    return dy * 2 * n.x[0] if n.x[0].value is n.x[1].value else dy * n.x[1]


def mul_second(dy: Term, n: NodeView) -> Term | None:
    """dy times the other factor; the first rule deals with squares."""
    return None if n.x[0].value is n.x[1].value else dy * n.x[0]


pointwise("Mul", mul_first, mul_second)
zero("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor", "IsNaN", "IsInf")
zero("Sign", "Floor", "Ceil", "Round", "Constant", "ConstantOfShape", "EyeLike", "Range")
zero("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def pow_base(dy: Term, n: NodeView) -> Term:
    """x^p by x; zero where p is zero, also at x = 0."""
    x, p = n.x[0], n.x[1].cast(n.x[0].dtype)
    if p.number is None:
        return p.equals(0).where(0, dy * p * n.op.Pow(x, p - 1))
    if p.number == 0:
        return dy * 0
    return dy * p.number * (x if p.number == 2 else x.like(1) if p.number == 1 else n.op.Pow(x, p - 1))


def pow_exponent(dy: Term, n: NodeView) -> Term:
    """x^p by p; zero at x = 0, where the limit of x^p log x is zero for p > 0."""
    x = n.x[0]
    at_zero = x.equals(0)
    return at_zero.where(0, (dy.cast(x.dtype) * n.y * n.op.Log(at_zero.where(1, x)))).cast(n.x[1].dtype)


def mod_divisor(dy: Term, n: NodeView) -> Term:
    """a - b trunc(a / b) by b: the quotient, cut towards zero, is constant almost everywhere."""
    quotient = n.x[0] / n.x[1]
    return -dy * n.op.Sign(quotient) * n.op.Floor(n.op.Abs(quotient))


def extremum(dy: Term, n: NodeView, i: int) -> Term:
    """Min and Max: to the inputs that attain it, in equal shares where several do, as torch.maximum does."""
    if len(n.x) == 1:
        return dy
    hits = [x.equals(n.y).cast(dy.dtype) for x in n.x]
    count = hits[0] + hits[1] if len(hits) == 2 else n.op.Sum(*hits)
    return dy * (hits[i] / count)


def clip_x(dy: Term, n: NodeView) -> Term:
    """Inside the limits, and on them."""
    low, high = n.input(1), n.input(2)
    dx = dy if low is None else (n.x[0] >= low).where(dy, 0)
    return dx if high is None else (n.x[0] <= high).where(dx, 0)


def clip_low(dy: Term, n: NodeView) -> Term:
    """Where the lower limit cuts, unless the upper one overrides it."""
    dx = (n.x[0] < n.x[1]).where(dy, 0)
    return dx if n.input(2) is None else (n.x[1] <= n.x[2]).where(dx, 0)


def clip_high(dy: Term, n: NodeView) -> Term:
    """Where the upper limit cuts."""
    return ((n.x[0] if n.input(1) is None else n.op.Max(n.x[0], n.x[1])) > n.x[2]).where(dy, 0)


pointwise("Pow", pow_base, pow_exponent)
pointwise("Mod", lambda dy, n: dy, mod_divisor)
pointwise("Min", each=extremum)
pointwise("Max", each=extremum)
pointwise("Clip", clip_x, clip_low, clip_high)


def dropout(dy: Term, n: NodeView) -> Term:
    """What was dropped gets nothing, the rest is scaled as in the forward pass."""
    training = n.input(2)
    if training is None or (training.number is not None and not training.number):
        return dy
    keep = n.output(1, "mask", training.dtype)
    if keep.value.shape is None:
        keep.value.shape = n.y.value.shape
    ratio = n.input(1)
    ratio = dy.like(0.5) if ratio is None else ratio.cast(dy.dtype)
    scale = 1 / (1 - ratio) if ratio.number != 1 else dy.like(1)
    if training.number is None:
        scale = training.where(scale, 1)
    return keep.where(dy * scale, 0)


vjp("Dropout", dropout, None, None)
