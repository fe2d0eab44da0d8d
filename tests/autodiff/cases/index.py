"""Cases of indexing."""

import numpy as np

from tests.autodiff.check import away, case, rand

ALL = ("batch", "all")
X = rand(4, 3, 5)


def i64(*values):
    return np.array(values, np.int64)


for axis in (0, 1, 2, -1):
    for label, index in (
        ("repeated", i64(0, 2, 2, 1)),
        ("matrix", i64([0, 1], [2, -1])),
        ("scalar", np.int64(1)),
        ("none", i64()),
    ):
        case("Gather", f"{label} {axis}", lambda op, x, i, a=axis: op.Gather(x, i, axis=a), X, index, symbolic=ALL)
    case("Gather", f"constant {axis}", lambda op, x, a=axis: op.Gather(x, op.constant(-1), axis=a), X, symbolic=ALL)
    case("Gather", f"constant range {axis}", lambda op, x, a=axis: op.Gather(x, [1, 2], axis=a), X, symbolic=ALL)
    case("Gather", f"constant order {axis}", lambda op, x, a=axis: op.Gather(x, [2, 1, 2], axis=a), X, symbolic=ALL)
case("Gather", "int32", lambda op, x, i: op.Gather(x, i), X, np.array([1, 1], np.int32))
for axis in (0, 1, -1):
    case(
        "GatherElements",
        f"{axis}",
        lambda op, x, i, a=axis: op.GatherElements(x, i, axis=a),
        rand(3, 4),
        i64([0, 1, 1, 2], [0, 0, -1, 2]),
        symbolic=ALL,
    )
case("GatherND", "elements", lambda op, x, i: op.GatherND(x, i), rand(2, 3), i64([0, 1], [1, 2], [0, 1]), symbolic=ALL)
case("GatherND", "rows", lambda op, x, i: op.GatherND(x, i), X, i64([[1], [1]], [[3], [0]]), symbolic=ALL)
case(
    "GatherND",
    "batch",
    lambda op, x, i: op.GatherND(x, i, batch_dims=1),
    X,
    i64([[0, 4], [0, 4]], [[1, 1], [2, 2]], [[0, 0], [0, 1]], [[2, 3], [1, 3]]),
    symbolic=ALL,
)
for reduction in ("none", "add"):
    case(
        "ScatterElements",
        reduction,
        lambda op, x, i, u, r=reduction: op.ScatterElements(x, i, u, axis=1, reduction=r),
        rand(2, 4),
        i64([0, 2], [3, 1]),
        rand(2, 2),
        symbolic=ALL,
    )
    case(
        "ScatterND",
        reduction,
        lambda op, x, i, u, r=reduction: op.ScatterND(x, i, u, reduction=r),
        X,
        i64([[0], [2]]),
        rand(1, 2, 3, 5),
        symbolic=ALL,
    )
case(
    "ScatterElements",
    "add, repeated",
    lambda op, x, i, u: op.ScatterElements(x, i, u, axis=1, reduction="add"),
    rand(2, 4),
    i64([0, 0], [3, 3]),
    rand(2, 2),
)
FAR = 2**31 - 1
for label, starts, ends, axes, steps in (
    ("plain", [1], [3], [0], None),
    ("no axes", [1, 0], [4, 2], None, None),
    ("negative", [-3], [-1], [-1], None),
    ("step", [0], [5], [2], [2]),
    ("step 3 from 1", [1], [FAR], [2], [3]),
    ("backwards", [-1], [-FAR], [0], [-1]),
    ("backwards by 2", [4], [0], [2], [-2]),
    ("two axes", [1, 1], [FAR, 4], [0, 2], [2, 2]),
    ("empty", [3], [1], [0], [1]),
    ("beyond", [-9], [99], [0], [1]),
    ("inner backwards", [2, 3], [0, 1], [1, 2], [-1, -1]),
):
    case("Slice", label, lambda op, x, s=starts, e=ends, a=axes, t=steps: op.Slice(x, s, e, a, t), X, symbolic=ALL)
case("Slice", "from outside", lambda op, x, s, e: op.Slice(x, s, e, [2], [1]), X, i64(1), i64(3), symbolic=ALL)
for axis in (0, -1):
    for largest in (0, 1):
        case(
            "TopK",
            f"{axis} {largest}",
            lambda op, x, a=axis, b=largest: op.TopK(x, [2], axis=a, largest=b, outputs=2),
            away(4, 5),
            symbolic=ALL,
        )
case("OneHot", "values", lambda op, i, v: op.OneHot(i, op.constant(4), v), i64(0, 3, 1, 1), rand(2))
case("OneHot", "axis", lambda op, i, v: op.OneHot(i, op.constant(3), v, axis=0), i64([0, 2], [1, 1]), rand(2))
case("ReverseSequence", "time first", lambda op, x, n: op.ReverseSequence(x, n), X, i64(4, 1, 2))
case(
    "ReverseSequence",
    "batch first",
    lambda op, x, n: op.ReverseSequence(x, n, batch_axis=0, time_axis=1),
    X,
    i64(3, 1, 2, 2),
)
case("Compress", "rows", lambda op, x, c: op.Compress(x, c, axis=1), X, np.array([True, False, True]))
case("Compress", "flat", lambda op, x, c: op.Compress(x, c), X, np.array([True, False, True, True]))
