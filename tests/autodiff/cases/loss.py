"""Cases of ONNX's loss operators."""

import numpy as np

from tests.autodiff.check import case, rand

for name in ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"):
    for reduction in ("mean", "sum", "none"):
        for shape in ((4, 3), (4, 3, 2), (4, 3, 2, 2)):
            label = np.random.default_rng(0).integers(0, 3, (shape[0], *shape[2:]))
            for kind in ("plain", "weights", "ignore", "both"):
                settings = {"reduction": reduction, **({"ignore_index": 1} if kind in ("ignore", "both") else {})}

                def build(op, x, label, name=name, kind=kind, settings=settings):
                    weights = np.array([0.3, 0.7, 1.4], x.dtype.numpy()) if kind in ("weights", "both") else None
                    return op.emit(name, [x, label, weights], settings)

                case(name, f"{reduction} {shape} {kind}", build, rand(*shape), label)
for name in ("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"):
    for reduction in ("mean", "sum", "none"):
        for settings in ({}, {"ignore_index": 1}):
            case(
                name,
                f"{reduction} {len(settings)} by the class weights",
                lambda op, x, i, w, name=name, r=reduction, s=settings: op.emit(name, [x, i, w], {"reduction": r, **s}),
                rand(4, 3),
                np.array([0, 2, 1, 1]),
                rand(3, low=0.5, high=1.5),
                batched=(0, 1),
            )
case(
    "SoftmaxCrossEntropyLoss",
    "log-probabilities too",
    lambda op, x, i: op.SoftmaxCrossEntropyLoss(x, i, outputs=2),
    rand(4, 3),
    np.array([0, 2, 1, 1]),
)
case(
    "SoftmaxCrossEntropyLoss",
    "ignored label outside",
    lambda op, x, i: op.SoftmaxCrossEntropyLoss(x, i, ignore_index=-100),
    rand(4, 3),
    np.array([0, -100, 1, 1]),
)
