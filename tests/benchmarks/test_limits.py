"""The least work of a step, and what part of a device's limit a time is."""

from __future__ import annotations

import pytest

from tests.benchmarks.cases import CASES
from tests.benchmarks.limits import Limits, Work, fraction, step_work, with_fractions

DEVICE = Limits({"float32": 1e12, "tf32": 4e12}, 1e11)


def work_of(name):
    return step_work(next(c for c in CASES if c.name == name).recipe())


def test_a_dense_network_by_hand():
    # 64 -> 64 -> 10 at batch 32: the first layer needs no gradient of its input.
    parameters, macs_first, macs_second = 64 * 64 + 64 + 64 * 10 + 10, 64 * 64, 64 * 10
    found = work_of("mlp-64")
    batch = 32 * (64 * 4 + 8)  # 64 numbers and an int64 label
    activations = 32 * (64 + 10) * 4
    assert found.flops == 2 * 32 * (2 * macs_first + 3 * macs_second)
    assert found.bytes == 2 * parameters * 4 + batch + 2 * activations


def test_adam_reads_and_writes_two_moments_more():
    parameters = 64 * 64 + 64 + 64 * 10 + 10
    plain, adam = work_of("mlp-64"), work_of("mlp-64-adam")
    assert adam.flops == plain.flops
    assert adam.bytes - plain.bytes == 2 * 2 * parameters * 4


def test_products_of_two_activations_have_two_gradients():
    d, t, rows = 128, 64, 32
    dense = t * (4 * d * d + 8 * d * d) * 2  # queries, keys, values, mixing, and the two wide ones, in two encoders
    attention = 2 * t * t * d * 2
    last = d * 10
    assert work_of("transformer").flops == 3 * 2 * rows * (dense + attention + last)


def test_what_takes_longer_binds():
    assert DEVICE.bound(Work(flops=10**9, bytes=10**6), "float32") == (pytest.approx(1e-3), "arithmetic")
    assert DEVICE.bound(Work(flops=10**9, bytes=10**6), "tf32") == (pytest.approx(2.5e-4), "arithmetic")
    assert DEVICE.bound(Work(flops=10**6, bytes=10**9), "float32") == (pytest.approx(1e-2), "memory")


def test_the_fraction_is_the_least_time_over_the_time():
    work = Work(flops=10**9, bytes=10**6)
    assert fraction(work, DEVICE, "float32", ms=1.0) == pytest.approx(1.0)
    assert fraction(work, DEVICE, "float32", ms=4.0) == pytest.approx(0.25)


def test_each_framework_has_its_fraction():
    result = {"nnspec_ms": 2.0, "peers": {"torch-eager": 5.0}}
    found = with_fractions(result, Work(flops=10**9, bytes=10**6), DEVICE, "float32")
    assert found["fraction"] == pytest.approx({"nnspec": 0.5, "torch-eager": 0.2})
    assert found["least_ms"] == pytest.approx(1.0)
    assert found["bound"] == "arithmetic"


@pytest.mark.parametrize("case", [c.name for c in CASES])
def test_every_case_can_be_counted(case):
    found = work_of(case)
    assert found.flops > 0
    assert found.bytes > 0


def test_limits_survive_json():
    assert Limits(**DEVICE.as_json()) == DEVICE
