"""What the PyTorch script and the tests share: numbers that both draw alike, and the list of networks and losses.

It knows NumPy alone. `RandomState` is frozen by NumPy's compatibility policy, so that the numbers need not be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ORACLE = Path(__file__).parent.parent / "oracle" / "training.npz"
STEPS = 5
SAMPLES = 128
"""How many elements of a large tensor are stored, beside its norm."""


def draw(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Array:
    """Return standard normal numbers times `scale` that the name determines, as float32."""
    numbers = np.asarray(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape))
    return np.asarray(numbers * scale, np.float32)


def labels(name: str, shape: tuple[int, ...], classes: int) -> Array:
    """Return integers below `classes` that the name determines."""
    return np.random.RandomState(zlib.crc32(name.encode())).randint(0, classes, shape).astype(np.int64)


def distribution(name: str, shape: tuple[int, ...], axis: int = -1) -> Array:
    """Return positive numbers that sum to 1 along an axis."""
    raised = np.exp(draw(name, shape).astype(np.float64))
    return (raised / raised.sum(axis, keepdims=True)).astype(np.float32)


def start(case: str, name: str, shape: tuple[int, ...]) -> Array:
    """Return a weight's or buffer's first value."""
    if name.endswith("running_var"):
        return np.abs(draw(f"{case}/{name}", shape, 0.2)) + np.float32(0.5)
    if name.endswith("weight") and len(shape) == 1:
        return draw(f"{case}/{name}", shape, 0.2) + np.float32(1)
    fan = int(np.prod(shape[1:])) if len(shape) > 1 else 25
    return draw(f"{case}/{name}", shape, float(np.sqrt(1.0 / fan)))


@dataclass(frozen=True)
class Case:
    """A network as .nn text, with what its inputs and targets look like."""

    text: str
    batch: int
    image: tuple[int, ...]
    classes: int = 10
    salt: int = 0
    """Chosen so that PyTorch's own float32 results agree with its float64 ones; see the script."""

    def data(self, name: str, step: int) -> dict[str, Array]:
        """Return the batch of a step."""
        return {
            "image": draw(f"{name}/{self.salt}/image/{step}", (self.batch, *self.image)),
            "label": labels(f"{name}/{self.salt}/label/{step}", (self.batch,), self.classes),
        }


NETWORKS: Mapping[str, Case] = {
    "mlp": Case(
        """network Mlp {
             input image: [64]
             output logits = image -> dense(32) -> relu -> dense(24) -> tanh -> dense(10)
           }""",
        batch=16,
        image=(64,),
    ),
    "cnn": Case(
        """network Cnn {
             input image: [1, 8, 8]
             output logits = image
               -> conv(8, 3x3, pad = 1) -> relu -> maxpool(2)
               -> conv(16, 3x3) -> relu -> flatten -> dense(10)
           }""",
        batch=12,
        image=(1, 8, 8),
    ),
    "lecture": Case(
        """network Lecture {
             input image: [1, 28, 28]
             output logits = image
               -> conv(25, 3x3) -> relu -> maxpool(2)
               -> conv(50, 3x3) -> relu -> maxpool(2)
               -> flatten -> dense(100) -> relu -> dense(10)
           }""",
        batch=8,
        image=(1, 28, 28),
    ),
    "resnet": Case(
        """block basic(width, stride = 1) on x {
             main = x -> conv(width, 3x3, stride = stride, pad = 1, bias = false) -> batchnorm -> relu
                      -> conv(width, 3x3, pad = 1, bias = false) -> batchnorm
             skip = if stride != 1 or x.channels != width {
               x -> conv(width, 1x1, stride = stride, bias = false) -> batchnorm
             } else { x }
             return main + skip -> relu
           }
           network Residual {
             input image: [3, 12, 12]
             output logits = image
               -> conv(6, 3x3, pad = 1, bias = false) -> batchnorm -> relu
               -> basic(6) -> basic(10, stride = 2) -> global_avgpool -> dense(10)
           }""",
        batch=8,
        image=(3, 12, 12),
        salt=3,
    ),
}

OPTIMIZERS: Mapping[str, str] = {
    "sgd": "sgd(0.1)",
    "sgd_momentum": "sgd(0.05, momentum = 0.9)",
    "momentum": "momentum(0.05, beta = 0.8)",
    "nesterov": "nesterov(0.05, beta = 0.9)",
    "adam": "adam(0.001)",
    "adamw": "adamw(0.001, decay = 0.1)",
    "adagrad": "adagrad(0.02)",
    "rmsprop": "rmsprop(0.001)",
    "rmsprop_momentum": "rmsprop(0.001, beta = 0.9, momentum = 0.5)",
    "adadelta": "adadelta",
}
EXTRAS: Mapping[str, str] = {
    "l2": "optimizer = sgd(0.1)\nregularize = l2(0.05)",
    "l1": "optimizer = sgd(0.1)\nregularize = l1(0.01)",
    "clip_norm": "optimizer = sgd(0.5)\nclip = norm(0.3)",
    "clip_value": "optimizer = sgd(0.5)\nclip = value(0.01)",
    "clip_l2_adam": "optimizer = adam(0.001)\nclip = norm(0.3)\nregularize = l2(0.05)",
}


def recipe_text(case: str, settings: str) -> str:
    """Return the .nn text of a case with a train block."""
    name = NETWORKS[case].text.split("network ")[1].split(" ")[0]
    loss = "target label: int\nloss = cross_entropy(logits, label)"
    return f"{NETWORKS[case].text}\ntrain {name} {{\n{loss}\n{settings}\n}}"


@dataclass(frozen=True)
class LossCase:
    """A loss's or metric's .nn form, and the shapes of prediction and target."""

    form: str
    prediction: tuple[int, ...]
    target: tuple[int, ...]
    kind: str = "labels"
    """labels, real, distribution, bits or signs."""
    classes: int = 5
    scale: float = 2.0


LOSSES: Mapping[str, LossCase] = {
    "cross_entropy": LossCase("cross_entropy(y, t)", (5,), ()),
    "cross_entropy_steps": LossCase("cross_entropy(y, t)", (4, 5), (4,)),
    "cross_entropy_image": LossCase("cross_entropy(y, t)", (5, 3, 4), (3, 4)),
    "cross_entropy_soft": LossCase("cross_entropy(y, t)", (5,), (5,), "distribution"),
    "cross_entropy_soft_smooth": LossCase("cross_entropy(y, t, smoothing = 0.2)", (5,), (5,), "distribution"),
    "cross_entropy_smooth": LossCase("cross_entropy(y, t, smoothing = 0.1)", (5,), ()),
    "cross_entropy_ignore": LossCase("cross_entropy(y, t, ignore = 2)", (4, 5), (4,)),
    "cross_entropy_ignore_smooth": LossCase("cross_entropy(y, t, ignore = 2, smoothing = 0.1)", (4, 5), (4,)),
    "cross_entropy_large": LossCase("cross_entropy(y, t)", (5,), (), scale=200.0),
    "nll": LossCase("nll(y, t)", (5,), ()),
    "binary_cross_entropy": LossCase("binary_cross_entropy(y, t)", (3,), (3,), "bits"),
    "binary_cross_entropy_soft": LossCase("binary_cross_entropy(y, t)", (3,), (3,), "distribution", scale=50.0),
    "square_error": LossCase("square_error(y, t)", (3, 2), (3, 2), "real"),
    "square_error_scalar": LossCase("square_error(y, t)", (), (), "real"),
    "absolute_error": LossCase("absolute_error(y, t)", (3,), (3,), "real"),
    "huber": LossCase("huber(y, t, delta = 0.7)", (3,), (3,), "real"),
    "hinge": LossCase("hinge(y, t)", (5,), ()),
    "hinge_margin": LossCase("hinge(y, t, margin = 0.3)", (5,), ()),
    "hinge_binary": LossCase("hinge(y, t)", (3,), (3,), "signs"),
    "kl_divergence": LossCase("kl_divergence(y, t)", (5,), (5,), "distribution"),
    "cosine_distance": LossCase("cosine_distance(y, t)", (5,), (5,), "real"),
}
LOSS_BATCH = 7


def loss_data(name: str) -> tuple[Array, Array]:
    """Return the prediction and the target of a loss's case."""
    case = LOSSES[name]
    y = draw(f"{name}/y", (LOSS_BATCH, *case.prediction), case.scale)
    shape = (LOSS_BATCH, *case.target)
    match case.kind:
        case "labels":
            return y, labels(f"{name}/t", shape, case.classes)
        case "bits":
            return y, labels(f"{name}/t", shape, 2)
        case "signs":
            return y, (labels(f"{name}/t", shape, 2) * 2 - 1).astype(np.float32)
        case "distribution":
            return y, distribution(f"{name}/t", shape)
        case _:
            return y, draw(f"{name}/t", shape)


def digest(array: Array) -> Array:
    """Return what is stored of a tensor: all of it, or evenly spaced elements and the norm where it is large."""
    flat = np.asarray(array, np.float64).reshape(-1)
    if flat.size <= SAMPLES:
        return flat.astype(np.float32)
    places = np.linspace(0, flat.size - 1, SAMPLES).astype(np.int64)
    return np.append(flat[places], np.linalg.norm(flat)).astype(np.float32)
