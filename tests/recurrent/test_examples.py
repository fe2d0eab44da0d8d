"""The recurrent examples: their figures, the lecture's numbers, and scores that a broken gradient or mask misses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnspec_runtime.errors import DivergedError

from nnspec.compile import check_file, compile_network, initial_weights
from nnspec.dims import evaluate as at
from nnspec.summary import summarize
from tests.recurrent.running import model_of, operators, run
from tests.recurrent.training import EXAMPLES, arrays_of, program_of, recipe_of, train

H = 32
LSTM, GRU, RNN = (n * H * (9 + H + 1) for n in (4, 3, 1))
# Clockwork's block triangle: each of 8 groups of 4 units sees itself and all slower ones.
CLOCKWORK = H * (9 + 1) + 4 * sum(range(4, H + 1, 4))

# Example, network, settings, parameters, products for each step, products besides.
FIGURES: list[tuple[str, str, dict[str, Any], int, int, int]] = [
    ("slot_filling", "FeedForward", {}, 40 * 16 + 32 * 17 + 6 * 33, 32 * 16 + 6 * 32, 0),
    ("slot_filling", "Elman", {}, 40 * 16 + 32 * (16 + 32 + 1) + 6 * 33, 32 * 48 + 6 * 32, 0),
    ("slot_filling", "Jordan", {}, 40 * 16 + 32 * (16 + 6 + 1) + 6 * 33, 32 * 22 + 6 * 32, 0),
    ("slot_filling", "Bidirectional", {}, 40 * 16 + 2 * 64 * (16 + 16 + 1) + 6 * 33, 2 * 64 * 32 + 6 * 32, 0),
    ("lecture_lstm", "LectureLSTM", {}, 4 * (3 + 1), 4 * 3, 0),
    ("sentiment", "Sentiment", {}, 30 * 16 + 96 * (16 + 24 + 1) + 25, 96 * 40, 24),
    ("character_model", "CharacterModel", {}, 256 * (28 + 64 + 1) + 28 * 65, 256 * 92 + 28 * 64, 0),
    ("linear_neuron", "LinearNeuron", {}, 1, 0, 1000),
    ("long_memory", "Copying", {"kind": "rnn"}, RNN + 4 * 33, H * (9 + H), 4 * H),
    ("long_memory", "Copying", {"kind": "irnn"}, RNN + 4 * 33, H * (9 + H), 4 * H),
    ("long_memory", "Copying", {"kind": "lstm"}, LSTM + 4 * 33, 4 * H * (9 + H), 4 * H),
    ("long_memory", "Copying", {"kind": "gru"}, GRU + 4 * 33, 3 * H * (9 + H), 4 * H),
    ("long_memory", "Copying", {"kind": "clockwork"}, CLOCKWORK + 4 * 33, CLOCKWORK - H, 4 * H),
    ("long_memory", "Adding", {"kind": "lstm"}, 4 * H * (2 + H + 1) + 33, 4 * H * (2 + H), H),
]


def test_every_example_is_tested() -> None:
    assert {f[0] for f in FIGURES} == {p.stem for p in EXAMPLES.glob("*.nn")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.nn")), ids=lambda p: p.stem)
def test_nothing_is_wrong(path: Path) -> None:
    assert check_file(path) == []


@pytest.mark.parametrize(
    ("file", "network", "settings", "parameters", "step", "rest"), FIGURES, ids=[f"{f[1]}{f[2]}" for f in FIGURES]
)
def test_figures(file: str, network: str, settings: dict[str, Any], parameters: int, step: int, rest: int) -> None:
    compiled = compile_network(EXAMPLES / f"{file}.nn", network, settings)
    summary = summarize(compiled.network)
    assert summary.counts.parameters == parameters
    for length in (1, 100):
        assert at(summary.macs, {"T": length}) == step * length + rest
    model = model_of(compiled.network, initial_weights(compiled.network))
    assert sum(int(np.prod(i.dims)) for i in model.graph.initializer) == parameters
    feed: dict[str, Any] = {}
    for i in compiled.network.inputs:
        shape = (2, *(at(d, {"T": 7}) for d in i.type.shape))
        feed[i.name] = np.full(shape, 3, np.int64) if i.type.dtype == "int64" else np.ones(shape, np.float32)
    for output, value in zip(compiled.network.outputs, run(model, feed).values(), strict=True):
        assert value.shape == (2, *(at(d, {"T": 7}) for d in compiled.network.types()[output.value].shape))
        assert np.isfinite(value).all()


def test_the_lectures_lstm() -> None:
    """The table of the lecture: what goes in, what the memory holds, what comes out."""
    table = [
        # x1 x2 x3  memory  y
        (1, 0, 0, 0, 0),
        (3, 1, 0, 3, 0),
        (2, 0, 0, 3, 0),
        (4, 1, 0, 7, 0),
        (2, 0, 0, 7, 0),
        (1, 0, 1, 7, 7),
        (3, -1, 0, 0, 0),
        (6, 1, 0, 6, 0),
        (1, 0, 1, 6, 6),
    ]
    network = compile_network(EXAMPLES / "lecture_lstm.nn").network
    model = model_of(network, initial_weights(network))
    for length in range(1, len(table) + 1):
        x = np.array([[row[:3] for row in table[:length]]], np.float32)
        y = run(model, {"x": x})["y"]
        np.testing.assert_allclose(y[0, :, 0], [row[4] for row in table[:length]], rtol=0, atol=2e-3)


def test_slot_filling() -> None:
    data, held = arrays_of("slots", 1000, 1), arrays_of("slots", 300, 2)
    scores = {
        network: train(program_of(recipe_of("slot_filling", network)), data, held)[1]["sentences"]
        for network in ("FeedForward", "Elman", "Jordan", "Bidirectional")
    }
    # Each of one or two cities is a guess between two tags.
    assert scores.pop("FeedForward") < 0.5
    assert min(scores.values()) >= 0.99, scores


def test_sentiment() -> None:
    program = program_of(recipe_of("sentiment"))
    _, figures = train(program, arrays_of("sentiment", 2000, 1), arrays_of("sentiment", 500, 2))
    assert figures["accuracy"] >= 0.95


def test_carrying_helps_a_character_model() -> None:
    recipe = recipe_of("character_model")
    data, held = arrays_of("text", 1000, 1), arrays_of("text", 200, 2)
    _, carried = train(program_of(recipe), data, held)
    _, alone = train(program_of(recipe.model_copy(update={"carry": False})), data, held)
    assert carried["loss"] < 0.06
    assert carried["accuracy"] > 0.96
    # The first letters of a window cannot be known without what came before.
    assert alone["loss"] > 0.15


@pytest.mark.parametrize(
    ("kind", "epochs", "least", "most"),
    [("lstm", 9, 0.98, 1), ("gru", 10, 0.98, 1), ("clockwork", 3, 0.98, 1), ("irnn", 14, 0.9, 1), ("rnn", 10, 0, 0.5)],
)
def test_copying_over_100_steps(kind: str, epochs: int, least: float, most: float) -> None:
    program = program_of(recipe_of("long_memory", "Copying", kind=kind))
    _, figures = train(program, arrays_of("copying", 1000, 1), arrays_of("copying", 500, 2), epochs=epochs)
    assert least <= figures["accuracy"] <= most


# Always guessing 1 has an error of 1/6, the variance of a sum of two numbers from 0 to 1.
@pytest.mark.parametrize(
    ("kind", "epochs", "least", "most"),
    [("lstm", 9, 0, 0.03), ("gru", 4, 0, 0.03), ("irnn", 12, 0, 0.05), ("rnn", 6, 0.14, 1)],
)
def test_adding_over_100_steps(kind: str, epochs: int, least: float, most: float) -> None:
    program = program_of(recipe_of("long_memory", "Adding", kind=kind))
    _, figures = train(program, arrays_of("adding", 5000, 1), arrays_of("adding", 500, 2), epochs=epochs)
    assert least <= figures["loss"] <= most


def test_the_lectures_cliff() -> None:
    """Around w = 1 the loss of 1,000 linear steps is a cliff: a step off it ends training, a clipped one does not."""
    impulse = np.zeros((1, 1000, 1), np.float32)
    impulse[0, 0] = 1
    data = {"x": impulse, "goal": np.ones((1, 1), np.float32)}
    recipe = recipe_of("linear_neuron")
    result, figures = train(program_of(recipe), data, data)
    assert result.history[0]["train"]["loss"] > 1e8
    assert abs(result.weights["linear1.w.weight"][0, 0] - 1) < 3e-4
    assert figures["loss"] < 0.1
    with pytest.raises(DivergedError):
        train(program_of(recipe.model_copy(update={"clip": None})), data, data)


def test_exported_examples_use_the_fused_operators() -> None:
    found = {}
    for file, network in (("slot_filling", "Elman"), ("slot_filling", "Bidirectional"), ("sentiment", None)):
        compiled = compile_network(EXAMPLES / f"{file}.nn", network).network
        found[compiled.name] = operators(model_of(compiled, initial_weights(compiled)))
    assert found["Elman"]["RNN"] == 1
    assert found["Bidirectional"]["LSTM"] == 2
    assert found["Sentiment"]["LSTM"] == 1
