"""Cases of element-wise arithmetic."""

import numpy as np

from tests.autodiff.check import away, case, rand

POSITIVE = rand(3, 4, low=0.3, high=2.0)
ANY = away(3, 4)
SMALL = rand(3, 4, low=-0.8, high=0.8)
BOTH = ("batch", "all")

for name in ("Add", "Sub", "Mul"):
    for a, b in (((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3, 4), (3, 1)), ((), (3, 2)), ((1,), (1, 1))):
        case(
            name,
            f"{a}{b}",
            lambda op, x, y, name=name: op.emit(name, [x, y]),
            rand(*a),
            rand(*b, seed=1),
            symbolic=BOTH,
        )
    case(name, "itself", lambda op, x, name=name: op.emit(name, [x, x]), rand(3, 4), symbolic=BOTH)
case("Div", "broadcast", lambda op, x, y: op.Div(x, y), rand(3, 4), rand(3, 1, low=0.5, high=2.0), symbolic=BOTH)
case("Div", "scalar", lambda op, x, y: op.Div(x, y), np.float64(0.7), rand(2, 3, low=-2.0, high=-0.5), symbolic=BOTH)
for count in (1, 2, 4):
    shapes = ((2, 3), (3,), (2, 1), ())[:count]
    arrays = [rand(*s, seed=i) for i, s in enumerate(shapes)]
    for name in ("Sum", "Mean"):
        case(name, f"{count}", lambda op, *x, name=name: op.emit(name, x), *arrays, symbolic=BOTH)
    for name in ("Min", "Max"):
        spread = [away(*s, seed=i) + 0.01 * i for i, s in enumerate(shapes)]
        case(name, f"{count}", lambda op, *x, name=name: op.emit(name, x), *spread, symbolic=BOTH)
for name, x in (
    ("Neg", ANY),
    ("Abs", ANY),
    ("Exp", ANY),
    ("Log", POSITIVE),
    ("Sqrt", POSITIVE),
    ("Reciprocal", POSITIVE),
    ("Sin", ANY),
    ("Cos", ANY),
    ("Tan", SMALL),
    ("Asin", SMALL),
    ("Acos", SMALL),
    ("Atan", ANY),
    ("Sinh", ANY),
    ("Cosh", ANY),
    ("Asinh", ANY),
    ("Acosh", POSITIVE + 1.0),
    ("Atanh", SMALL),
    ("Identity", ANY),
):
    case(name, "matrix", lambda op, x, name=name: op.emit(name, [x]), x, symbolic=BOTH)
    case(name, "scalar", lambda op, x, name=name: op.emit(name, [x]), x[1, 1])
case("Pow", "square", lambda op, x: op.Pow(x, 2.0), ANY)
case("Pow", "cube of integer type", lambda op, x: op.Pow(x, op.constant(3)), ANY)
case("Pow", "one and zero", lambda op, x: op.Add(op.Pow(x, 1.0), op.Pow(x, 0.0)), ANY)
case("Pow", "root", lambda op, x: op.Pow(x, 0.5), POSITIVE)
case("Pow", "both", lambda op, x, p: op.Pow(x, p), POSITIVE, rand(4), symbolic=BOTH)
case("Pow", "zero base", lambda op, x, p: op.Pow(x, p), np.array([0.0, 2.0, 0.5]), np.array([2.0, 3.0, 1.5]))
case("Where", "broadcast", lambda op, c, x, y: op.Where(c, x, y), rand(3, 1) > 0, rand(3, 4), rand(4), symbolic=BOTH)
case(
    "Cast",
    "there and back",
    lambda op, x: op.Cast(op.Cast(op.Mul(x, x), to=1), to=x.dtype),
    rand(3),
    step=1e-2,
    tolerance=1e-4,
)
case("CastLike", "same", lambda op, x, y: op.CastLike(op.Mul(x, x), y), rand(3), rand(2))
case(
    "Mod",
    "fmod",
    lambda op, x, y: op.Mod(x, y, fmod=1),
    rand(3, 4, low=-5, high=5),
    np.array([0.7, -0.9, 1.1, 2.3]),
    symbolic=BOTH,
)
case("Clip", "both limits", lambda op, x: op.Clip(x, -0.4, 0.5), ANY)
case("Clip", "low only", lambda op, x: op.Clip(x, -0.4), ANY)
case("Clip", "high only", lambda op, x: op.Clip(x, None, 0.4), ANY)
case("Clip", "limits too", lambda op, x, a, b: op.Clip(x, a, b), ANY, np.float64(-0.3), np.float64(0.2))
case("Dropout", "inference", lambda op, x: op.Dropout(x, 0.5), ANY)
case("Dropout", "switched off", lambda op, x: op.Dropout(x, 0.5, op.constant(np.bool_(False)), outputs=2), ANY)
