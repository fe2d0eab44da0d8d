"""Cases of rearranging, joining, repeating and padding."""

import numpy as np

from tests.autodiff.check import case, rand

ALL = ("batch", "all")


def doubled(op, y):
    """Make the result depend on the place of each element."""
    return op.Mul(y, y)


X = rand(2, 3, 4)
for target in ([6, 4], [2, -1], [0, 12], [-1], [2, 3, 2, 2]):
    case("Reshape", f"{target}", lambda op, x, t=target: op.Reshape(doubled(op, x), t), X, symbolic=ALL)
case("Reshape", "by another's shape", lambda op, x, y: op.Reshape(x, op.Shape(y)), X, rand(4, 6), symbolic=ALL)
case("Reshape", "nothing in it", lambda op, x: op.Reshape(x, [3, 4, 0], allowzero=1), rand(0, 3, 4), symbolic=ALL)
for axis in (0, 1, 2, -1):
    case("Flatten", f"{axis}", lambda op, x, axis=axis: op.Flatten(doubled(op, x), axis=axis), X, symbolic=ALL)
case("Squeeze", "some", lambda op, x: op.Squeeze(x, [1, -1]), rand(2, 1, 3, 1))
case("Squeeze", "every", lambda op, x: op.Squeeze(x), rand(1, 2, 1), symbolic=())
case("Unsqueeze", "two", lambda op, x: op.Unsqueeze(x, [0, -1]), X, symbolic=ALL)
case("Unsqueeze", "rank 0", lambda op, x: op.Unsqueeze(x, [0]), np.float64(0.3))
case("Transpose", "default", lambda op, x: op.Transpose(x), X, symbolic=ALL)
case("Transpose", "cycle", lambda op, x: op.Transpose(x, perm=[1, 2, 0]), X, symbolic=ALL)
for source, target in (((3, 1), [2, 3, 4]), ((1,), [3]), ((), [2, 2]), ((2, 3), [1, 3]), ((1, 3), [2, 1])):
    case("Expand", f"{source}{target}", lambda op, x, t=target: op.Expand(x, t), rand(*source), symbolic=ALL)
case(
    "Expand",
    "by another's shape",
    lambda op, x, y: op.Mul(op.Expand(x, op.Shape(y)), y),
    rand(3, 1),
    rand(2, 3, 4),
    symbolic=ALL,
)
case("Trilu", "lower", lambda op, x: op.Trilu(x, upper=0), X)
case("Trilu", "upper moved", lambda op, x: op.Trilu(x, op.constant(1)), X, symbolic=ALL)
for mode in ("DCR", "CRD"):
    case(
        "DepthToSpace",
        mode,
        lambda op, x, mode=mode: op.DepthToSpace(x, blocksize=2, mode=mode),
        rand(2, 8, 2, 3),
        symbolic=ALL,
    )
case("SpaceToDepth", "2", lambda op, x: op.SpaceToDepth(x, blocksize=2), rand(2, 3, 4, 6), symbolic=ALL)
for exclusive in (0, 1):
    for reverse in (0, 1):
        case(
            "CumSum",
            f"{exclusive}{reverse}",
            lambda op, x, e=exclusive, r=reverse: op.CumSum(x, op.constant(1), exclusive=e, reverse=r),
            X,
        )
for axis in (0, 1, -1):
    case(
        "Concat",
        f"{axis}",
        lambda op, x, y, z, a=axis: op.Concat(x, doubled(op, y), z, x, axis=a),
        rand(2, 2),
        rand(2, 2, seed=1),
        rand(2, 2, seed=2),
        symbolic=ALL,
    )
case("Concat", "one", lambda op, x: op.Concat(x, axis=0), X)
case("Concat", "one wanted", lambda op, x, y: op.Concat(x, y, axis=1), rand(2, 3), rand(2, 2), wrt=(1,))
case("Concat", "sizes", lambda op, x, y: op.Concat(x, y, axis=1), rand(2, 3), rand(2, 1), symbolic=ALL)
case("Split", "three", lambda op, x: op.Split(x, [1, 2, 1], axis=2, outputs=3), X, symbolic=ALL)
case("Split", "one used", lambda op, x: op.Split(x, axis=2, num_outputs=2, outputs=2)[1], X, symbolic=ALL)
case("Split", "uneven", lambda op, x: op.Mul(*op.Split(x, axis=-1, num_outputs=2, outputs=2)), rand(3, 4))
for repeats in ([2, 1, 3], [1, 1, 1], [1, 2, 1]):
    case("Tile", f"{repeats}", lambda op, x, r=repeats: op.Tile(x, r), X, symbolic=ALL)
case("Tile", "repeats from outside", lambda op, x, r: op.Tile(x, r), X, np.array([2, 1, 2]))
for mode in ("constant", "edge", "reflect", "wrap"):
    for pads in ([0, 1, 0, 2], [1, 0, 1, 1], [0, 2, 1, 0]):
        case(
            "Pad",
            f"{mode} {pads}",
            lambda op, x, p=pads, m=mode: doubled(op, op.Pad(x, p, mode=m)),
            rand(3, 4),
            symbolic=ALL,
        )
    case("Pad", f"{mode} by axes", lambda op, x, m=mode: op.Pad(x, [1, 1], None, [-1], mode=m), rand(3, 4))
    case(
        "Pad", f"{mode} from outside", lambda op, x, p, m=mode: op.Pad(x, p, mode=m), rand(3, 4), np.array([1, 2, 0, 1])
    )
case("Pad", "negative", lambda op, x: op.Pad(x, [0, -1, 0, -2]), rand(3, 5), symbolic=ALL)
case("Pad", "both signs", lambda op, x: op.Pad(x, [1, -1, -1, 2]), rand(3, 5), symbolic=ALL)
case("Pad", "value", lambda op, x, v: doubled(op, op.Pad(x, [1, 0, 0, 2], v)), rand(2, 3), np.float64(0.4))
