"""Cases of reductions."""

import numpy as np

from tests.autodiff.check import away, case, rand

SYMBOLIC = ("batch", "all")
X = away(2, 3, 4, low=0.2, high=2.0)
NAMES = "Sum Mean Max Min Prod L1 L2 SumSquare LogSum LogSumExp".split()  # noqa: SIM905
for short in NAMES:
    name = f"Reduce{short}"
    x = X if short in ("LogSum", "Prod") else X - 1.0
    for label, axes, settings in (
        ("all", None, {}),
        ("all without dims", None, {"keepdims": 0}),
        ("last", [-1], {}),
        ("last gone", [-1], {"keepdims": 0}),
        ("outer", [0, 2], {"keepdims": 0}),
        ("middle kept", [1], {"keepdims": 1}),
    ):
        case(
            name,
            label,
            lambda op, x, name=name, axes=axes, settings=settings: op.emit(name, [x, axes], settings),
            x,
            symbolic=SYMBOLIC,
        )
    case(
        name,
        "axes from outside",
        lambda op, x, a, name=name: op.emit(name, [x, a], {"keepdims": 0}),
        x,
        np.array([0, -1]),
        symbolic=(),
    )
    # ONNX Runtime's kernels and the reference disagree on which of the other reductions still act without axes.
    if short in ("Sum", "Mean"):
        case(name, "no axes", lambda op, x, name=name: op.emit(name, [x, []], {"noop_with_empty_axes": 1}), x)
    case(name, "rank 0", lambda op, x, name=name: op.emit(name, [x]), np.float64(0.7))
case(
    "ReduceProd",
    "a zero",
    lambda op, x: op.ReduceProd(x, [1]),
    np.array([[0.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0.0, 0.0, 2.0]]),
)
case(
    "ReduceL2",
    "a zero row",
    lambda op, x: op.ReduceL2(op.Mul(x, [[0.0], [1.0]] @ np.ones((1, 3))), [1]),
    rand(2, 3),
    float32_runs=False,
)
case(
    "ReduceLogSumExp",
    "large",
    lambda op, x: op.ReduceLogSumExp(x, [1]),
    rand(2, 3, low=-50, high=50),
    float32_tolerance=1e-4,
)
