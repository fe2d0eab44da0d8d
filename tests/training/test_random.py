"""The random numbers of a graph: uniform, independent over elements, layers and steps, and always the same.

The bounds are five standard deviations of what truly random numbers would show; the numbers are fixed, so that the
tests cannot fail by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.training.random import Random
from tests.training.programs import Array, Graph

SIGMAS = 5.0
Draw = Callable[[int, int], dict[str, Array]]


def drawing(shape: Sequence[int | str], sizes: Sequence[int], names: Sequence[str] = ("dropout1",)) -> Draw:
    """Return a function of (seed, step) that gives each layer's numbers."""
    seed, step = (ir.Value(name=n, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])) for n in ("seed", "step"))
    like = ir.Value(name="like", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    ops = Ops(ir.Graph([like, seed, step], [], nodes=[], opset_imports={"": OPSET}, name="draw"))
    random = Random(ops, seed, step)
    for name in names:
        value = random(ops, like, name)
        value.name = name
        ops.graph.outputs.append(value)
    graph = Graph(ir.Model(ops.graph, ir_version=IR_VERSION))
    data = np.zeros(sizes, np.float32)
    return lambda seed, step: graph(
        {"like": data, "seed": np.array(seed, np.int64), "step": np.array(step, np.int64)}
    )


@pytest.fixture(scope="module")
def numbers() -> Array:
    """Numbers of two layers over 60 steps: [step, layer, row, column]."""
    draw = drawing(["batch", 100], [64, 100], ("dropout1", "block2.dropout1"))
    return np.array([list(draw(7, step).values()) for step in range(60)], np.float64)


def correlation(a: Array, b: Array) -> float:
    """Return the correlation of centred numbers, in standard deviations of that of independent ones."""
    return float((a * b).mean() / (a.std() * b.std()) * np.sqrt(a.size))


def test_mean_variance_and_range(numbers: Array) -> None:
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < SIGMAS * np.sqrt(1 / 12 / numbers.size)
    # The variance of (u - 1/2)^2 is 1/180.
    assert abs(numbers.var() - 1 / 12) < SIGMAS * np.sqrt(1 / 180 / numbers.size)


def test_every_step_is_uniform_by_chi_square(numbers: Array) -> None:
    bins = 64
    for step in numbers:
        counts, _ = np.histogram(step, bins, (0, 1))
        expected = step.size / bins
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - (bins - 1)) < SIGMAS * np.sqrt(2 * (bins - 1))


def test_pairs_are_uniform_on_the_square(numbers: Array) -> None:
    for a, b in (
        (numbers[:-1], numbers[1:]),
        (numbers[:, 0], numbers[:, 1]),
        (numbers[..., :-1, :], numbers[..., 1:, :]),
        (numbers[..., :-1], numbers[..., 1:]),
    ):
        counts, _, _ = np.histogram2d(a.reshape(-1), b.reshape(-1), 16, ((0, 1), (0, 1)))
        expected = a.size / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < SIGMAS * np.sqrt(2 * 255)


def test_nothing_is_correlated(numbers: Array) -> None:
    centred = numbers - 0.5
    for power in (centred, centred**2 - (centred**2).mean()):
        assert abs(correlation(power[:, 0], power[:, 1])) < SIGMAS
        for lag in (1, 2, 10):
            assert abs(correlation(power[:-lag], power[lag:])) < SIGMAS
            assert abs(correlation(power[..., :-lag, :], power[..., lag:, :])) < SIGMAS
            assert abs(correlation(power[..., :-lag], power[..., lag:])) < SIGMAS
    corners = centred[..., :-1, :-1] * centred[..., 1:, 1:], centred[..., :-1, 1:] * centred[..., 1:, :-1]
    assert abs(correlation(*corners)) < SIGMAS


def test_each_element_varies_over_the_steps(numbers: Array) -> None:
    means = (numbers.mean(0) - 0.5) * np.sqrt(12 * len(numbers))
    assert abs(means.var() - 1) < SIGMAS * np.sqrt(2 / means.size)


def test_the_number_dropped_varies_as_binomial(numbers: Array) -> None:
    counts = (numbers < 0.3).sum((2, 3)).reshape(-1)
    expected = numbers[0, 0].size * 0.3 * 0.7
    assert abs(counts.var() / expected - 1) < SIGMAS * np.sqrt(2 / counts.size)


def test_numbers_depend_on_seed_step_and_layer_alone() -> None:
    first, second = (drawing(["batch", 10], [6, 10], ("a", "b")) for _ in range(2))
    np.testing.assert_array_equal(first(3, 5)["a"], second(3, 5)["a"])
    for other in (first(3, 6)["a"], first(4, 5)["a"], first(3, 5)["b"]):
        assert np.mean(first(3, 5)["a"] == other) < 0.05


def test_numbers_are_those_of_the_formula() -> None:
    """Bit by bit, in Python's own integers, so that no provider may round otherwise."""
    got = drawing([2, 3], [2, 3])(11, 13)["dropout1"]
    from nnspec.training.random import PRIME, _residues

    by_seed, by_step, *offsets = (r.reshape(-1).tolist() for r in _residues("state", 5))
    factor, offset = (r.reshape(-1).tolist() for r in _residues("dropout1:1", 2))
    keys = []
    for i in range(16):
        state = (11 * by_seed[i] + 13 * by_step[i]) % PRIME
        for o in offsets:
            state = (state * state + o[i]) % PRIME
        keys.append((state * factor[i] + offset[i]) % PRIME)
    hashes = [[0] * 5 for _ in range(4)]
    for polynomial in range(4):
        for index in range(5):
            value = 0
            for degree in range(4):
                value = (value * index + keys[degree * 4 + polynomial]) % PRIME
            hashes[polynomial][index] = value % 2**24
    expected = [[sum(h[r] * h[2 + c] for h in hashes) % 2**24 / 2**24 for c in range(3)] for r in range(2)]
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


@pytest.mark.parametrize("shape", [[5], [1, 1], [3, 4], [2, 3, 4], [2, 3, 4, 5], [2, 1, 3, 1, 2]])
def test_any_shape(shape: list[int]) -> None:
    got = drawing(["batch", *shape[1:]], shape)(2**62, 2**30)["dropout1"]
    assert got.shape == tuple(shape)
    assert np.unique(got).size == got.size
