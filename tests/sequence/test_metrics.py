"""Metrics of sequences, against counts by hand and a plain Levenshtein table."""

from __future__ import annotations

import numpy as np
import pytest

from nnspec.compile import compile_recipe
from nnspec.diagnostics import SpecError
from nnspec.source import Source
from nnspec.training import build
from tests.sequence.graphs import Arrays, figures

SPEC = """
network Speller {
  input said: int[N]
  input x: [4]
  output echo = said
  output y = x -> dense(1)
}
train Speller {
  target label: int[L] masked
  loss = mean(y)
  metric distance = edit_distance(said, label)
  metric rate = edit_distance(said, label, normalize = true)
  metric symbols = token_accuracy(said, label)
  metric whole = sequence_accuracy(said, label)
  optimizer = sgd(lr = 0.1)
}
"""


def scores(said: list[list[int]], label: list[list[int]], text: str = SPEC) -> Arrays:
    widths = max(map(len, said)), max(map(len, label))
    feed = {
        "said": np.array([row + [-1] * (widths[0] - len(row)) for row in said]),
        "label": np.array([row + [0] * (widths[1] - len(row)) for row in label]),
        "label.lengths": np.array([len(row) for row in label]),
        "x": np.zeros((len(said), 4), np.float32),
    }
    return figures(text, feed)


def levenshtein(a: list[int], b: list[int]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
    return int(table[-1, -1])


@pytest.mark.parametrize(
    ("said", "label", "distance"),
    [
        ("kitten", "sitting", 3),
        ("sitting", "kitten", 3),
        ("same", "same", 0),
        ("a", "abcdef", 5),
        ("abcdef", "f", 5),
        ("abc", "xyz", 3),
        ("", "abc", 3),
    ],
)
def test_edit_distance_of_known_words(said: str, label: str, distance: int) -> None:
    found = scores([[*map(ord, said)] or [-1]], [[*map(ord, label)]])
    assert found["distance"] == distance
    assert found["rate"] == pytest.approx(distance / len(label))


def test_edit_distance_of_a_batch_equals_the_table() -> None:
    rng = np.random.default_rng(0)
    said = [rng.integers(0, 3, n).tolist() for n in rng.integers(1, 9, 60)]
    label = [rng.integers(0, 3, n).tolist() for n in rng.integers(1, 7, 60)]
    wanted = [levenshtein(a, b) for a, b in zip(said, label, strict=True)]
    found = scores(said, label)
    assert found["distance"] == pytest.approx(np.mean(wanted))
    assert found["rate"] == pytest.approx(sum(wanted) / sum(map(len, label)))
    for a, b, distance in zip(said, label, wanted, strict=True):
        assert scores([a], [b])["distance"] == distance


def test_symbols_count_where_the_label_has_some() -> None:
    found = scores([[1, 2, 3], [1, 9, 3, 4, 5], [7]], [[1, 2, 3], [1, 2, 3], [7, 7]])
    assert found["symbols"] == pytest.approx((3 + 2 + 1) / 8)


def test_a_whole_sequence_is_right_without_more_or_less() -> None:
    label = [[1, 2, 3], [4, 5], [6]]
    assert scores(label, label)["whole"] == 1
    assert scores([[1, 2, 3], [4, 5, 5], [6]], label)["whole"] == pytest.approx(2 / 3)
    assert scores([[1, 2], [4, 5], [6]], label)["whole"] == pytest.approx(2 / 3)
    assert scores([[1, 2, 3, 0], [4, 4], [5]], label)["whole"] == 0
    ignoring = SPEC.replace("sequence_accuracy(said, label)", "sequence_accuracy(said, label, ignore = 5)")
    assert scores([[1, 2, 3], [4, 9], [6]], label, ignoring)["whole"] == 1


def test_logits_score_as_their_likeliest_symbols() -> None:
    text = """
    network Tagger {
      input x: [T, 4] masked
      output logits = x * 1.0
    }
    train Tagger {
      target label: int[T] masked
      loss = cross_entropy(logits, label)
      metric symbols = token_accuracy(logits, label)
      metric chosen = token_accuracy(argmax(logits), label)
      metric whole = sequence_accuracy(logits, label)
      metric same = sequence_accuracy(argmax(logits), label)
      metric distance = edit_distance(argmax(logits), label)
      optimizer = sgd(lr = 0.1)
    }
    """
    said = np.array([[0, 1, 2, 3], [3, 2, 0, 0], [1, 1, 1, 1]])
    label = np.array([[0, 1, 2, 3], [3, 2, 1, 1], [1, 2, 1, 2]])
    feed = {"x": np.eye(4, dtype=np.float32)[said], "label": label, "x.lengths": np.array([4, 2, 3])}
    found = figures(text, feed)
    assert found["symbols"] == found["chosen"] == pytest.approx(8 / 9)
    assert found["whole"] == found["same"] == pytest.approx(2 / 3)
    assert found["distance"] == pytest.approx(1 / 3)


def test_an_epoch_weighs_rates_by_symbols() -> None:
    manifest = build(compile_recipe(Source("test.nn", SPEC))).manifest
    weights = {m["name"]: (m["weight"] is not None, m["goal"]) for m in manifest["metrics"]}
    assert weights == {
        "distance": (False, "min"),
        "rate": (True, "min"),
        "symbols": (True, "max"),
        "whole": (False, "max"),
    }


def test_logits_have_no_edit_distance() -> None:
    with pytest.raises(SpecError) as error:
        scores([[1]], [[1]], SPEC.replace("edit_distance(said", "edit_distance(x"))
    assert "compares sequences of whole numbers, and gets [4]" in str(error.value)
    assert "ctc_greedy" in str(error.value)
