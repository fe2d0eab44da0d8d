"""Cases of normalisations."""

from tests.autodiff.check import away, case, rand

for axis, scale in ((-1, (4,)), (1, (3, 4)), (0, (2, 3, 4)), (2, (1,))):
    case(
        "LayerNormalization",
        f"{axis} {scale}",
        lambda op, x, s, b, a=axis: op.LayerNormalization(x, s, b, axis=a, epsilon=1e-3),
        rand(2, 3, 4),
        rand(*scale, seed=1),
        rand(*scale, seed=2),
        float32_tolerance=1e-4,
    )
case("LayerNormalization", "no bias", lambda op, x, s: op.LayerNormalization(x, s), rand(2, 5), rand(5))
case("RMSNormalization", "last", lambda op, x, s: op.RMSNormalization(x, s), rand(2, 3, 4), rand(4), opset=23)
case(
    "RMSNormalization",
    "two axes",
    lambda op, x, s: op.RMSNormalization(x, s, axis=1),
    rand(2, 3, 4),
    rand(3, 4),
    opset=23,
)
for groups in (1, 2, 4):
    case(
        "GroupNormalization",
        f"{groups}",
        lambda op, x, s, b, g=groups: op.GroupNormalization(x, s, b, num_groups=g, epsilon=1e-3, stash_type=x.dtype),
        rand(2, 4, 3, 2),
        rand(4, seed=1),
        rand(4, seed=2),
        float32_tolerance=1e-4,
    )
case(
    "GroupNormalization",
    "opset 18",
    lambda op, x, s, b: op.GroupNormalization(x, s, b, num_groups=2),
    rand(2, 4, 3, 2),
    rand(2, seed=1),
    rand(2, seed=2),
    opset=18,
    batched=(0,),
    float32_tolerance=1e-4,
)
for shape in ((2, 3, 5), (2, 3, 4, 5)):
    case(
        "InstanceNormalization",
        f"{shape}",
        lambda op, x, s, b: op.InstanceNormalization(x, s, b, epsilon=1e-3),
        rand(*shape),
        rand(3, seed=1),
        rand(3, seed=2),
        float32_tolerance=1e-4,
    )
for shape in ((4, 3), (2, 3, 5), (2, 3, 4, 5)):
    case(
        "BatchNormalization",
        f"inference {shape}",
        lambda op, *x: op.BatchNormalization(*x, epsilon=1e-2),
        rand(*shape),
        *(rand(3, seed=i) for i in (1, 2, 3)),
        rand(3, low=0.5, high=1.5),
    )
case(
    "BatchNormalization",
    "training",
    lambda op, *x: op.BatchNormalization(*x, training_mode=1, epsilon=1e-2, outputs=3)[0],
    rand(3, 3, 4),
    *(rand(3, seed=i) for i in (1, 2, 3)),
    rand(3, low=0.5, high=1.5),
    float32_tolerance=1e-4,
)
case(
    "MeanVarianceNormalization",
    "default",
    lambda op, x: op.MeanVarianceNormalization(x),
    rand(2, 3, 4, 5),
    float64=False,
)
case(
    "MeanVarianceNormalization",
    "axes",
    lambda op, x: op.MeanVarianceNormalization(x, axes=[-1]),
    rand(2, 3, 4),
    float64=False,
)
for size in (1, 3, 4, 5):
    case(
        "LRN",
        f"{size}",
        lambda op, x, s=size: op.LRN(x, size=s, alpha=0.7, beta=0.6, bias=1.3),
        rand(2, 5, 3, 3),
        float32_runs=size % 2 == 1,
    )
for p in (1, 2):
    for axis in (-1, 1):
        case(
            "LpNormalization",
            f"{p} {axis}",
            lambda op, x, p=p, a=axis: op.LpNormalization(x, p=p, axis=a),
            away(2, 3, 4),
        )
