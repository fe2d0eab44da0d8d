"""A worker process of nnspec itself: what it computes and how it fails. The peers' packages are not needed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.cases import CASES, TINY
from tests.benchmarks.frameworks import Setup, save_weights
from tests.benchmarks.process import Failure, Worker
from tests.benchmarks.worker import reason_of

CASE = next(c for c in CASES if c.name == "mlp-64")


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for case in (CASE, TINY):
        save_weights(case, folder)
    return Setup(str(folder), threads=1)


@pytest.fixture(scope="module")
def worker(setup):
    one = Worker("nnspec", CASE.name, setup)
    yield one
    one.close()


def forward(p, x):
    hidden = np.maximum(x @ p["dense1.weight"].T + p["dense1.bias"], 0)
    return hidden, hidden @ p["dense2.weight"].T + p["dense2.bias"]


def numpy_losses(p, steps):
    """Train the case by hand in float64."""
    p = {k: v.astype(np.float64) for k, v in p.items()}
    x, label = CASE.data()
    losses = []
    for _ in range(steps):
        hidden, logits = forward(p, x)
        e = np.exp(logits - logits.max(1, keepdims=True))
        probability = e / e.sum(1, keepdims=True)
        losses.append(-np.log(probability[np.arange(len(x)), label]).mean())
        d = (probability - np.eye(CASE.classes)[label]) / len(x)
        dh = (d @ p["dense2.weight"]) * (hidden > 0)
        g = {"dense2.weight": d.T @ hidden, "dense2.bias": d.sum(0)}
        g |= {"dense1.weight": dh.T @ x, "dense1.bias": dh.sum(0)}
        p = {k: v - CASE.lr * g[k] for k, v in p.items()}
    return losses


def test_losses_are_those_of_the_weights_that_peers_start_from(worker, setup):
    trained, kept = setup.load(CASE)
    assert kept == {}
    first, again = (worker.ask("losses 10")["losses"] for _ in range(2))
    assert first == again  # each command starts anew
    np.testing.assert_allclose(first, numpy_losses(trained, 10), rtol=1e-5)


def test_predictions_are_made_with_the_initial_weights(worker, setup):
    trained, _ = setup.load(CASE)
    worker.ask("steps 3")
    found = np.array(worker.ask("predict 32")["logits"]).reshape(32, CASE.classes)
    np.testing.assert_allclose(found, forward(trained, CASE.data(32)[0])[1], rtol=0, atol=1e-5)


def test_times_grow_with_repetitions(worker):
    few, many = (worker.ask(f"steps {n}")["seconds"] for n in (5, 2000))
    assert 0 < few < many
    assert worker.ask("infer 1 5")["seconds"] > 0


def test_what_goes_wrong_is_told_and_the_worker_goes_on(worker):
    with pytest.raises(Failure, match=r"^ValueError: unknown command sing$"):
        worker.ask("sing 3")
    assert worker.ask("losses 1")["losses"]


def test_a_framework_that_does_not_start_says_why(setup, tmp_path):
    with pytest.raises(Failure, match=r"^KeyError: 'abacus'$"):
        Worker("abacus", CASE.name, setup)


def test_a_process_that_dies_leaves_its_last_words(setup):
    with pytest.raises(Failure, match=r"^the process ended with status 1: StopIteration$"):
        Worker("nnspec", "no-such-case", setup)


def test_memory_is_that_of_training_and_less_than_the_process(setup):
    one = Worker("nnspec", CASE.name, setup, "memory")
    one.close()
    # Two sets of weights and the batch are held for certain.
    weights = sum(v.nbytes for v in setup.load(CASE)[0].values())
    assert 2 * weights <= one.first["training"] < one.first["process"]


def test_the_first_line_of_an_error_is_its_reason():
    assert reason_of(ValueError("\n  broken\nmore")) == "ValueError: broken"
    assert reason_of(KeyError()) == "KeyError"
