"""The two sessions of a training run: whole batches in one of fixed size, others in one that takes any size."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnspec_runtime import Device, Program, Trainer, TrainingSession, bound, load_data
from nnspec_runtime.errors import DataError, ProgramError
from nnspec_runtime.program import Work

from nnspec.cli.runtime import training_program
from tests.runtime import programs
from tests.training.programs import recipe_of

BATCH = {"batch": 4}
NETWORKS = {
    "dense": ("[6]", "dense(8) -> relu -> dense(3)", "adam(0.01)"),
    "convolutional": (
        "[2, 8, 8]",
        "conv(4, 3x3, pad = 1) -> batchnorm -> relu -> maxpool(2) -> flatten -> dropout(0.2) -> dense(3)",
        "sgd(0.1, momentum = 0.9)",
    ),
    "recurrent": ("[T, 6]", "lstm(5) -> last -> dense(3)", "rmsprop(0.01)"),
}


@pytest.fixture
def opened(monkeypatch):
    """The sizes that each session was opened with."""
    sizes_of_each = []
    real = bound.open_session

    def open_and_note(model, device, what, sizes=None, **how):
        sizes_of_each.append(sizes)
        return real(model, device, what, sizes, **how)

    monkeypatch.setattr(bound, "open_session", open_and_note)
    return sizes_of_each


def with_settings(program, **settings):
    """The same program with other settings."""
    content = program.manifest.model_dump()
    content["settings"] |= settings
    return Program(content, step=program.step, eval=program.eval, state=program.state)


def test_whole_batches_need_one_session_made_for_their_size(opened):
    program = programs.mlp(batch=4, epochs=3)
    Trainer(program, load_data(program, programs.blobs(12))).fit()
    assert opened == [BATCH]


def test_the_other_session_is_opened_once_when_the_first_smaller_batch_comes(opened):
    session = TrainingSession(programs.mlp(batch=4))
    for rows, count in [(4, 1), (4, 1), (2, 2), (4, 2), (2, 2), (3, 2), (7, 2), (4, 2)]:
        session.step(programs.blobs(rows))
        assert opened == [BATCH, None][:count]


@pytest.mark.parametrize("network", NETWORKS)
def test_both_sessions_train_as_one_that_takes_any_size(network, opened):
    shape, body, optimizer = NETWORKS[network]
    program = training_program(
        recipe_of(f"""network N {{ input x: {shape} output y = x -> {body} }}
        train N {{ target t: int loss = cross_entropy(y, t) optimizer = {optimizer} batch = 4 }}""")
    )
    both = TrainingSession(program)
    one = TrainingSession(with_settings(program, batch=1000))  # no batch is whole
    rng = np.random.default_rng(0)
    for rows in (4, 4, 3, 4, 3, 4, 4, 2, 4, 1, 4):  # a smaller one comes in either turn
        sizes = [rows, *(rng.integers(2, 6) if dim == "T" else dim for dim in program.manifest.inputs[0].shape[1:])]
        batch = {"x": rng.normal(size=sizes).astype(np.float32), "t": rng.integers(0, 3, rows)}
        assert both.step(batch) == pytest.approx(one.step(batch), rel=1e-6, abs=1e-6)
    assert opened == [BATCH, {"batch": 1000}, None, None]
    for name, value in one.state().items():
        np.testing.assert_allclose(both.state()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_run_with_a_smaller_last_batch_has_the_losses_of_one_session(opened):
    program = programs.mlp(batch=4, epochs=4)
    data = programs.blobs(14)
    history = Trainer(program, load_data(program, data)).fit().history
    single = TrainingSession(with_settings(program, batch=1000))
    for epoch, record in enumerate(history):
        order = np.argsort(np.random.Philox(key=np.array([0, epoch], np.uint64)).random_raw(14), kind="stable")
        total = 0.0
        for start in range(0, 14, 4):
            chosen = order[start : start + 4]
            total += single.step({name: array[chosen] for name, array in data.items()})["loss"] * len(chosen)
        assert record["train"]["loss"] == pytest.approx(total / 14, abs=1e-6)
    assert opened == [BATCH, None, {"batch": 1000}, None]


def test_narrowed_carried_states_go_to_the_other_session_and_back(opened):
    session = TrainingSession(programs.carrying(batch=4))
    rng = np.random.default_rng(2)
    w = 0.5
    for _ in range(3):
        h = np.zeros(4)
        for rows in (4, 4, 4, 3, 2):  # five: each epoch begins in the other turn
            x, y = rng.normal(size=(2, rows)).astype(np.float32)
            h = h[:rows] + x
            error = w * h - y
            w -= 0.01 * (2 * error * h).mean()
            assert session.step({"x": x, "y": y})["loss"] == pytest.approx((error**2).mean(), rel=1e-5)
            np.testing.assert_allclose(session.state()["h"], h, rtol=1e-5, atol=1e-6)
        with pytest.raises(DataError, match="4 samples cannot continue the 2 carried states of 'h'"):
            session.step({"x": np.zeros(4, np.float32), "y": np.zeros(4, np.float32)})
        session.reset_carry()
    assert opened == [BATCH, None]


def test_states_loaded_between_reach_both_sessions():
    program = programs.mlp(batch=4)
    session, fresh = TrainingSession(program), TrainingSession(program)
    whole, smaller = programs.blobs(4), programs.blobs(3, seed=1)
    start = session.state()
    for batch in (whole, smaller, whole):
        session.step(batch)
    session.load(start)
    for batch in (smaller, whole, smaller):
        assert session.step(batch) == pytest.approx(fresh.step(batch), rel=1e-6)


def test_several_at_once_do_not_disturb_each_other():
    program = programs.mlp(batch=4)
    batches = [programs.blobs(rows, seed=rows) for rows in (4, 3, 4, 4, 2)]
    first = TrainingSession(program)
    alone = [first.step(batch) for batch in batches]
    del first
    # The arena of the one whose second session comes last has been replaced twice by then.
    several = [TrainingSession(program) for _ in range(3)]
    told = [[session.step(batch) for session in several] for batch in batches]
    assert told == [[figures] * 3 for figures in alone]
    told = several.pop().state()
    for session in several:
        for name, value in session.state().items():
            np.testing.assert_array_equal(value, told[name])


def test_without_a_symbolic_batch_there_is_one_session_for_all(opened):
    program = programs.mlp(batch=4)
    content = program.manifest.model_dump()
    for one in content["inputs"]:
        one["shape"] = (4, *one["shape"][1:])
    session = TrainingSession(Program(content, step=program.step, state=program.state))
    session.step(programs.blobs(4))
    session.step(programs.blobs(3))
    assert opened == [{}]


def test_a_device_that_must_run_every_node_is_asked_for_both_at_once(opened):
    TrainingSession(programs.mlp(batch=4), Device(whole=True))
    assert opened == [BATCH, None]


def test_errors_speak_of_what_is_wrong_with_the_batch():
    session = TrainingSession(programs.mlp(batch=4))
    batch = programs.blobs(4)
    with pytest.raises(ProgramError, match="Got invalid dimensions for input: x"):
        session.step({**batch, "x": batch["x"][:, :5]})
    with pytest.raises(ProgramError, match="a training step failed") as caught:
        session.step({**batch, "x": batch["x"][:3]})
    assert "invalid dimensions" not in str(caught.value), "three samples are as good as four; that they differ is not"
    assert session.step(batch).keys() == {"loss", "accuracy"}


def test_what_a_session_holds_goes_with_it():
    session = TrainingSession(programs.mlp(batch=4))
    session.step(programs.blobs(4))
    session.step(programs.blobs(3))
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None, "a cycle keeps weights and buffers until the next collection"
    finally:
        gc.enable()


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from nnspec_runtime import Device, Program, TrainingSession

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

def batch(rows):
    return {"x": np.ones((rows, 256), np.float32), "t": np.zeros(rows, np.int64)}

program = Program.load(sys.argv[1])
TrainingSession(program, Device(threads=1)).step(batch(8))  # code of the libraries is there in any case
before = status("VmRSS")
session = TrainingSession(program, Device(threads=1))
session.step(batch(4096)), session.step(batch(4096))
one = status("VmHWM") - before
session.step(batch(4000)), session.step(batch(4000)), session.step(batch(4096))
both = status("VmHWM") - before
held = status("VmRSS")
del session
print(json.dumps({"one": one, "both": both, "given_back": held - status("VmRSS")}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_two_sessions_share_their_memory_and_give_it_back(tmp_path):
    program = training_program(
        recipe_of("""network N { input x: [256] output y = x -> (dense(256) -> tanh) * 10 -> dense(10) }
        train N { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = 4096 }""")
    )
    path = programs.save(program, tmp_path)
    told = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    measured = json.loads(told.stdout)
    activations = 10 * 4096 * 256 * 4
    assert measured["one"] > activations
    assert measured["both"] < measured["one"] + 0.3 * activations
    assert measured["given_back"] > activations


@pytest.mark.parametrize(
    ("work", "threads", "planned"),
    [
        ({"macs": 1000, "bytes": 1000}, 1, True),
        ({"macs": 10**9, "bytes": 1000}, 2, True),
        ({"macs": 10**9, "bytes": 10**9}, 2, False),
        (None, 2, False),
    ],
    ids=["small", "many products", "large", "unknown"],
)
def test_a_small_step_runs_on_one_thread(work, threads, planned, monkeypatch) -> None:
    seen = []
    opened = bound.open_session

    def spy(model, device, *args, **settings):
        seen.append((device.threads, settings["planned"]))
        return opened(model, device, *args, **settings)

    monkeypatch.setattr(bound, "open_session", spy)
    program = programs.mlp()
    manifest = program.manifest.model_copy(update={"work": None if work is None else Work(**work)})
    TrainingSession(replace(program, manifest=manifest), Device(threads=2))
    assert seen == [(threads, planned)]


@pytest.mark.parametrize(("size", "reuse"), [(1000, True), (10**9, False)], ids=["small", "large"])
def test_a_large_step_may_leave_out_planned_reuse(size, reuse, monkeypatch) -> None:
    seen = []
    opened = bound.open_session

    def spy(model, device, *args, **settings):
        seen.append(settings["reuse"])
        return opened(model, device, *args, **settings)

    monkeypatch.setattr(bound, "open_session", spy)
    program = programs.mlp()
    work = Work(macs=10**9, bytes=size, reuse=False)
    manifest = program.manifest.model_copy(update={"work": work})
    TrainingSession(replace(program, manifest=manifest), Device(threads=2))
    assert seen == [reuse]


@pytest.mark.parametrize("region", [1 << 20, 2**31, 2**40])
def test_a_region_of_any_size_can_be_asked_for(region) -> None:
    program = programs.mlp()
    work = Work(macs=10**9, bytes=10**9, region=region)
    session = TrainingSession(replace(program, manifest=program.manifest.model_copy(update={"work": work})), Device())
    assert session.step(programs.blobs(10))["loss"] > 0


@pytest.mark.parametrize("work", [Work(macs=1, bytes=1), Work(macs=1, bytes=1, region=3 << 20), None])
def test_the_arena_begins_with_what_the_step_needs(work, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(bound, "new_arena", lambda region=0: seen.append(region))
    program = programs.mlp()
    TrainingSession(replace(program, manifest=program.manifest.model_copy(update={"work": work})), Device())
    assert seen[0] == (0 if work is None else work.region)
