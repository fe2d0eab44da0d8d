"""Labels that CTC cannot align are found when the data are loaded, not when the loss has become infinite."""

from __future__ import annotations

import numpy as np
import pytest
from nnspec_runtime import load_data
from nnspec_runtime.alignment import evaluate
from nnspec_runtime.errors import DataError

from nnspec.cli.runtime import training_program
from nnspec.compile import compile_recipe
from nnspec.source import Source
from tests.sequence.graphs import Arrays

SPEC = """
network Reader {
  input x: [T, 3] masked
  output logits = x -> transpose -> conv(5, 3, stride = 2, pad = 1) -> transpose
}
train Reader {
  target label: int[L] masked
  loss = ctc(logits, label)
  optimizer = sgd(lr = 0.1)
}
"""


def data(lengths: list[int], labels: list[list[int]]) -> Arrays:
    width = max(map(len, labels))
    return {
        "x": np.zeros((len(lengths), max(lengths), 3), np.float32),
        "x.lengths": np.array(lengths),
        "label": np.array([row + [0] * (width - len(row)) for row in labels]),
        "label.lengths": np.array([len(row) for row in labels]),
    }


def fault(given: Arrays, text: str = SPEC) -> str:
    program = training_program(compile_recipe(Source("test.nn", text)))
    try:
        load_data(program, given)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("lengths", "labels", "message"),
    [
        ([6, 9], [[1, 2, 3], [1, 2, 3, 4, 1]], ""),
        (
            [6, 8],
            [[1, 2, 3], [1, 2, 3, 4, 1]],
            "'label' is too long in sample 1: 5 symbols cannot be aligned with 4 steps",
        ),
        ([9, 9], [[1, 2, 1, 2], [1, 1, 2]], ""),
        (
            [9, 9],
            [[1, 1, 2, 3], [1, 1, 2, 2]],
            "'label' is too long in sample 1: 4 symbols and 2 blanks between equal ones cannot be aligned with 5 steps",
        ),
        ([9, 9], [[1, 2], [1, 0]], "'label' holds the blank, 0, in sample 1"),
    ],
)
def test_a_label_needs_steps_enough(lengths: list[int], labels: list[list[int]], message: str) -> None:
    assert fault(data(lengths, labels)) == message


def test_zero_infinity_leaves_such_samples_out() -> None:
    given = data([2, 2], [[1, 2, 3], [1]])
    assert "too long in sample 0" in fault(given)
    assert fault(given, SPEC.replace("ctc(logits, label)", "ctc(logits, label, zero_infinity = true)")) == ""


def test_sequences_of_one_length_need_no_lengths() -> None:
    text = SPEC.replace("[T, 3] masked", "[7, 3]").replace("int[L] masked", "int[4]")
    given = data([7, 7], [[1, 2, 3, 4], [1, 2, 3, 3]])
    assert fault({k: given[k] for k in ("x", "label")}, text) == (
        "'label' is too long in sample 1: 4 symbols and 1 blank between equal ones cannot be aligned with 4 steps"
    )


@pytest.mark.parametrize("size", ["__import__('os')", "T.real", "T / 2", "S"])
def test_a_size_is_computed_from_known_sizes_alone(size: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        evaluate(size, {"T": np.array([4])})
    assert evaluate("(T - 1)//2 + 1", {"T": np.array([4, 5])}).tolist() == [2, 3]
