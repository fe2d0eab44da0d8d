"""Whole networks against PyTorch: outputs, every gradient, weights and statistics after five steps of each optimizer.

The stored results were computed in float64 by tests/oracle/training.py; a float32 graph must be within 1e-5 of them,
relative to the largest element of the tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnspec.recipe import Optimizer, registry
from nnspec.training import build, gradients
from tests.training.cases import EXTRAS, NETWORKS, OPTIMIZERS, ORACLE, STEPS, digest, recipe_text, start
from tests.training.programs import Array, Graph, Training, recipe_of

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def oracle() -> dict[str, Array]:
    with np.load(ORACLE, allow_pickle=False) as stored:
        return dict(stored)


def assert_close(got: Array, expected: Array, what: str) -> None:
    found = digest(got)
    assert found.shape == expected.shape, what
    error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{what}: relative error {error:.2e}"


def started(case: str, names: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    return {name: start(case, name, shape) for name, shape in names.items()}


@pytest.mark.parametrize("case", NETWORKS)
def test_outputs_and_gradients_equal_pytorch(case: str, oracle: dict[str, Array]) -> None:
    recipe = recipe_of(recipe_text(case, "optimizer = sgd(0.1)"))
    weights = started(case, {w.name: w.shape for w in recipe.network.weights})
    data = NETWORKS[case].data(case, 0)
    predicted = Graph(build(recipe).predict)({**data, **weights})
    assert_close(predicted["logits"], oracle[f"{case}/eval"], "logits")
    found = Graph(gradients(recipe))({**data, **weights})
    assert found.pop("loss") == pytest.approx(oracle[f"{case}/loss"], rel=TOLERANCE)
    trained = {w.name for w in recipe.network.weights if w.kind == "weight"}
    assert {name.removesuffix(".grad") for name in found} == trained
    for name in trained:
        assert_close(found[f"{name}.grad"], oracle[f"{case}/grad/{name}"], name)


def settings() -> list[Any]:
    pairs = [(case, kind) for case in NETWORKS for kind in OPTIMIZERS]
    return [*pairs, *(("mlp", kind) for kind in EXTRAS)]


@pytest.mark.parametrize(("case", "kind"), settings())
def test_five_steps_equal_pytorch(case: str, kind: str, oracle: dict[str, Array]) -> None:
    block = EXTRAS[kind] if kind in EXTRAS else f"optimizer = {OPTIMIZERS[kind]}"
    training = Training(build(recipe_of(recipe_text(case, block))))
    kinds = {s["name"]: s["kind"] for s in training.states}
    names = {s["name"]: tuple(s["shape"]) for s in training.states if s["kind"] in ("weight", "buffer")}
    training.state.update(started(case, names))
    losses = [float(training.step(NETWORKS[case].data(case, step))["loss"]) for step in range(STEPS)]
    np.testing.assert_allclose(losses, oracle[f"{case}/{kind}/losses"], rtol=TOLERANCE)
    for name in names:
        assert_close(training.state[name], oracle[f"{case}/{kind}/{name}"], f"{kinds[name]} {name}")
    assert training.state["step"] == STEPS


def test_every_optimizer_has_a_case() -> None:
    optimizers = {keyword for keyword, cls in registry().items() if issubclass(cls, Optimizer)}
    assert {text.split("(")[0] for text in OPTIMIZERS.values()} == optimizers
