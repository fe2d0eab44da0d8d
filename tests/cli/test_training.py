"""train, eval and predict."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from nnspec.compile import compile_network, initial_weights


@pytest.fixture
def trained(run, spec, data, tmp_path):
    """The folder of a finished training."""
    ran = run("train", spec, "--data", data, "--out", tmp_path / "out", "--device", "cpu")
    assert ran.status == 0, ran.err
    return tmp_path / "out"


def test_train_prints_and_writes_each_epoch(run, spec, data, tmp_path):
    out = tmp_path / "out"
    ran = run("train", spec, "--data", data, "--validation", data, "--out", out, "--device", "cpu", "--epochs", 3)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "training Points: 42 parameters, 60 samples in batches of 25, 3 epochs on the cpu"
    assert [line.split()[:2] for line in lines[1:4]] == [["epoch", "1/3"], ["epoch", "2/3"], ["epoch", "3/3"]]
    assert "validation loss" in lines[1]
    assert lines[-1].startswith("trained 9 steps in ")
    history = json.loads((out / "history.json").read_text())
    assert (history["network"], history["train"]) == ("Points", "Points")
    losses = [epoch["train"]["loss"] for epoch in history["epochs"]]
    assert losses == sorted(losses, reverse=True)
    assert set(history["epochs"][0]["validation"]) == {"loss", "accuracy"}
    assert set(load_file(out / "weights.safetensors")) == {
        "dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias",
    }  # fmt: skip


def test_train_takes_arrays_one_by_one(run, spec, data, tmp_path):
    arrays = np.load(data)
    np.save(tmp_path / "at.npy", arrays["at"])
    np.savetxt(tmp_path / "side.csv", arrays["side"], fmt="%d")
    sources = ["--data", f"at={tmp_path / 'at.npy'}", "--data", f"side={tmp_path / 'side.csv'}"]
    ran = run("train", spec, *sources, "--out", tmp_path / "out", "--device", "cpu", "--epochs", 1)
    assert ran.status == 0, ran.err


def test_train_resumes_to_the_same_weights(run, spec, data, tmp_path):
    def train(folder: str, *options: object):
        ran = run("train", spec, "--data", data, "--out", tmp_path / folder, "--device", "cpu", *options)
        assert ran.status == 0, ran.err
        return ran, load_file(tmp_path / folder / "weights.safetensors")

    _, whole = train("whole")
    train("parts", "--epochs", 2)
    ran, parts = train("parts", "--resume")
    assert "from epoch 3" in ran.out
    assert all(whole[name].tobytes() == parts[name].tobytes() for name in whole)


def test_train_starts_from_weights(run, spec, data, trained, tmp_path):
    options = ("--device", "cpu", "--epochs", 1, "--weights", trained / "weights.safetensors")
    assert run("train", spec, "--data", data, "--out", tmp_path / "again", *options).status == 0
    first = json.loads((trained / "history.json").read_text())["epochs"]
    again = json.loads((tmp_path / "again" / "history.json").read_text())["epochs"]
    assert again[0]["train"]["loss"] < first[-1]["train"]["loss"]
    assert run("train", spec, "--data", data, "--resume", "--weights", "w").status == 2


def test_train_writes_to_runs_by_default(run, spec, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", spec, "--data", data, "--device", "cpu", "--epochs", 1).status == 0
    assert (tmp_path / "runs" / "Points" / "weights.safetensors").is_file()


def test_train_stops_cleanly_on_ctrl_c(run, spec, data, tmp_path):
    out = tmp_path / "out"

    def interrupt() -> None:
        while not (out / "history.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    ran = run("train", spec, "--data", data, "--out", out, "--device", "cpu", "--epochs", 1_000_000)
    other.join()
    assert ran.status == 130
    assert f"and saved to {out}; `--resume` goes on from there" in ran.out
    done = len(json.loads((out / "history.json").read_text())["epochs"])
    on = run("train", spec, "--data", data, "--out", out, "--device", "cpu", "--epochs", done + 2, "--resume")
    assert on.status == 0, on.err
    assert len(json.loads((out / "history.json").read_text())["epochs"]) == done + 2


def test_train_picks_a_block_by_name(run, spec, data, tmp_path):
    spec.write_text(spec.read_text().replace("train Points", "train Points as slow") + (
        "train Points as fast {\n  target side: int\n  loss = cross_entropy(logits, side)\n  optimizer = sgd(1)\n}\n"
    ))  # fmt: skip
    options = ("--data", data, "--out", tmp_path / "out", "--device", "cpu", "--epochs", 1)
    unclear = run("train", spec, *options)
    assert unclear.status == 1
    assert "declares several train blocks: slow, fast" in unclear.err
    assert run("train", spec, *options, "--block", "fast").status == 0
    assert json.loads((tmp_path / "out" / "history.json").read_text())["train"] == "fast"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": None}, "the data lack 'side', int64 of shape [batch]"),
        ({"at": np.zeros((60, 3), np.float32)}, "'at' should have the shape [batch, 2], but has [60, 3]"),
        ({"at": np.full((60, 2), np.nan, np.float32)}, "'at' should hold finite numbers, but holds NaN in sample 0"),
        ({"side": np.full(60, 2)}, "'side' should lie in 0 .. 1 (classes), but is 2 in sample 0"),
    ],
)
def test_train_says_what_is_wrong_with_data(run, spec, data, tmp_path, change, message):
    arrays = {**np.load(data), **change}
    np.savez(data, **{name: array for name, array in arrays.items() if array is not None})
    ran = run("train", spec, "--data", data, "--out", tmp_path / "out", "--device", "cpu")
    assert (ran.status, ran.err) == (1, f"error: {message}\n")


def test_train_says_that_the_folder_cannot_be_written(run, spec, data, tmp_path):
    (tmp_path / "file").write_text("")
    ran = run("train", spec, "--data", data, "--out", tmp_path / "file" / "x", "--device", "cpu")
    assert ran.status == 1
    assert ran.err.startswith(f"error: cannot write to the folder {tmp_path / 'file' / 'x'}: ")


def test_train_needs_a_checkpoint_to_resume(run, spec, data, tmp_path):
    ran = run("train", spec, "--data", data, "--out", tmp_path / "none", "--device", "cpu", "--resume")
    assert ran.status == 1
    assert "there is no training run to resume" in ran.err


def test_eval_prints_loss_and_metrics(run, spec, data, trained):
    options = ("--weights", trained / "weights.safetensors", "--data", data, "--device", "cpu")
    found = json.loads(run("eval", spec, *options, "--format", "json").out)
    assert set(found) == {"loss", "accuracy"}
    text = run("eval", spec, *options).out
    assert text == f"loss      {found['loss']:.6f}\naccuracy  {found['accuracy']:.6f}\n"
    checkpoint = run("eval", spec, "--weights", trained / "checkpoint.safetensors", *options[2:], "--format", "json")
    assert json.loads(checkpoint.out) == found


def test_eval_refuses_foreign_weights(run, spec, data, tmp_path):
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    ran = run("eval", spec, "--weights", tmp_path / "w.safetensors", "--data", data, "--device", "cpu")
    assert ran.status == 1
    assert "the program does not have" in ran.err


def test_predict_gives_what_the_exported_model_gives(run, spec, data, trained, tmp_path):
    weights = trained / "weights.safetensors"
    ran = run("predict", spec, "--weights", weights, "--data", data, "-o", tmp_path / "out.npz", "--device", "cpu")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"logits  float32[60, 2]\nwrote {tmp_path / 'out.npz'}\n"
    assert run("export", spec, "--weights", weights, "-o", tmp_path / "m.onnx").status == 0
    session = ort.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["logits"], {"at": np.load(data)["at"]})
    with np.load(tmp_path / "out.npz") as got:
        np.testing.assert_allclose(got["logits"], expected, rtol=1e-5, atol=1e-6)
    accuracy = float(np.mean(expected.argmax(1) == np.load(data)["side"]))
    found = run("eval", spec, "--weights", weights, "--data", data, "--device", "cpu", "--format", "json").out
    assert json.loads(found)["accuracy"] == pytest.approx(accuracy)


def test_predict_gives_chosen_outputs_from_the_inputs_that_they_need(run, tmp_path):
    spec = tmp_path / "two.nn"
    spec.write_text("""network Two {
  input a: [3]
  input b: [4]
  output left = a -> dense(5)
  output right = b -> dense(2)
  output low = a -> dense(1)
}""")
    weights = initial_weights(compile_network(str(spec)).network)
    save_file(weights, tmp_path / "w.safetensors")
    a = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", a=a)
    files = ("--weights", tmp_path / "w.safetensors", "--data", tmp_path / "a.npz", "-o", tmp_path / "out.npz")
    ran = run("predict", spec, *files, "--device", "cpu", "--outputs", "low, left")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[:2] == ["low  float32[7, 1]", "left  float32[7, 5]"]
    with np.load(tmp_path / "out.npz") as got:
        assert list(got) == ["low", "left"]
        np.testing.assert_allclose(got["left"], a @ weights["dense1.weight"].T, rtol=1e-5, atol=1e-6)
    assert run("predict", spec, *files, "--device", "cpu").status == 1, "all outputs need b"
    ran = run("predict", spec, *files, "--device", "cpu", "--outputs", "lef")
    assert ran.status == 1
    assert "has no output `lef`" in ran.err
    assert "left" in ran.err


def test_predict_needs_neither_targets_nor_a_train_block(run, spec, data, trained, tmp_path):
    spec.write_text(spec.read_text().split("train Points")[0])
    np.savez(tmp_path / "at.npz", at=np.load(data)["at"])
    for name in ("weights", "checkpoint"):
        options = ("--data", tmp_path / "at.npz", "-o", tmp_path / f"{name}.npz", "--device", "cpu")
        assert run("predict", spec, "--weights", trained / f"{name}.safetensors", *options).status == 0
    a, b = (np.load(tmp_path / f"{name}.npz")["logits"] for name in ("weights", "checkpoint"))
    assert np.array_equal(a, b)


def test_predict_says_that_the_file_cannot_be_written(run, spec, data, trained, tmp_path):
    out = Path(tmp_path / "none" / "out.npz")
    options = ("--weights", trained / "weights.safetensors", "--data", data, "-o", out, "--device", "cpu")
    ran = run("predict", spec, *options)
    assert ran.status == 1
    assert ran.err.startswith(f"error: cannot write {out}: ")


def test_train_shows_warnings(run, spec, data, tmp_path):
    spec.write_text(spec.read_text().replace("  output", "  idle = at -> relu\n  output", 1))
    ran = run("train", spec, "--data", data, "--out", tmp_path / "out", "--device", "cpu", "--epochs", 1)
    assert ran.status == 0
    assert "warning[unused]" in ran.err
