"""Cases of convolutions: strides that do not divide, uneven padding, dilation, groups, one to three dimensions."""

# The reference evaluator fails at ConvTranspose with groups or output_shape and at negative pads: float32 alone.
from tests.autodiff.check import case, rand

for label, x, w, settings in (
    ("1d", (2, 3, 8), (4, 3, 3), {}),
    ("2d", (2, 3, 5, 6), (4, 3, 3, 2), {"pads": [1, 0, 1, 0]}),
    ("3d", (1, 2, 4, 5, 3), (3, 2, 2, 3, 1), {"strides": [1, 2, 1]}),
    ("1x1", (2, 3, 4, 5), (2, 3, 1, 1), {}),
    ("1x1 strided", (2, 3, 5, 5), (2, 3, 1, 1), {"strides": [2, 2]}),
    ("stride leaves rows", (2, 3, 8, 9), (4, 3, 3, 3), {"strides": [3, 2]}),
    ("stride leaves padded rows", (2, 3, 8, 8), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("stride above kernel", (1, 2, 9, 8), (3, 2, 2, 2), {"strides": [3, 3]}),
    ("uneven", (2, 3, 5, 6), (4, 3, 3, 3), {"pads": [0, 2, 1, 0]}),
    ("uneven strided", (2, 3, 7, 6), (4, 3, 3, 3), {"pads": [0, 2, 1, 1], "strides": [2, 2]}),
    ("uneven strided the other way", (2, 3, 7, 6), (4, 3, 3, 3), {"pads": [2, 1, 0, 0], "strides": [2, 3]}),
    ("dilated", (2, 3, 8, 9), (4, 3, 3, 2), {"dilations": [2, 3]}),
    (
        "dilated strided padded",
        (2, 3, 9, 9),
        (4, 3, 3, 2),
        {"dilations": [2, 3], "strides": [2, 2], "pads": [1, 2, 2, 1]},
    ),
    ("groups", (2, 4, 5, 5), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    ("groups strided", (2, 4, 6, 5), (6, 2, 3, 3), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), {"group": 3}),
    ("depthwise twofold", (2, 3, 5, 5), (6, 1, 3, 3), {"group": 3}),
    ("same upper", (2, 3, 6, 5), (4, 3, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("same lower", (2, 3, 6, 5), (4, 3, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    ("valid", (2, 3, 6, 5), (4, 3, 3, 2), {"auto_pad": "VALID", "strides": [2, 2]}),
    ("pads above kernel", (1, 2, 3, 3), (2, 2, 2, 2), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
):
    case(
        "Conv",
        label,
        lambda op, x, w, b, s=settings: op.Conv(x, w, b, **s),
        rand(*x),
        rand(*w, seed=1),
        rand(w[0], seed=2),
        batched=(0,),
        float64="group" not in settings,
    )

# What multiplies each filter of the result becomes part of the kernel; what varies along space does not.
for label, x, w, factor, settings in (
    ("scaled", (2, 3, 5, 6), (4, 3, 3, 2), (4, 1, 1), {"pads": [1, 0, 1, 0]}),
    ("scaled, leading axis", (2, 3, 5, 6), (4, 3, 3, 2), (1, 4, 1, 1), {"strides": [2, 1]}),
    ("scaled as a whole", (2, 3, 5, 6), (4, 3, 3, 2), (1, 1, 1), {}),
    ("scaled by a scalar", (2, 3, 5, 6), (4, 3, 3, 2), (), {}),
    ("scaled, 1d", (2, 3, 8), (4, 3, 3), (4, 1), {}),
    ("scaled, groups", (2, 4, 5, 5), (6, 2, 3, 3), (6, 1, 1), {"group": 2}),
    ("scaled, depthwise", (2, 3, 5, 5), (6, 1, 3, 3), (6, 1, 1), {"group": 3}),
    ("scaled by columns", (2, 3, 5, 6), (4, 3, 3, 2), (4, 1, 5), {}),
):
    case(
        "Conv",
        label,
        lambda op, x, w, b, f, s=settings: op.Mul(op.Tanh(op.Mul(op.Conv(x, w, b, **s), f)), f),
        rand(*x),
        rand(*w, seed=1),
        rand(w[0], seed=2),
        rand(*factor, seed=3),
        batched=(0,),
        float64="group" not in settings,
    )


def size_unknown(op, x, w, settings):
    """Convolve an image whose height and width are known only when the graph runs."""
    shape = op.Concat(
        [1], op.Gather(op.Shape(x), [1]), op.Gather(op.Shape(x), [2]), op.Gather(op.Shape(x), [3]), axis=0
    )
    return op.Conv(op.Reshape(x, shape), w, **settings)


for label, settings in (
    ("size 1", {}),
    ("stride 2", {"strides": [2, 2]}),
    ("uneven", {"pads": [0, 2, 1, 0]}),
    ("uneven strided", {"pads": [0, 2, 1, 1], "strides": [2, 2]}),
    ("dilated", {"dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    ("same", {"auto_pad": "SAME_UPPER"}),
):
    case(
        "Conv",
        f"symbolic size, {label}",
        lambda op, x, s=settings: op.Conv(x, rand(4, 3, 3, 2).astype(x.dtype.numpy()), **s),
        rand(2, 3, 6, 7),
        symbolic=("all",),
        batched=(0,),
        float64=label != "uneven strided",
    )
    case(
        "Conv",
        f"symbolic size, weight, {label}",
        lambda op, x, w, s=settings: op.Conv(x, op.Reshape(w, [4, 3, 3, 2]), **s),
        rand(2, 3, 6, 7),
        rand(72),
        symbolic=("all",),
        batched=(0,),
        float64=label != "uneven strided",
    )
for label, x, w, settings in (
    ("1d", (2, 3, 4), (3, 4, 3), {}),
    ("2d", (2, 3, 4, 3), (3, 4, 3, 2), {"strides": [2, 1]}),
    ("3d", (1, 2, 3, 2, 2), (2, 3, 2, 3, 2), {"strides": [1, 2, 2]}),
    ("padded", (2, 3, 4, 4), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("uneven", (2, 3, 4, 4), (3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 0, 0, 2]}),
    ("output padding", (2, 3, 4, 4), (3, 4, 3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1], "output_padding": [1, 2]}),
    ("output shape", (2, 3, 4, 4), (3, 4, 3, 3), {"strides": [2, 2], "output_shape": [8, 8]}),
    ("dilated", (2, 3, 4, 4), (3, 4, 3, 2), {"dilations": [2, 2]}),
    ("groups", (2, 4, 4, 4), (4, 2, 3, 3), {"group": 2, "strides": [2, 2]}),
    ("same upper", (2, 3, 4, 4), (3, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("same lower", (2, 3, 4, 4), (3, 4, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
):
    outputs = w[1] * settings.get("group", 1)
    case(
        "ConvTranspose",
        label,
        lambda op, x, w, b, s=settings: op.ConvTranspose(x, w, b, **s),
        rand(*x),
        rand(*w, seed=1),
        rand(outputs, seed=2),
        batched=(0,),
        float64=not settings.keys() & {"group", "output_shape"},
    )
