"""The first example learns: at least 98 % of the held-out digits, from any of five seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnspec_runtime import Trainer, load_data

from nnspec.cli.runtime import training_program
from nnspec.compile import compile_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN, TEST = (str(EXAMPLES / "data" / f"digits-{part}.npz") for part in ("train", "test"))


def test_the_spec_is_as_short_as_promised() -> None:
    lines = (EXAMPLES / "digits.nn").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100


def test_the_split_is_clean() -> None:
    with np.load(TRAIN) as train, np.load(TEST) as test:
        assert {k: (v.shape, v.dtype) for k, v in train.items()} == {
            "image": ((1438, 1, 8, 8), np.float32),
            "label": ((1438,), np.int64),
        }
        assert len(test["label"]) == 359
        for part in (train, test):
            assert part["image"].min() == 0
            assert part["image"].max() == 1
            assert (part["image"] * 16 % 1 == 0).all()
        shares = np.bincount(test["label"]) / (np.bincount(train["label"]) + np.bincount(test["label"]))
        assert np.abs(shares - 0.2).max() < 0.005
        seen = {image.tobytes() for image in train["image"]}
        assert not any(image.tobytes() in seen for image in test["image"])


@pytest.mark.parametrize("seed", range(5))
def test_it_learns(seed: int) -> None:
    recipe = compile_recipe(EXAMPLES / "digits.nn").model_copy(update={"seed": seed})
    program = training_program(recipe)
    result = Trainer(program, load_data(program, [TRAIN]), validation=load_data(program, [TEST])).fit()
    last = result.history[-1]
    assert last["epoch"] == recipe.epochs
    assert last["validation"]["accuracy"] >= 0.98
