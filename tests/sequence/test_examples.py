"""Every sequence example has the weights that its layers add up to, learns, and runs as an exported model.

The scores are those of data that training has not seen, and hold only where gradients and masks are right.
"""

from __future__ import annotations

import numpy as np
import pytest
from nnspec_runtime import load_data
from nnspec_runtime.errors import DataError

from nnspec.cli.runtime import training_program
from nnspec.compile import compile_network, compile_recipe, initial_weights
from tests.sequence.graphs import Arrays, run
from tests.sequence.learning import EXAMPLES, Learned, make


def dense(features: int, units: int, bias: bool = True) -> int:
    return features * units + bias * units


def gru(features: int, units: int) -> int:
    return 3 * units * (features + units + 1)


def lstm(features: int, units: int) -> int:
    return 4 * units * (features + units + 1)


def translator(vocabulary: int) -> int:
    encoder = vocabulary * 16 + 2 * gru(16, 24)
    decoder = 13 * 16 + gru(16, 48)
    return encoder + decoder + dense(48, 48, bias=False) + dense(96, 48) + dense(48, 13)


CONVOLUTIONS = (9 * 1 * 8 + 8) + (9 * 8 * 8 + 8)
PARAMETERS = {
    "numbers": (23_581, translator(32)),
    "trees": (23_453, translator(24)),
    "speech": (26_065, CONVOLUTIONS + 2 * lstm(32, 24) + 2 * lstm(48, 24) + dense(48, 9)),
    "autoencoder": (70_906, 10 * 24 + 2 * gru(24, 96) + dense(96, 10)),
    "hierarchy": (33_810, 18 * 16 + gru(16, 48) + 2 * dense(96, 48) + gru(48, 48) + dense(48, 18)),
    "segments": (9_948, gru(16, 32) + dense(32, 12) + gru(12, 32) + dense(32, 16)),
    "key_terms": (4_685, 41 * 16 + lstm(16, 24) + dense(24, 1) + dense(16, 4)),
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in (EXAMPLES / "sequence").glob("*.nn")} == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_add_up(name: str) -> None:
    stated, added = PARAMETERS[name]
    compiled = compile_network(EXAMPLES / "sequence" / f"{name}.nn")
    assert compiled.warnings == ()
    assert sum(w.size for w in compiled.network.weights) == stated == added


TASKS = {"autoencoder": "strings", "hierarchy": "documents", "key_terms": "terms"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_padding_does_not_matter(name: str) -> None:
    """What stands behind the end of a sequence changes nothing before it."""
    network = compile_network(EXAMPLES / "sequence" / f"{name}.nn").network
    data = make(TASKS.get(name, name), 12, seed=4)
    masked = {i.name: i.lengths for i in network.inputs if i.lengths is not None}
    dirty = dict(data)
    for source, lengths in masked.items():
        dirty[source] = data[source].copy()
        for row, length in enumerate(data.get(lengths, data[f"{source}.lengths"])):
            dirty[source][row, length:] = 7
    assert any((dirty[k] != data[k]).any() for k in masked)
    a, b = (
        run(network, {k: v for k, v in given.items() if k in {i.name for i in network.inputs}})
        for given in (data, dirty)
    )
    steps = {"logits", "weights", "again", "said"}
    for output, value in a.items():
        for row in range(12):
            length = max(data[lengths][row] for lengths in masked.values()) if output in steps else None
            mine, other = (np.atleast_1d(v[row])[:length] for v in (value, b[output]))
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def exact(answer: np.ndarray, label: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return which answers hold their label's symbols and no more."""
    rows = zip(answer.tolist(), label.tolist(), lengths.tolist(), strict=True)
    return np.array([[s for s in said if s >= 0] == wanted[:n] for said, wanted, n in rows])


def test_numbers_are_translated() -> None:
    values = np.random.default_rng(0).permutation(10_000)
    learned = Learned("numbers", make("numbers", 0, 0, chosen=values[:2500]))
    unseen = make("numbers", 0, 0, chosen=values[2500:3000])
    found = learned.outputs(unseen, "answer")
    assert exact(found["answer"], unseen["digits"], unseen["said.lengths"]).mean() > 0.98
    # The attention looks at the word that a digit comes from: at `thousand`, or the number before it.
    weights = learned.outputs(unseen, "weights")["weights"]
    np.testing.assert_allclose(weights.sum(2), 1, rtol=1e-5)


def test_trees_are_parsed() -> None:
    learned = Learned("trees", make("trees", 2500, seed=0))
    seen = {tuple(row) for row in make("trees", 2500, seed=0)["words"].tolist()}
    data = make("trees", 400, seed=1)
    found = exact(learned.outputs(data, "answer")["answer"], data["tree"], data["said.lengths"])
    width = make("trees", 2500, seed=0)["words"].shape[1]
    new = np.array([tuple(row + [0] * (width - len(row))) not in seen for row in data["words"].tolist()])
    assert new.mean() > 0.9
    assert found[new].mean() > 0.95


def test_strings_come_back_from_one_vector() -> None:
    learned = Learned("autoencoder", make("strings", 4000, seed=0))
    data = make("strings", 400, seed=1)
    found = learned.outputs(data, "again", "vector")
    assert found["vector"].shape == (400, 96)
    assert exact(found["again"], data["copy"], data["said.lengths"]).mean() > 0.95


def test_documents_come_back_from_one_vector() -> None:
    learned = Learned("hierarchy", make("documents", 2500, seed=0))
    data = make("documents", 400, seed=1)
    found = learned.outputs(data, "said", "vector")
    counts = np.arange(4) < data["document.lengths"][:, None]
    right = found["said"] == data["document"]
    assert found["vector"].shape == (400, 48)
    assert right[counts].mean() > 0.97
    # A sentence's four words are right or wrong together far less often than the words of no sentence at all.
    assert right[counts].all(1).mean() > 0.93


def test_speech_is_recognised() -> None:
    learned = Learned("speech", make("speech", 1500, seed=0))
    data = make("speech", 400, seed=1)
    found = learned.outputs(data, "said", "length", "heard")
    greedy = exact(found["said"], data["phones"], data["phones.lengths"])
    assert greedy.mean() > 0.9
    assert exact(found["heard"], data["phones"], data["phones.lengths"]).mean() > 0.9
    np.testing.assert_array_equal(found["length"], (found["said"] >= 0).sum(1))
    twice = ((data["phones"][:, 1:] == data["phones"][:, :-1]) & (data["phones"][:, 1:] > 0)).any(1)
    assert twice.sum() > 80
    assert greedy[twice].mean() > 0.85, "phones that come twice must not collapse"
    assert learned.result.history[-1]["train"]["errors"] < 0.03


def nearest_is_same(vectors: np.ndarray, word: np.ndarray) -> float:
    distance = ((vectors[:, None] - vectors[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((word[distance.argmin(1)] == word).mean())


def test_segments_of_a_word_lie_together() -> None:
    learned = Learned("segments", make("segments", 1000, seed=0))
    data = make("segments", 400, seed=1)
    vector = learned.outputs(data, "vector")["vector"]
    assert nearest_is_same(vector, data["word"]) > 0.95
    # The words differ in the order of their phones: their mean spectra tell little.
    mean = data["segment"].sum(1) / data["segment.lengths"][:, None]
    assert nearest_is_same(mean, data["word"]) < 0.5
    centres = np.stack([vector[data["word"] == w].mean(0) for w in range(6)])
    within = np.mean([((vector[data["word"] == w] - centres[w]) ** 2).sum(1).mean() for w in range(6)])
    between = ((centres[:, None] - centres[None]) ** 2).sum(-1)[~np.eye(6, dtype=bool)].mean()
    assert between > 2 * within


def looked_at(found: Arrays, data: Arrays) -> float:
    """Return how often the word with the largest weight is the term."""
    top = found["weights"].argmax(1)
    return float((data["document"][np.arange(len(top)), top] < 9).mean())


def test_key_terms_are_found_though_nobody_marked_them() -> None:
    learned = Learned("key_terms", make("terms", 1500, seed=0))
    data = make("terms", 400, seed=1)
    found = learned.outputs(data, "logits", "weights")
    assert (found["logits"].argmax(1) == data["topic"]).mean() > 0.97
    assert looked_at(found, data) > 0.95
    before = run(
        learned.network, {k: data[k] for k in ("document", "document.lengths")}, initial_weights(learned.network)
    )
    assert looked_at(before, data) < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["sound.lengths"].__setitem__(3, 99), "'sound.lengths' should lie in 1 .. "),
        (lambda d: d["phones.lengths"].__setitem__(3, 0), "but is 0 in sample 3"),
        (lambda d: d["phones"].__setitem__((2, 0), 9), "'phones' should lie in 0 .. 8 (classes), but is 9 in sample 2"),
    ],
)
def test_data_that_do_not_fit_are_an_error(change: object, message: str) -> None:
    program = training_program(compile_recipe(EXAMPLES / "sequence" / "speech.nn"))
    data = make("speech", 20, seed=0)
    change(data)  # type: ignore[operator]
    with pytest.raises(DataError) as error:
        load_data(program, data)
    assert message in str(error.value)
