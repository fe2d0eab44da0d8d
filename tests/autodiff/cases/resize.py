"""Cases of Resize."""

import numpy as np

from tests.autodiff.check import case, rand

X = rand(1, 2, 4, 5)
for mode in ("nearest", "linear", "cubic"):
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        for label, scales in (("up", [1, 1, 2, 3]), ("down", [1, 1, 0.5, 0.6]), ("mixed", [1, 1, 1.6, 0.7])):
            case(
                "Resize",
                f"{mode} {coordinates} {label}",
                lambda op, x, m=mode, c=coordinates, s=scales: op.Resize(
                    x, None, np.array(s, np.float32), mode=m, coordinate_transformation_mode=c
                ),
                X,
                symbolic=("batch",) if mode == "cubic" else ("batch", "all"),
                # The reference evaluator aligns the corners of a size that it has not rounded yet.
                float64=(coordinates, label) != ("align_corners", "mixed"),
            )
    case(
        "Resize", f"{mode} sizes", lambda op, x, m=mode: op.Resize(x, None, None, [1, 2, 7, 3], mode=m), X, symbolic=()
    )
for rounding in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor"):
    case(
        "Resize",
        f"nearest {rounding}",
        lambda op, x, r=rounding: op.Resize(
            x, None, np.array([1, 1, 2, 2], np.float32), nearest_mode=r, coordinate_transformation_mode="asymmetric"
        ),
        X,
    )
