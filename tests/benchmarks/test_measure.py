"""The order of proof and timing, what becomes of a peer that fails, and how results are compared."""

from __future__ import annotations

import math

import pytest

from tests.benchmarks.measure import Plan, compare, difference, measure
from tests.benchmarks.process import Failure


class Fake:
    """A framework that takes `ms` for anything and learns to the loss `loss`; `fails` is the command it cannot do."""

    def __init__(self, log, name, mode, ms=1.0, loss=0.5, fails=None):
        self.log, self.name, self.ms, self.loss, self.fails = log, name, ms, loss, fails
        self.first = {"process": 100 << 20, "training": 1 << 20, "exact": True} if mode == "memory" else {}
        self.first_step = 1.5
        log.append((name, f"start {mode}"))

    def ask(self, command):
        self.log.append((self.name, command))
        word, *numbers = command.split()
        if word == self.fails:
            raise Failure(f"cannot {word}")
        if word == "losses":
            return {"losses": [1.0] * (int(numbers[0]) - 1) + [self.loss]}
        if word == "predict":
            return {"logits": [1.0, -2.0]}
        return {"seconds": self.ms / 1000 * int(numbers[-1])}

    def close(self):
        self.log.append((self.name, "close"))


def starter(log, **frameworks):
    def start(name, mode):
        settings = frameworks[name.replace("-", "_")]
        if isinstance(settings, str):
            raise Failure(settings)
        return Fake(log, name, mode, **settings)

    return start


QUICK = Plan(rounds=3, seconds=0.01)
NAMES = ["nnspec", "torch-eager", "jax"]


def test_frameworks_take_turns_after_proof_and_warm_up():
    log = []
    start = starter(log, nnspec={}, torch_eager={"ms": 2.0}, jax={"ms": 4.0})
    measure("mlp-64", NAMES, start, Plan(rounds=2, seconds=0.02, inference=False, memory=False))
    turns = [("nnspec", "steps 20"), ("torch-eager", "steps 10"), ("jax", "steps 5")]
    tried = [entry for name, command in turns for entry in ((name, "steps 3"), (name, command))]
    assert log == [
        *((name, "start serve") for name in NAMES),
        *((name, "losses 10") for name in NAMES),
        *tried,
        *turns,
        *turns,
        *((name, "close") for name in NAMES),
    ]


def test_the_ratio_is_the_fastest_peer_to_nnspec():
    found = measure("mlp-64", NAMES, starter([], nnspec={}, torch_eager={"ms": 3.0}, jax={"ms": 2.0}), QUICK)
    assert found["nnspec_ms"] == pytest.approx(1.0)
    assert found["peers"] == pytest.approx({"torch-eager": 3.0, "jax": 2.0})
    assert found["ratio"] == pytest.approx(2.0)
    assert [one["batch"] for one in found["inference"]] == [1, 32]
    assert found["inference"][0]["ratio"] == pytest.approx(2.0)
    assert found["memory"]["jax"]["training"] == 1 << 20
    assert found["same"]
    assert found["absent"] == {}


def test_the_middle_of_odd_rounds_is_reported_not_their_mean():
    found = compare({"nnspec": [1.0, 1.0, 10.0], "jax": [2.0, 2.5, 90.0], "torch-eager": [5.0, 5.0, 5.0]})
    assert found == {"nnspec_ms": 1.0, "peers": {"jax": 2.5, "torch-eager": 5.0}, "ratio": 2.5}
    assert compare({"nnspec": [1.0]})["ratio"] is None


def test_another_loss_is_not_the_same():
    found = measure("mlp-64", NAMES, starter([], nnspec={}, torch_eager={}, jax={"loss": 0.5001}), QUICK)
    assert not found["same"]
    assert found["loss_difference"] == pytest.approx(2e-4)
    assert found["ratio"] is not None  # it is timed all the same


@pytest.mark.parametrize("fails", ["losses", "steps", "infer", "predict"])
def test_a_peer_that_fails_is_named_with_its_reason(fails):
    log = []
    found = measure("mlp-64", NAMES, starter(log, nnspec={}, torch_eager={"fails": fails}, jax={}), QUICK)
    assert found["absent"] == {"torch-eager": f"cannot {fails}"}
    assert ("torch-eager" in found["peers"]) == (fails == "infer")
    assert "jax" in found["peers"]
    assert found["same"]
    assert set(found["memory"]) == {"nnspec", "jax"}
    commands = [command for name, command in log if name == "torch-eager"]
    assert commands[-1] == "close"
    assert commands.count("close") == 1


def test_a_peer_that_does_not_start_is_named_with_its_reason():
    found = measure("mlp-64", NAMES, starter([], nnspec={}, torch_eager="no torch", jax={}), QUICK)
    assert found["absent"] == {"torch-eager": "no torch"}
    assert found["ratio"] == pytest.approx(1.0)


def test_nnspec_must_not_fail():
    log = []
    with pytest.raises(Failure, match="cannot losses"):
        measure("mlp-64", NAMES, starter(log, nnspec={"fails": "losses"}, torch_eager={}, jax={}), QUICK)
    assert [name for name, command in log if command == "close"] == NAMES  # no process stays behind


def test_memory_is_measured_one_process_after_the_other():
    log = []
    measure("mlp-64", NAMES, starter(log, nnspec={}, torch_eager={}, jax={}), Plan(time=False))
    assert log == [entry for name in NAMES for entry in ((name, "start memory"), (name, "close"))]


def test_a_timing_in_less_precision_is_proved_apart():
    log = []
    plan = Plan(rounds=1, seconds=0.01, memory=False, inference=False, apart=True)
    measure("mlp-64", ["nnspec", "jax"], starter(log, nnspec={}, jax={}), plan)
    jax = [command for name, command in log if name == "jax"]
    assert jax[:4] == ["start exact", "losses 10", "close", "start serve"]
    assert "losses 10" not in jax[4:]


def test_differences_are_relative_to_the_largest_and_see_what_is_no_number():
    assert difference({"nnspec": [2.0, -4.0], "jax": [2.0, -4.4]}) == pytest.approx(0.1)
    assert difference({"nnspec": [1.0, 2.0], "jax": [math.nan, 2.0]}) == math.inf
    assert difference({"nnspec": [math.nan], "jax": [1.0]}) == math.inf
    assert difference({"nnspec": [math.inf], "jax": [math.inf]}) == math.inf
    assert difference({"nnspec": [1.0, 1.0], "jax": [1.0]}) == math.inf
    assert difference({"nnspec": [0.0], "jax": [0.0]}) == 0
