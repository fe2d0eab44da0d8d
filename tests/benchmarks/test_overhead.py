"""What nnspec costs beside the arithmetic: the figures are of real runs, and of the runs that they claim."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.benchmarks.cases import CASES
from tests.benchmarks.frameworks import Nnspec, Setup
from tests.benchmarks.overhead import clocked, data_loading, session_creation, step_split

SETUP = Setup(weights="", threads=1)
SMALL = next(c for c in CASES if c.name == "mlp-64")


def test_the_clock_sees_every_step_and_lets_go():
    plain = onnxruntime.capi.onnxruntime_inference_collection.C.InferenceSession
    with clocked() as clock:
        watched = Nnspec(SMALL, SETUP)
    assert onnxruntime.capi.onnxruntime_inference_collection.C.InferenceSession is plain
    losses = watched.steps(7)
    assert clock.runs == 7
    assert clock.seconds > 0
    np.testing.assert_array_equal(losses, Nnspec(SMALL, SETUP).steps(7))


def test_a_step_is_split_in_two():
    found = step_split(SMALL, SETUP, rounds=3, steps=20)
    assert found["python_us"] > 0
    assert found["python_us"] + found["onnxruntime_us"] == pytest.approx(found["step_us"])


def test_sessions_of_the_large_network_are_timed():
    found = session_creation(SETUP, {"depths": [1, 1, 1, 1], "classes": 10})
    assert found["compile_s"] > 0
    assert found["session_s"] > 0


def test_epochs_are_timed_beside_bare_steps():
    found = data_loading(SMALL, SETUP, rounds=1, steps=10)
    assert found["bytes"] == 32 * 64 * 4
    assert found["step_ms"] > 0
    assert found["epoch_step_ms"] > 0
