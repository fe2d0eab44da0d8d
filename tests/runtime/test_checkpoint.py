"""Resuming: bit-identical after a stop, Ctrl-C or kill -9; atomic writes; files that are broken or foreign."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nnspec_runtime import Trainer, load_data, load_weights, save_weights
from nnspec_runtime.checkpoint import KEY, fit_weights, load_checkpoint
from nnspec_runtime.errors import CheckpointError, OutputError, WeightsError
from nnspec_runtime.progress import Silent
from nnspec_runtime.weights import read_tensors, write_tensors
from safetensors.numpy import load_file as from_safetensors
from safetensors.numpy import save as to_safetensors

from tests.runtime import programs

ROOT = Path(__file__).parents[2]


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes(), name


class StopAt(Silent):
    """Ask to stop once the given number of epochs is complete."""

    def __init__(self, epochs):
        self.left, self.trainer = epochs, None

    def epoch(self, record):
        self.left -= 1
        if not self.left:
            self.trainer.ask_to_stop()


def test_resuming_at_every_step_gives_the_same_bits(tmp_path):
    program = programs.mlp(batch=4, epochs=3)
    data = load_data(program, programs.blobs(14))  # four steps an epoch, the last of two samples
    whole = Trainer(program, data, validation=data)
    expected = whole.fit()

    for _ in range(100):
        trainer = Trainer(program, data, validation=data, out=tmp_path, resume=True)
        advance = trainer.session.advance

        def stop_after(advance=advance, trainer=trainer):
            trainer.ask_to_stop()
            return advance()

        trainer.session.advance = stop_after
        result = trainer.fit()
        if not result.interrupted:
            break
    assert result.steps == expected.steps == 12
    same(trainer.session.state(), whole.session.state())
    same(result.weights, expected.weights)
    timeless = [[{**record, "seconds": 0} for record in one.history] for one in (result, expected)]
    assert timeless[0] == timeless[1], "figures of an epoch cut in two are those of the whole epoch"


def test_training_can_go_on_for_more_epochs(tmp_path):
    program = programs.mlp(batch=4, epochs=2)
    data = load_data(program, programs.blobs(14))
    Trainer(program, data, out=tmp_path).fit()
    result = Trainer(program, data, out=tmp_path, resume=True, epochs=5).fit()
    same(result.weights, Trainer(program, data, epochs=5).fit().weights)
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4, 5]


def start_child(folder: Path, epochs: int) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.child", str(folder), str(epochs)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.fixture
def stored(tmp_path):
    """A program and its data on disk, with early stopping, so that best weights are written too."""
    program = programs.mlp(batch=4, epochs=1, stop={"patience": 10_000, "metric": "loss"})
    programs.save(program, tmp_path)
    np.savez(tmp_path / "data.npz", **programs.blobs(30))
    return program, tmp_path


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_kill_at_any_moment_then_resume_gives_the_same_bits(stored):
    program, folder = stored
    rng = random.Random(0)
    kills = 0
    while kills < 6:
        child = start_child(folder, 1_000_000)
        assert child.stdout.readline() == "training\n"
        time.sleep(rng.random() * 0.08)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        kills += 1
    _, position = load_checkpoint(folder / "run/checkpoint.safetensors", program)
    epochs = position.epoch + 2
    child = start_child(folder, epochs)
    told, _ = child.communicate()
    assert child.returncode == 0
    assert told.splitlines()[-1] == f"done {epochs * 8}"
    data = load_data(program, folder / "data.npz")
    whole = Trainer(program, data, validation=data, epochs=epochs)
    expected = whole.fit()
    state, position = load_checkpoint(folder / "run/checkpoint.safetensors", program)
    same(state, whole.session.state())
    same(load_weights(folder / "run/weights.safetensors"), dict(expected.weights))
    left = sorted(path.name for path in (folder / "run").iterdir())
    best = f"best-{expected.best_epoch}.safetensors"
    assert left == [best, "checkpoint.safetensors", "history.json", "weights.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for another process")
def test_ctrl_c_saves_and_ends_cleanly(stored):
    program, folder = stored
    child = start_child(folder, 1_000_000)
    assert child.stdout.readline() == "training\n"
    child.send_signal(signal.SIGINT)
    told, _ = child.communicate()
    assert child.returncode == 0
    word, steps = told.splitlines()[-1].split()
    assert word == "interrupted"
    state, position = load_checkpoint(folder / "run/checkpoint.safetensors", program)
    assert position.step == int(steps) == state["step"]
    history = json.loads((folder / "run/history.json").read_text())
    assert len(history["epochs"]) == position.epoch
    data = load_data(program, folder / "data.npz")
    resumed = Trainer(program, data, validation=data, out=folder / "run", resume=True, epochs=position.epoch + 1).fit()
    same(resumed.weights, Trainer(program, data, validation=data, epochs=position.epoch + 1).fit().weights)


def test_a_second_ctrl_c_ends_at_once_and_the_handler_is_put_back(request):
    program = programs.mlp(batch=4, epochs=3)
    trainer = Trainer(program, load_data(program, programs.blobs(14)))
    # A process that was started in the background ignores SIGINT, which would hide what is tested here.
    started_with = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, started_with))
    before = signal.getsignal(signal.SIGINT)
    advance = trainer.session.advance

    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return advance()

    trainer.session.advance = twice
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_stopping_at_the_end_of_an_epoch(tmp_path):
    program = programs.mlp(batch=4, epochs=3)
    data = load_data(program, programs.blobs(14))
    stop = StopAt(2)
    stop.trainer = Trainer(program, data, out=tmp_path, reporter=stop)
    result = stop.trainer.fit()
    assert (result.interrupted, result.stopped_early, len(result.history)) == (True, False, 2)
    last = StopAt(1)
    last.trainer = Trainer(program, data, out=tmp_path, resume=True, reporter=last)
    result = last.trainer.fit()
    assert (result.interrupted, result.stopped_early, len(result.history)) == (False, False, 3)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch, failure):
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": np.ones(3, np.float32)})

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError if isinstance(failure, OSError) else KeyboardInterrupt) as caught:
        save_weights(path, {"a": np.zeros(3, np.float32)})
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    np.testing.assert_array_equal(load_weights(path)["a"], np.ones(3))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_file_is_on_disk_before_the_rename_and_the_rename_before_the_return(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    save_weights(tmp_path / "w.safetensors", {"a": np.ones(3)})
    assert calls == ["sync", "rename", "sync"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    (tmp_path / ".checkpoint.safetensors.abc.tmp").write_bytes(b"half")
    program = programs.mlp(batch=4, epochs=1)
    Trainer(program, load_data(program, programs.blobs(14)), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    program = programs.mlp()
    with pytest.raises(OutputError, match=r"cannot write to the folder .*file/run: Not a directory"):
        Trainer(program, load_data(program, programs.blobs(14)), out=tmp_path / "file/run")
    with pytest.raises(OutputError, match=r"cannot write .*: No such file or directory"):
        save_weights(tmp_path / "nowhere/w.safetensors", {"a": np.ones(3)})


@pytest.fixture
def finished(tmp_path):
    """A finished run: its program, data and folder."""
    program = programs.mlp(batch=4, epochs=1)
    data = load_data(program, programs.blobs(14))
    Trainer(program, data, out=tmp_path).fit()
    return program, data, tmp_path


def rewrite(path, change):
    """Change the tensors or the position of a checkpoint in place."""
    tensors, metadata = read_tensors(path)
    position = json.loads(metadata[KEY])
    change(tensors, position)
    write_tensors(path, tensors, {KEY: json.dumps(position)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, p: t.pop("w1"), r"lacks 'w1', float32 of shape \[5, 6\]$"),
        (lambda t, p: t.update({"w1.momenta": t.pop("w1.momentum")}), r"lacks 'w1\.momentum', .*mean 'w1\.momenta'\?"),
        (lambda t, p: t.update(extra=np.ones(2)), "holds 'extra', which the program does not have"),
        (lambda t, p: t.update(w1=t["w1"][:2]), r"'w1' in .* should have the shape \[5, 6\], but has \[2, 6\]"),
        (lambda t, p: t.update(step=t["step"].astype(np.int32)), "'step' in .* should be int64, but is int32"),
        (lambda t, p: p.update(batch=5), "was made with a batch size of 5, this run has 4"),
        (lambda t, p: p.update(seed=1), "was made with the seed 1, this run has 0"),
        (lambda t, p: p.update(samples_total=99), "a number of training samples of 99, this run has 14"),
        (lambda t, p: p.update(network="Other"), "was made with the network Other, this run has Small"),
        (lambda t, p: p.update(step="many"), "holds a position that cannot be read"),
    ],
)
def test_a_checkpoint_that_does_not_fit(finished, change, sentence):
    program, data, folder = finished
    rewrite(folder / "checkpoint.safetensors", change)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        Trainer(program, data, out=folder, resume=True)
    assert "\n" not in str(caught.value) or "did you mean" in str(caught.value)


def broken(kind, whole):
    flipped = whole[:8] + b"\xff" + whole[9:]
    return {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "headless": whole[:6],
        "flipped": flipped,
        "pickle": b"\x80\x04\x95" + b"x" * 100,
        "zip": b"PK\x03\x04" + b"x" * 100,
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "truncated", "headless", "flipped", "pickle", "zip"])
def test_a_corrupt_or_foreign_file_is_one_sentence(finished, kind):
    program, data, folder = finished
    for name, error in (("checkpoint.safetensors", CheckpointError), ("weights.safetensors", WeightsError)):
        path = folder / name
        path.write_bytes(broken(kind, path.read_bytes()))
        with pytest.raises(error) as caught:
            Trainer(program, data, out=folder, resume=True) if error is CheckpointError else load_weights(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_files_in_the_place_of_weights(tmp_path, finished):
    program, data, folder = finished
    with pytest.raises(WeightsError, match="there is no file"):
        load_weights(folder / "nothing.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        load_weights(folder)
    save_weights(folder / "checkpoint.safetensors", load_weights(folder / "weights.safetensors"))
    with pytest.raises(CheckpointError, match="is not a checkpoint of nnspec"):
        Trainer(program, data, out=folder, resume=True)


def test_what_there_is_to_resume(tmp_path):
    program = programs.mlp(batch=4, epochs=1)
    data = load_data(program, programs.blobs(14))
    with pytest.raises(CheckpointError, match=r"no training run to resume: .* is not a folder"):
        Trainer(program, data, out=tmp_path / "nothing", resume=True)
    with pytest.raises(CheckpointError, match="without an output folder"):
        Trainer(program, data, resume=True)
    # Killed before the first checkpoint: the folder is there, and training starts from the beginning.
    trainer = Trainer(program, data, out=tmp_path, resume=True)
    assert not trainer.resumed
    trainer.fit()
    assert Trainer(program, data, out=tmp_path, resume=True).resumed


def test_weights_must_fit_the_program():
    program = programs.mlp()
    right = {name: program.initial_state()[name] for name in programs.MLP}
    halves = {name: array.astype(np.float16) for name, array in right.items()}
    assert fit_weights(program, halves)["w1"].dtype == np.float32
    wrong = {**right, "w1": right["w1"].T, "b1": right["b1"].astype(np.float64), "conv": right["b2"]}
    del wrong["w2"]
    with pytest.raises(WeightsError) as caught:
        fit_weights(program, wrong, "w.safetensors")
    assert caught.value.problems == (
        "'w1' in w.safetensors should have the shape [5, 6], but has [6, 5]",
        "'b1' in w.safetensors should be float32, but is float64",
        "w.safetensors lacks 'w2', float32 of shape [3, 5]",
        "w.safetensors holds 'conv', which the program does not have",
    )


def test_training_can_start_from_given_weights(finished):
    program, data, folder = finished
    trained = load_weights(folder / "weights.safetensors")
    trainer = Trainer(program, data, weights=trained, out=folder / "fine")
    first, _ = load_checkpoint(folder / "fine/checkpoint.safetensors", program)
    same({name: first[name] for name in trained}, trained)
    short = Trainer(program, data, weights=trained).fit()
    same(trainer.fit().weights, short.weights)
    # A checkpoint wins over the weights that training started from.
    resumed = Trainer(program, data, weights=trained, out=folder / "fine", resume=True).fit()
    same(resumed.weights, short.weights)
    same(fit_weights(program, load_weights(folder / "checkpoint.safetensors")), trained)


def test_weights_are_plain_safetensors(tmp_path):
    every = "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 float32 float64"
    weights = {name: np.arange(3).astype(name) for name in every.split()}
    weights |= {
        "conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "größe": np.array(2.0, np.float32),
        "none": np.zeros((0, 3), np.float32),
        "big": np.arange(3, dtype=">f4"),
    }
    save_weights(tmp_path / "w.safetensors", weights)
    read = from_safetensors(tmp_path / "w.safetensors")  # the package's own reader checks every offset
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=")
    same(load_weights(tmp_path / "w.safetensors"), read)
    with pytest.raises(OutputError, match="'z' is complex128, which safetensors files do not hold"):
        save_weights(tmp_path / "w.safetensors", {"z": np.zeros(2, complex)})
    (tmp_path / "theirs.safetensors").write_bytes(to_safetensors(read))
    same(load_weights(tmp_path / "theirs.safetensors"), read)


def test_figures_that_are_not_finite_survive_a_checkpoint(finished):
    program, _, folder = finished
    path = folder / "checkpoint.safetensors"
    state, position = load_checkpoint(path, program)
    from nnspec_runtime.checkpoint import save_checkpoint

    record = {**position.history[0], "validation": {"loss": float("inf"), "accuracy": float("nan")}}
    save_checkpoint(path, state, position.model_copy(update={"history": (record,), "best": float("inf")}))
    _, again = load_checkpoint(path, program)
    assert again.best == float("inf")
    assert again.history[0]["validation"]["loss"] == float("inf")
    assert np.isnan(again.history[0]["validation"]["accuracy"])
