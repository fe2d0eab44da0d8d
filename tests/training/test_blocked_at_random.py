"""Random stacks of layers: a step in blocks of channels gives the numbers of the portable step."""

import random

import numpy as np
import pytest
from nnspec_runtime.layout import channel_block

from nnspec.diagnostics import NnspecError

from .programs import assert_same_moves, portable_and_here, recipe_of

pytestmark = pytest.mark.skipif(not channel_block(), reason="this processor has no layout of blocks")

KERNELS = {1: ["3", "2", "1"], 2: ["3x3", "2x3", "1x1", "2x2"]}
POOLS = {
    1: ["maxpool(2)", "avgpool(2)"],
    2: ["maxpool(2)", "maxpool(1x2)", "maxpool(2x1)", "maxpool(3, stride = 2, pad = 1)"],
}
FUNCTIONS = ["relu", "tanh", "elu", "leaky_relu", "gelu", "sigmoid", "softplus", "batchnorm"]
FUNCTIONS += ["transpose -> tanh -> transpose"]
SETTINGS = ["", ", pad = 1", ", stride = 2, pad = 1", ", dilation = 2, pad = 2", ", bias = false"]
ENDS = ["flatten", "global_avgpool", "global_maxpool"]


def _layers(draw: random.Random, axes: int) -> str:
    """Return the lines of a network's body."""
    lines, value = [], "x"
    for i in range(draw.randint(2, 6)):
        kernel, filters = draw.choice(KERNELS[axes]), draw.choice([8, 12, 14, 16, 20, 25, 32])
        kind = draw.choice(["conv", "conv", "conv", "function", "function", "pool", "sum"])
        if kind == "sum":
            whole, point = ("3x3", "1x1") if axes == 2 else ("3", "1")
            lines.append(f"a{i} = {value} -> conv({filters}, {whole}, pad = 1)")
            lines.append(f"b{i} = {value} -> conv({filters}, {point})")
            lines.append(f"c{i} = {value} -> conv({filters}, {whole}, pad = 1, bias = false) -> tanh")
            lines.append(f"v{i} = a{i} + b{i} + c{i}" + draw.choice(["", " -> relu"]))
        elif kind == "conv":
            after = draw.choice(["", "", " -> relu", " -> batchnorm -> relu"])
            lines.append(f"v{i} = {value} -> conv({filters}, {kernel}{draw.choice(SETTINGS)}){after}")
        else:
            lines.append(f"v{i} = {value} -> {draw.choice(POOLS[axes] if kind == 'pool' else FUNCTIONS)}")
        value = f"v{i}"
    return "\n  ".join([*lines, f"output logits = {value} -> {draw.choice(ENDS)} -> dense(3)"])


def _recipe(draw: random.Random):
    """Return the recipe of the first network drawn that is one: windows may reach over what is left of an image."""
    while True:
        axes, size = draw.choice([1, 2, 2]), draw.choice([9, 12, 15, 16])
        shape = [draw.choice([1, 3, 8, 13, 16, 20]), *([size, size - draw.choice([0, 1])] if axes == 2 else [2 * size])]
        text = f"""network Net {{
  input x: {shape}
  {_layers(draw, axes)}
}}
train Net {{
  target label: int
  loss = cross_entropy(logits, label)
  optimizer = sgd(lr = 0.01)
  batch = {draw.choice([3, 4, 8])}
}}"""
        try:
            return recipe_of(text)
        except NnspecError:
            continue


@pytest.mark.parametrize("seed", range(24))
def test_same_numbers(seed: int) -> None:
    draw = random.Random(seed)
    recipe = _recipe(draw)
    sessions = portable_and_here(recipe)
    rng = np.random.default_rng(seed)
    for rows in (recipe.batch, 2, recipe.batch):
        # Halves: elements tie, and many are zero.
        x = np.round(2 * rng.standard_normal((rows, *map(int, recipe.network.inputs[0].type.shape)))) / 2
        data = {"x": x.astype(np.float32), "label": rng.integers(0, 3, rows)}
        losses = [s.step(data)["loss"] for s in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert_same_moves(sessions, 1e-3)
