"""Recorded steps without a GPU: which runs get which graph id, that addresses stay, and that numbers do not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from nnspec_runtime import Device, TrainingSession, bound
from nnspec_runtime.recording import NORMAL, Recording

from nnspec.cli.runtime import training_program
from tests.training.programs import recipe_of

TEXT = """network N { input x: [6] output y = x -> dense(8) -> relu -> dense(3) }
train N { target t: int loss = cross_entropy(y, t) optimizer = adam(0.01) batch = 8 }"""


def batch(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 6)).astype(np.float32), "t": rng.integers(0, 3, rows)}


class Spy:
    """A session on the CPU that notes with which graph ids it ran, and at which addresses its inputs were."""

    def __init__(self, session: Any, device: Device, sizes: Mapping[str, int] | None, recorded: bool) -> None:
        self._session, self.device, self.sizes, self.recorded = session, device, sizes, recorded
        self.ids: list[str | None] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        self.ids.append(None if options is None else options.get_run_config_entry("gpu_graph_id"))
        self._session.run_with_iobinding(binding)


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    made: list[Spy] = []
    real = bound.open_session

    def opened(model: Any, device: Any, what: str, sizes: Mapping[str, int] | None = None, **how: Any) -> Any:
        made.append(Spy(real(model, device, what, sizes, **how), device, sizes, how.get("recorded", False)))
        return made[-1]

    monkeypatch.setattr(bound, "open_session", opened)
    return made


def test_two_normal_runs_on_each_set_of_buffers_then_one_id_each() -> None:
    recording = Recording()
    assert [recording.graph_id(i % 2) for i in range(8)] == [NORMAL] * 4 + [1, 2, 1, 2]
    recording.forget()
    assert [recording.graph_id(i % 2) for i in range(6)] == [NORMAL] * 4 + [3, 4]


def test_only_the_first_shapes_are_recorded() -> None:
    recording = Recording()
    assert recording.covers(((8, 6), (8,)))
    assert not recording.covers(((5, 6), (5,)))
    assert recording.covers(((8, 6), (8,)))


def test_whole_batches_are_recorded_and_the_odd_last_one_runs_as_it_is(spies: list[Spy]) -> None:
    program = training_program(recipe_of(TEXT))
    plain = TrainingSession(program, Device())
    recorded = TrainingSession(program, Device(cuda_graph=True))
    rows = [8, 8, 8, 8, 8, 8, 5, 8, 8]
    for i, count in enumerate(rows):
        data = batch(count, i)
        assert recorded.step(data) == pytest.approx(plain.step(data), rel=1e-6)
    fixed, normal = (spy for spy in spies if spy.device.cuda_graph)
    assert (fixed.sizes, fixed.recorded) == ({"batch": 8}, True)
    assert (normal.sizes, normal.recorded) == (None, False)
    assert not any(spy.recorded for spy in spies if not spy.device.cuda_graph), "a fixed size alone records nothing"
    assert fixed.ids == ["-1", "-1", "-1", "-1", "1", "2", "2", "1"]
    assert normal.ids == [None]
    for name, value in plain.state().items():
        assert recorded.state()[name] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_addresses_stay_when_a_batch_of_another_size_comes_between(spies: list[Spy]) -> None:
    session = TrainingSession(training_program(recipe_of(TEXT)), Device(cuda_graph=True))
    session.step(batch(8, 0))
    before = session.slots[0].arrays
    session.turn = 0
    session.step(batch(5, 1))
    session.turn = 0
    session.step(batch(8, 2))
    assert all(a is b for a, b in zip(session.slots[0].arrays, before, strict=True))


def test_loading_a_state_in_place_keeps_the_recordings(spies: list[Spy]) -> None:
    session = TrainingSession(training_program(recipe_of(TEXT)), Device(cuda_graph=True))
    for i in range(5):
        session.step(batch(8, i))
    session.load(session.state())
    session.step(batch(8, 9))
    assert spies[-1].ids[-2:] == ["1", "2"]


def test_cuda_options() -> None:
    device = Device("cuda", tf32=False, cuda_graph=True)
    ((name, options),) = device.providers(recorded=True)
    assert (name, options["use_tf32"], options["enable_cuda_graph"]) == ("CUDAExecutionProvider", "0", "1")
    assert "enable_cuda_graph" not in device.providers()[0][1]
