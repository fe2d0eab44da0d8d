"""Cases of activation functions."""

import numpy as np

from tests.autodiff.check import away, case, rand

X = away(3, 5, low=-4.1, high=4.0)
for name, settings in (
    ("Tanh", {}),
    ("Sigmoid", {}),
    ("Relu", {}),
    ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.4, "beta": 0.3}),
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": -0.3}),
    ("LeakyRelu", {"alpha": 0.0}),
    ("Elu", {}),
    ("Elu", {"alpha": 0.3}),
    ("Elu", {"alpha": -0.7}),
    ("Selu", {}),
    ("Selu", {"alpha": 1.2, "gamma": 0.7}),
    ("Celu", {}),
    ("Celu", {"alpha": 2.0}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Mish", {}),
    ("HardSwish", {}),
    ("ThresholdedRelu", {}),
    ("ThresholdedRelu", {"alpha": -0.5}),
    ("Erf", {}),
):
    case(
        name,
        " ".join(f"{k}={v}" for k, v in settings.items()) or "default",
        lambda op, x, name=name, settings=settings: op.emit(name, [x], settings),
        X,
        symbolic=("batch", "all"),
    )
case("Swish", "alpha", lambda op, x: op.Swish(x, alpha=1.5), X, opset=24)
case("PRelu", "per channel", lambda op, x, s: op.PRelu(x, s), away(2, 3, 4), rand(3, 1), symbolic=("batch", "all"))
case("PRelu", "one slope", lambda op, x, s: op.PRelu(x, s), away(2, 3), rand(1))
for name in ("Softmax", "LogSoftmax"):
    for axis in (-1, 0, 1):
        case(
            name,
            f"axis {axis}",
            lambda op, x, name=name, axis=axis: op.emit(name, [x], {"axis": axis}),
            rand(2, 3, 4),
            symbolic=("batch", "all"),
        )
    case(
        name,
        "large scores",
        lambda op, x, name=name: op.emit(name, [x]),
        rand(3, 4, low=-30.0, high=30.0),
        float32_tolerance=1e-4,
    )
case("Hardmax", "no gradient", lambda op, x: op.Add(op.Hardmax(x), x), away(2, 3))
case("Relu", "twice used", lambda op, x: op.Mul(op.Relu(x), op.Add(op.Relu(x), x)), away(2, 3))
case(
    "Softplus",
    "far out",
    lambda op, x: op.Softplus(x),
    np.array([-80.0, -20.0, 0.0, 20.0, 80.0]),
    float32_tolerance=1e-5,
)
