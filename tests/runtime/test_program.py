"""The manifest, the devices, the reporters, the public names."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc

import nnspec_runtime
import numpy as np
import pytest
from nnspec_runtime import Device, Program, Trainer, TrainingSession, load_data
from nnspec_runtime.errors import DeviceError, ProgramError, RunError
from nnspec_runtime.progress import Bar, Lines, reporter
from nnspec_runtime.session import open_session, why_no_cuda
from nnspec_runtime.weights import StoredTensors, save_weights

from tests.runtime import programs


def test_public_names_are_there_and_errors_have_one_root():
    for name in nnspec_runtime.__all__:
        assert hasattr(nnspec_runtime, name)
    assert sorted(nnspec_runtime.__all__) == nnspec_runtime.__all__
    from nnspec_runtime import errors

    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert all(issubclass(one, RunError) for one in kinds)


def test_a_manifest_round_trips_and_ignores_what_later_versions_may_add(tmp_path):
    program = programs.sequences()
    path = programs.save(program, tmp_path)
    content = json.loads(path.read_text())
    content["comment"] = "new"
    content["inputs"][0]["unit"] = "new"
    path.write_text(json.dumps(content))
    loaded = Program.load(path)
    assert loaded.manifest.inputs == program.manifest.inputs
    assert loaded.manifest.settings == program.manifest.settings
    assert loaded.step == tmp_path / "m.step.onnx"


def changed(**changes):
    return programs.manifest([programs.FEATURE_INPUT, programs.LABEL], [programs.state("w", [2], "weight")]) | changes


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], 'is not a training manifest: its "format" is not "nnspec-training"'),
        (changed(format="other"), 'its "format" is not "nnspec-training"'),
        (changed(version=2), "has version 2; this runtime reads version 1"),
        (changed(inputs=[{"name": "x"}]), r"is not valid at inputs\.0\.dtype: Field required"),
        (changed(inputs=[{"name": "x", "dtype": "text", "shape": ["batch"]}]), r"is not valid at inputs\.0\.dtype"),
        (changed(inputs=[{"name": "x", "dtype": "int64", "shape": []}]), r"is not valid at inputs\.0\.shape"),
        (changed(inputs=[programs.LABEL, programs.LABEL]), "input 'label' is named twice"),
        (
            changed(inputs=[{"name": "n", "dtype": "int64", "shape": ["batch"], "role": "lengths"}]),
            "which input it is of",
        ),
        (changed(settings={"batch": 0}), r"is not valid at settings\.batch"),
        (
            changed(settings={"stop": {"patience": 1, "metric": "recall"}}),
            "metric 'recall' is none of 'loss', 'accuracy'",
        ),
    ],
)
def test_a_manifest_that_is_not_valid(tmp_path, content, sentence):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ProgramError, match=sentence):
        Program.load(path)


def test_a_manifest_that_cannot_be_read(tmp_path):
    with pytest.raises(ProgramError, match=r"cannot read the manifest .*: No such file or directory"):
        Program.load(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ProgramError, match="is not a manifest: it is not JSON"):
        Program.load(tmp_path / "m.json")


@pytest.mark.parametrize("name", ["../m.step.onnx", "/etc/passwd", "a/b.onnx", "..", ""])
def test_a_manifest_names_only_files_of_its_own_folder(tmp_path, name):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(changed(files={"step": name})))
    with pytest.raises(ProgramError, match="is not a plain name in its own folder"):
        Program.load(path)


def test_a_graph_that_is_not_there(tmp_path):
    path = programs.save(programs.mlp(), tmp_path)
    (tmp_path / "m.step.onnx").unlink()
    with pytest.raises(ProgramError, match=r"there is no step graph at .*m\.step\.onnx"):
        TrainingSession(Program.load(path))


def test_the_initial_state_is_checked_and_filled_with_zeros():
    program = programs.mlp()
    state = program.initial_state()
    assert state["step"] == 0
    assert not state["w1.momentum"].any()
    wrong = {**program.state, "w1": state["w1"].astype(np.float64), "b1": state["b1"][:2]}
    del wrong["w2"]
    with pytest.raises(ProgramError) as caught:
        Program(program.manifest, step=program.step, state=wrong).initial_state()
    assert caught.value.problems == (
        "the initial state 'w1' should be float32 of shape [5, 6], but is float64 of shape [5, 6]",
        "the initial state 'b1' should be float32 of shape [5], but is float32 of shape [2]",
        "the initial state lacks 'w2', a weight of shape [3, 5]",
    )


def test_a_state_file_is_read_tensor_by_tensor(tmp_path):
    path = tmp_path / "state.safetensors"
    save_weights(path, {f"t{i}": np.full(1 << 18, i, np.float32) for i in range(8)})
    stored = StoredTensors(path, ProgramError)
    assert len(stored) == 8
    assert stored.get("other") is None
    tracemalloc.start()
    found = {name: float(stored[name][-1]) for name in stored}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {f"t{i}": i for i in range(8)}
    assert (1 << 20) <= peak < (3 << 20)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProgramError, match="is not a whole safetensors file"):
        stored["t0"]


def test_devices():
    assert Device.choose("cpu").kind == "cpu"
    assert Device.choose("auto").kind == ("cpu" if why_no_cuda() else "cuda")
    with pytest.raises(DeviceError, match="the device 'tpu' is unknown; it is one of 'auto', 'cpu' and 'cuda'"):
        Device.choose("tpu")
    assert dict(Device("cuda", 1, tf32=False).providers()) == {
        "CUDAExecutionProvider": {"device_id": "1", "use_tf32": "0"}
    }


@pytest.mark.skipif(not why_no_cuda(), reason="CUDA is there")
def test_cuda_where_it_is_not_there_is_one_sentence(capfd):
    with pytest.raises(DeviceError, match=r"^CUDA was asked for, but .*; use the device 'cpu' or 'auto'$"):
        Device.choose("cuda")
    program = programs.mlp()
    # Past the first check too: onnxruntime itself would run on the CPU without a word.
    with pytest.raises(DeviceError, match=r"^CUDA was asked for, but onnxruntime could not load it"):
        open_session(program.step, Device("cuda"), "step")
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(bool(why_no_cuda()), reason="no CUDA here")
def test_cuda_trains_as_the_cpu_does():
    program = programs.mlp(batch=8, epochs=2)
    data = load_data(program, programs.blobs(50))
    cpu, cuda = (
        Trainer(program, data, validation=data, device=device).fit()
        for device in (Device(), Device("cuda", tf32=False))
    )
    for name, weight in cpu.weights.items():
        np.testing.assert_allclose(cuda.weights[name], weight, rtol=1e-4, atol=1e-5)


def test_lines_tell_each_epoch_once():
    program = programs.mlp(batch=4, epochs=2)
    data = load_data(program, programs.blobs(14))
    stream = io.StringIO()
    Trainer(program, data, validation=data, reporter=Lines(stream)).fit()
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "validation loss" in lines[0]
    assert "samples/s" in lines[0]
    assert isinstance(reporter(stream), Lines)


def test_the_bar_shows_figures_and_leaves_lines(monkeypatch, capsys):
    program = programs.mlp(batch=4, epochs=2)
    data = load_data(program, programs.blobs(14))
    from nnspec_runtime import trainer as trainer_module

    monkeypatch.setattr(trainer_module, "_REPORT", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = reporter()
    assert isinstance(shown, Bar)
    Trainer(program, data, reporter=shown).fit()
    told = capsys.readouterr().out
    assert "epoch 1/2  loss" in told
    assert "epoch 2/2  loss" in told
    assert "samples/s" in told
