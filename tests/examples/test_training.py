"""The examples that say how they are trained do train: the loss on a few samples falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnspec_runtime import Trainer, load_data
from numpy.typing import NDArray

from nnspec.cli.runtime import training_program
from nnspec.compile import check_file, compile_recipe
from nnspec.ir import Network

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.nn")), ids=lambda p: p.stem)
def test_nothing_is_found_wrong(path: Path) -> None:
    assert check_file(path) == []


def samples(network: Network, count: int) -> dict[str, NDArray[Any]]:
    """Return noisy images of some brightness, the brightness as a label, and whether pairs are the same at random."""
    rng = np.random.default_rng(2)
    bright = rng.random(count, np.float32)
    data: dict[str, NDArray[Any]] = {
        "label": (bright * 10).astype(np.int64),
        "same": rng.random(count, np.float32).round(),
    }
    for i in network.inputs:
        if i.type.rank == 3:
            noise = rng.random((count, *(int(str(d)) for d in i.type.shape)), np.float32)
            data[i.name] = 0.8 * bright[:, None, None, None] + 0.2 * noise
    return {i.name: data[i.name] for i in network.inputs}


@pytest.mark.parametrize("name", ["lecture_cnn", "siamese", "autoencoder"])
def test_the_loss_falls(name: str) -> None:
    recipe = compile_recipe(EXAMPLES / f"{name}.nn").model_copy(update={"batch": 8, "epochs": 12})
    program = training_program(recipe)
    result = Trainer(program, load_data(program, samples(recipe.network, 16))).fit()
    losses = [epoch["train"]["loss"] for epoch in result.history]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
