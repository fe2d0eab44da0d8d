"""Initialisers: their distributions, shapes and independence."""

from __future__ import annotations

import numpy as np
import pytest

from nnspec.initializers import (
    Constant,
    Identity,
    Initializer,
    Normal,
    Orthogonal,
    Scaled,
    Stacked,
    Uniform,
    Values,
    default_fan,
    sample,
)

SHAPE = (64, 32, 3, 3)
FAN_IN, FAN_OUT = 32 * 9, 64 * 9


@pytest.mark.parametrize("scheme", ["glorot", "he", "lecun"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_variance_scaling(scheme: str, distribution: str) -> None:
    values = sample(Scaled(scheme=scheme, distribution=distribution), SHAPE, None, "w", 0)  # type: ignore[arg-type]
    variance = {"glorot": 2 / (FAN_IN + FAN_OUT), "he": 2 / FAN_IN, "lecun": 1 / FAN_IN}[scheme]
    # The sample variance of n numbers deviates by about sqrt(2 / n): 1 % for 18,432 of them, 4 sigma below 5 %.
    assert abs(values.var() / variance - 1) < 0.05
    assert abs(values.mean()) < 4 * np.sqrt(variance / values.size)
    if distribution == "uniform":
        assert np.abs(values).max() <= np.sqrt(3 * variance) * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (8, 3), (3, 8), (8, 2, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    flat = sample(Orthogonal(gain=2.0), shape, None, "w", 0).reshape(shape[0], -1).astype(np.float64)
    small = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_identity_of_matrices_and_kernels() -> None:
    np.testing.assert_array_equal(sample(Identity(gain=0.5), (2, 3), None, "w", 0), [[0.5, 0, 0], [0, 0.5, 0]])
    kernel = sample(Identity(), (2, 2, 3, 3), None, "w", 0)
    assert kernel.sum() == 2
    assert kernel[0, 0, 1, 1] == kernel[1, 1, 1, 1] == 1


def test_plain_ones() -> None:
    np.testing.assert_array_equal(sample(Constant(value=0.1), (3,), None, "w", 0), np.full(3, 0.1, np.float32))
    assert np.abs(sample(Uniform(limit=0.2), (999,), None, "w", 0)).max() <= 0.2
    normal = sample(Normal(std=0.5, mean=3.0), (10_000,), None, "w", 0)
    assert abs(normal.mean() - 3) < 0.02
    assert abs(normal.std() - 0.5) < 0.02
    np.testing.assert_array_equal(sample(Values(shape=(2, 1), values=(1, 2)), (2, 1), None, "w", 0), [[1], [2]])


def test_stacked_parts_stand_in_order() -> None:
    init = Stacked(parts=(Constant(value=0.0), Constant(value=1.0)))
    np.testing.assert_array_equal(sample(init, (4,), None, "b", 0), [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("init", "shape"),
    [
        (Orthogonal(), (3,)),
        (Identity(), (3,)),
        (Values(shape=(2,), values=(1, 2)), (3,)),
        (Stacked(parts=(Constant(), Constant())), (3,)),
    ],
)
def test_shapes_that_do_not_fit(init: Initializer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs|shape|divide"):
        sample(init, shape, None, "w", 0)


def test_draws_depend_on_seed_and_name_alone() -> None:
    def draw(name: str, seed: int) -> np.ndarray:
        values: np.ndarray = sample(Normal(std=1.0), (50,), None, name, seed)
        return values

    np.testing.assert_array_equal(draw("a", 1), draw("a", 1))
    assert not np.array_equal(draw("a", 1), draw("b", 1))
    assert not np.array_equal(draw("a", 1), draw("a", 2))
    assert not np.array_equal(draw("a", 1), draw("a", 1 + 2**32))


def test_fan_of_layouts() -> None:
    assert default_fan((64, 32, 3, 3)) == (FAN_IN, FAN_OUT)
    assert default_fan((10, 5)) == (5, 10)
    assert default_fan((7,)) == (7, 7)
    assert default_fan(()) == (1, 1)
