"""Dynamic loss scaling: overflow, skipping, halving and doubling, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from nnspec.training import build
from nnspec.training.scaling import FIRST, GOOD_STEPS, HIGHEST, LOWEST
from tests.training.programs import Training, recipe_of

EXPONENT, GOOD = "loss_scale.exponent", "loss_scale.good_steps"


def training(precision: str, settings: str = "optimizer = adam(0.01)") -> Training:
    return Training(
        build(
            recipe_of(
                f"""network N {{ input x: [3] output y = x -> dense(1) }}
    train N {{ target t: [1] loss = mean(y * t) {settings} precision = {precision} }}"""
            )
        )
    )


def data(size: float) -> dict[str, np.ndarray]:
    # The gradient by the weight is `size` times the mean of x: float32 overflows from 3.4e38 / the scale on.
    return {"x": np.ones((4, 3), np.float32), "t": np.full((4, 1), size, np.float32)}


def test_a_step_that_overflows_changes_no_weight_and_no_optimizer_state_and_halves_the_scale() -> None:
    run = training("float16")
    run.step(data(1.0))
    before = dict(run.state)
    run.step(data(1e37))
    for state in run.states:
        if state["kind"] in ("weight", "optimizer") or state["name"] == "updates":
            assert np.array_equal(run.state[state["name"]], before[state["name"]]), state["name"]
    assert run.state[EXPONENT] == -1
    assert run.state[GOOD] == 0
    assert run.state["step"] == before["step"] + 1
    assert run.state["updates"] == 1


def test_the_scale_falls_until_the_gradients_fit() -> None:
    run = training("float16", "optimizer = sgd(1e-30)")
    exponents = []
    start = run.state["dense1.bias"]
    # CPU kernels may keep more range than float16 has: what counts is that the scaled gradient fits what computes it.
    for _ in range(24):
        run.step(data(1e34))
        exponents.append(int(run.state[EXPONENT]))
    falls = exponents[-1]
    assert falls < 0
    assert exponents == [max(-1 - i, falls) for i in range(24)]
    assert run.state["updates"] == 24 + falls
    assert not np.array_equal(run.state["dense1.bias"], start)


def test_the_scale_doubles_after_good_steps_and_no_sooner() -> None:
    run = training("float16")
    run.state[GOOD] = np.array(GOOD_STEPS - 2)
    run.step(data(1.0))
    assert (run.state[EXPONENT], run.state[GOOD]) == (0, GOOD_STEPS - 1)
    run.step(data(1.0))
    assert (run.state[EXPONENT], run.state[GOOD]) == (1, 0)


@pytest.mark.parametrize(("exponent", "size"), [(HIGHEST - FIRST, 1e-3), (LOWEST - FIRST, float("inf"))])
def test_the_scale_has_bounds(exponent: int, size: float) -> None:
    run = training("float16")
    run.state[EXPONENT], run.state[GOOD] = np.array(exponent), np.array(GOOD_STEPS - 1)
    run.step(data(size))
    assert run.state[EXPONENT] == exponent


@pytest.mark.parametrize(
    "settings",
    ["optimizer = sgd(0.1)", "optimizer = adam(0.01) schedule = step(2)", "optimizer = sgd(0.1) clip = norm(0.01)"],
)
def test_skipped_steps_leave_no_trace_in_what_follows(settings: str) -> None:
    skipping, plain = training("float16", settings), training("float16", settings)
    for size in (1.0, float("nan"), 2.0, float("inf"), 3.0):
        skipping.step(data(size))
        if np.isfinite(size):
            plain.step(data(size))
    for state in skipping.states:
        if state["kind"] in ("weight", "optimizer"):
            found, wanted = skipping.state[state["name"]], plain.state[state["name"]]
            assert np.array_equal(found, wanted), state["name"]


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    half, full = (training(p, "optimizer = sgd(1.0) clip = norm(0.5)") for p in ("float16", "float32"))
    half.step(data(4.0))
    full.step(data(4.0))
    assert half.state["dense1.weight"] == pytest.approx(full.state["dense1.weight"], rel=1e-3)
    moved = np.concatenate([(full.program.state[n] - half.state[n]).ravel() for n in ("dense1.weight", "dense1.bias")])
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-3)
