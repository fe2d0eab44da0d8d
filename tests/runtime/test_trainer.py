"""Training against NumPy: the same order, the same batches, the same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nnspec_runtime import Program, Trainer, TrainingSession, evaluate, load_data, load_weights, predict
from nnspec_runtime.errors import DataError, DivergedError, ProgramError
from nnspec_runtime.order import epoch_order

from tests.runtime import programs


def batches_of(data, batch, seed, epochs):
    """The batches of some epochs, in the order that the trainer must take."""
    for epoch in range(epochs):
        order = epoch_order(len(data["label"]), batch, seed, epoch)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            yield data["x"][chosen], data["label"][chosen]


@pytest.mark.parametrize("count", [40, 42, 41, 3], ids=["whole", "smaller last", "last of one", "fewer than a batch"])
def test_training_equals_numpy(count):
    program = programs.mlp(batch=4, epochs=3, seed=5)
    data = programs.blobs(count)
    trainer = Trainer(program, load_data(program, data))
    result = trainer.fit()
    batches = list(batches_of(data, 4, 5, 3))
    expected = programs.numpy_mlp(program.initial_state, batches)
    state = trainer.session.state()
    for name in [*programs.MLP, *(f"{name}.momentum" for name in programs.MLP)]:
        # float32 against float64, up to 33 steps: rounding is judged by the largest element, not by each.
        np.testing.assert_allclose(state[name], expected[name], rtol=0, atol=2e-5 * np.abs(expected[name]).max())
    assert state["step"] == result.steps == len(batches)
    # The epoch's loss weighs the smaller last batch by its samples.
    rows = np.array([len(label) for _, label in batches])
    per_epoch = (expected["losses"] * rows).reshape(3, -1).sum(1) / count
    np.testing.assert_allclose([record["train"]["loss"] for record in result.history], per_epoch, rtol=1e-5)
    assert all(record["samples"] == count for record in result.history)
