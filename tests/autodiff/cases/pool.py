"""Cases of pooling."""

import numpy as np

from tests.autodiff.check import away, case, rand

WINDOWS = (
    ("tiles", (2, 3, 6, 4), {"kernel_shape": [3, 2], "strides": [3, 2]}),
    ("tiles with rest", (2, 3, 7, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("overlapping", (2, 3, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("dense", (2, 3, 5, 5), {"kernel_shape": [2, 3]}),
    ("padded", (2, 3, 6, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("uneven", (2, 3, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [0, 1, 1, 0]}),
    ("ceil", (2, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("ceil padded", (2, 3, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("dilated", (2, 3, 8, 9), {"kernel_shape": [2, 3], "dilations": [2, 2]}),
    ("dilated strided", (2, 3, 8, 9), {"kernel_shape": [2, 2], "dilations": [3, 2], "strides": [2, 2]}),
    ("gaps", (2, 3, 8, 7), {"kernel_shape": [2, 2], "strides": [3, 3]}),
    ("1d", (2, 3, 9), {"kernel_shape": [3], "strides": [2]}),
    ("3d", (1, 2, 4, 5, 4), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 1]}),
    ("same upper", (2, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("same lower", (2, 3, 6, 7), {"kernel_shape": [2, 2], "strides": [2, 1], "auto_pad": "SAME_LOWER"}),
    ("valid", (2, 3, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"}),
)
for label, shape, settings in WINDOWS:
    two = settings if "ceil" not in label else {**settings, "count_include_pad": 0}
    case("MaxPool", label, lambda op, x, s=settings: op.MaxPool(x, **s), away(*shape), symbolic=("batch", "all"))
    case("AveragePool", label, lambda op, x, s=settings: op.AveragePool(x, **s), rand(*shape))
    case(
        "AveragePool",
        f"{label}, padding counts",
        lambda op, x, s=settings: op.AveragePool(x, count_include_pad=1, **s),
        rand(*shape),
    )
    if "dilat" not in label and "ceil" not in label:
        for p in (1, 2, 3):
            case("LpPool", f"{label} p={p}", lambda op, x, s=settings, p=p: op.LpPool(x, p=p, **s), away(*shape))
for label, settings in (
    ("plain", {}),
    ("padded", {"pads": [1, 0, 1, 1]}),
    ("strided", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
):
    for include in (0, 1):
        case(
            "AveragePool",
            f"symbolic size {label} {include}",
            lambda op, x, s=settings, i=include: op.AveragePool(x, kernel_shape=[3, 2], count_include_pad=i, **s),
            rand(2, 3, 6, 5),
            symbolic=("all",),
        )
case("MaxPool", "with indices", lambda op, x: op.MaxPool(x, kernel_shape=[2, 2], outputs=2)[0], away(2, 2, 4, 4))
for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    for shape in ((2, 3, 4), (2, 3, 4, 5), (2, 2, 2, 3, 2)):
        case(
            name,
            f"{shape}",
            lambda op, x, name=name: op.emit(name, [x]),
            away(*shape),
            symbolic=("batch", "all"),
            float64=name != "GlobalLpPool",
        )
for p in (1, 3):
    case("GlobalLpPool", f"p={p}", lambda op, x, p=p: op.GlobalLpPool(x, p=p), away(2, 3, 4, 5), float64=False)
case(
    "MaxPool",
    "negative",
    lambda op, x: op.MaxPool(x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    -np.abs(away(1, 2, 4, 4)) - 0.1,
)
