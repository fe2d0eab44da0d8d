"""Single operators against stored results of PyTorch (made by tests/oracle/gradients.py), kinks and ties included."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.autodiff.check import Case, Program, _narrow

STORE = np.load(Path(__file__).parents[1] / "oracle" / "gradients.npz")
NAMES = sorted({key.split("/")[0] for key in STORE.files})


def scaled(op, values):
    """Return a constant in float32."""
    return op.constant(np.array(values, np.float32))


def resize(**settings: Any) -> Callable[..., Any]:
    sizes = settings.pop("sizes", None)
    scales = settings.pop("scales", None)
    return lambda op, x: op.Resize(x, None, None if scales is None else scaled(op, scales), sizes, **settings)


BUILD: dict[str, Callable[..., Any]] = {
    "relu": lambda op, x: op.Relu(x),
    "abs": lambda op, x: op.Abs(x),
    "clip": lambda op, x: op.Clip(x, -0.5, 0.5),
    "maximum": lambda op, a, b: op.Max(a, b),
    "minimum": lambda op, a, b: op.Min(a, b),
    "amax": lambda op, x: op.ReduceMax(x, [1], keepdims=0),
    "amin": lambda op, x: op.ReduceMin(x, [1], keepdims=0),
    "prod": lambda op, x: op.ReduceProd(x, [1], keepdims=0),
    "norm": lambda op, x: op.ReduceL2(x, [1], keepdims=0),
    "logsumexp": lambda op, x: op.ReduceLogSumExp(x, [1], keepdims=0),
    "pow": lambda op, x: op.Pow(x, 3.0),
    "gelu": lambda op, x: op.Gelu(x),
    "gelu_tanh": lambda op, x: op.Gelu(x, approximate="tanh"),
    "hardswish": lambda op, x: op.HardSwish(x),
    "softmax": lambda op, x: op.Softmax(x),
    "log_softmax": lambda op, x: op.LogSoftmax(x),
    "cumsum": lambda op, x: op.CumSum(x, op.constant(1)),
    "embedding": lambda op, w, i: op.Gather(w, i),
    "gather": lambda op, x, i: op.GatherElements(x, i, axis=1),
    "scatter_add": lambda op, x, i, u: op.ScatterElements(x, i, u, axis=1, reduction="add"),
    "topk": lambda op, x: op.TopK(x, [2], axis=1, outputs=2)[0],
    "pad_reflect": lambda op, x: op.Pad(x, [0, 0, 1, 2, 0, 0, 2, 1], mode="reflect"),
    "pad_replicate": lambda op, x: op.Pad(x, [0, 0, 1, 2, 0, 0, 2, 1], mode="edge"),
    "pad_circular": lambda op, x: op.Pad(x, [0, 0, 1, 2, 0, 0, 2, 1], mode="wrap"),
    "einsum": lambda op, a, b: op.Einsum(a, b, equation="bhqd,bhkd->bhqk"),
    "conv": lambda op, x, w, b: op.Conv(x, w, b, strides=[2, 2], pads=[1] * 4, dilations=[2, 2], group=2),
    "conv3d": lambda op, x, w: op.Conv(x, w, strides=[1, 2, 1], pads=[1] * 6),
    "conv_transpose": lambda op, x, w, b: op.ConvTranspose(
        x, w, b, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1], group=2
    ),
    "max_pool": lambda op, x: op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    "max_pool_ceil": lambda op, x: op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "avg_pool": lambda op, x: op.AveragePool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, count_include_pad=1),
    "avg_pool_exclude": lambda op, x: op.AveragePool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1),
    "avg_pool_ceil": lambda op, x: op.AveragePool(
        x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1, count_include_pad=1
    ),
    "layer_norm": lambda op, x, w, b: op.LayerNormalization(x, w, b),
    "group_norm": lambda op, x, w, b: op.GroupNormalization(x, w, b, num_groups=2),
    "instance_norm": lambda op, x, w, b: op.InstanceNormalization(x, w, b),
    "batch_norm": lambda op, x, w, b: op.BatchNormalization(
        x, w, b, scaled(op, [0.1, -0.2, 0.3]), scaled(op, [1.1, 0.9, 0.7])
    ),
    "local_response_norm": lambda op, x: op.LRN(x, size=3, alpha=0.5, beta=0.6, bias=1.2),
    "bilinear_True": resize(sizes=[1, 2, 7, 4], mode="linear", coordinate_transformation_mode="align_corners"),
    "bilinear_False": resize(sizes=[1, 2, 7, 4], mode="linear", coordinate_transformation_mode="half_pixel"),
    "nearest": resize(
        scales=[1, 1, 2, 2], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "cross_entropy": lambda op, x, label: op.SoftmaxCrossEntropyLoss(x, label),
    "cross_entropy_weighted": lambda op, x, label: op.SoftmaxCrossEntropyLoss(
        x, label, scaled(op, [0.3, 0.7, 1.4]), ignore_index=1
    ),
    "nll": lambda op, x, label: op.NegativeLogLikelihoodLoss(x, label, reduction="none"),
}


@pytest.mark.parametrize("name", NAMES)
def test_equals_pytorch(name: str) -> None:
    keys = [k.split("/")[1] for k in STORE.files if k.startswith(f"{name}/")]
    inputs = [k for k in keys if k not in ("y", "weight") and not k.startswith("grad.")]
    wrt = tuple(i for i, k in enumerate(inputs) if f"grad.{k}" in keys)
    arrays = [STORE[f"{name}/{k}"] for k in inputs]
    program = Program(Case(name, name, BUILD[name], tuple(arrays), wrt), "static", np.float32)
    single = [_narrow(a) for a in arrays]
    (y,) = program.forward(single)
    np.testing.assert_allclose(y, STORE[f"{name}/y"], rtol=2e-5, atol=2e-6)
    found = program.gradients(single, [_narrow(STORE[f"{name}/weight"])])
    for i, gradient in zip(wrt, found, strict=True):
        expected = STORE[f"{name}/grad.{inputs[i]}"]
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * scale, err_msg=inputs[i])


def test_every_stored_result_is_compared() -> None:
    assert set(NAMES) == set(BUILD)
