"""export: models and training steps as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import save_file

import nnspec
from nnspec.compile import compile_network, initial_weights
from nnspec.export import save_network


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_export_writes_a_checked_model(run, spec, tmp_path):
    path = tmp_path / "new" / "points.onnx"
    ran = run("export", spec, "-o", path)
    assert (ran.status, ran.out, ran.err) == (0, f"wrote {path}\n", "")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 21)]
    assert (model.producer_name, model.producer_version) == ("nnspec", nnspec.__version__)
    assert {p.key: p.value for p in model.metadata_props}["nnspec.network"] == "Points"
    at = model.graph.input[0].type.tensor_type.shape.dim
    assert (at[0].dim_param, at[1].dim_value) == ("batch", 2)
    x = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)
    w = initial_weights(compile_network(spec).network, 0)
    hidden = np.tanh(x @ w["dense1.weight"].T + w["dense1.bias"])
    expected = hidden @ w["dense2.weight"].T + w["dense2.bias"]
    (got,) = session(path).run(None, {"at": x})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert list(path.parent.iterdir()) == [path]


def test_export_draws_weights_from_the_seed(run, spec, tmp_path):
    for name, options in {"a": (), "b": ("--seed", 0), "c": ("--seed", 1)}.items():
        assert run("export", spec, "-o", tmp_path / f"{name}.onnx", *options).status == 0
    a, b, c = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_export_takes_weights(run, spec, tmp_path):
    w = initial_weights(compile_network(spec).network, 3)
    save_file(w, tmp_path / "w.safetensors")
    assert run("export", spec, "-o", tmp_path / "m.onnx", "--weights", tmp_path / "w.safetensors").status == 0
    got = weights_of(tmp_path / "m.onnx")
    assert got.keys() == w.keys()
    assert all(np.array_equal(got[name], w[name]) for name in w)


def test_export_says_what_is_wrong_with_weights(run, spec, tmp_path):
    w = initial_weights(compile_network(spec).network, 3)
    w["dense3.weight"] = w.pop("dense2.weight")
    w["dense1.bias"] = w["dense1.bias"][:4]
    w["dense2.bias"] = w["dense2.bias"].astype(np.float64)
    path = tmp_path / "w.safetensors"
    save_file(w, path)
    ran = run("export", spec, "-o", tmp_path / "m.onnx", "--weights", path)
    assert ran.status == 1
    assert ran.err.splitlines() == [
        f"error: {path} lacks `dense2.weight`, which the network Points has; it has `dense3.weight`",
        f"error: `dense1.bias` in {path} should have the shape [8], but has [4]",
        f"error: `dense2.bias` in {path} should be float32, but is float64",
        f"error: {path} holds `dense3.weight`, which the network Points does not have",
    ]
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x04\x95pickle", b"\xff" * 64])
def test_export_refuses_what_is_no_weights_file(run, spec, tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    ran = run("export", spec, "-o", tmp_path / "m.onnx", "--weights", path)
    assert ran.status == 1
    assert ran.err.startswith(f"error: {path} is ")
    assert ran.err.count("\n") == 1


def test_export_says_that_weights_are_not_there(run, spec, tmp_path):
    ran = run("export", spec, "-o", tmp_path / "m.onnx", "--weights", tmp_path / "none")
    assert (ran.status, ran.err) == (1, f"error: there is no file {tmp_path / 'none'}\n")


def test_export_says_that_a_folder_cannot_be_written(run, spec, tmp_path):
    (tmp_path / "file").write_text("")
    ran = run("export", spec, "-o", tmp_path / "file" / "m.onnx")
    assert ran.status == 1
    assert ran.err.startswith(f"error: cannot write to the folder {tmp_path / 'file'}: ")
    ran = run("export", spec, "-o", tmp_path)
    assert (ran.status, ran.err) == (
        1,
        f"error: {tmp_path} is a folder; name the file to write, such as {tmp_path / 'model.onnx'}\n",
    )


def test_export_takes_weights_or_a_seed(run, spec, tmp_path):
    assert run("export", spec, "-o", tmp_path / "m.onnx", "--weights", "w", "--seed", 1).status == 2
    assert run("export", spec).status == 2


def test_export_train_writes_the_program(run, spec, tmp_path):
    ran = run("export", spec, "--train", "-o", tmp_path / "out" / "points.onnx", "--seed", 5)
    assert ran.status == 0, ran.err
    names = ["points.json", "points.eval.onnx", "points.predict.onnx", "points.state.safetensors", "points.step.onnx"]
    assert ran.out.splitlines() == [f"wrote {tmp_path / 'out' / name}" for name in names]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    manifest = json.loads((tmp_path / "out" / "points.json").read_text())
    assert manifest["network"] == "Points"
    assert manifest["settings"]["seed"] == 5
    for kind in ("step", "eval", "predict"):
        declared = {i.name for i in session(tmp_path / "out" / manifest["files"][kind]).get_inputs()}
        assert declared <= {i["name"] for i in manifest["inputs"]} | {s["input"] for s in manifest["state"]}


def test_export_train_starts_from_weights(run, spec, tmp_path):
    from safetensors.numpy import load_file

    w = initial_weights(compile_network(spec).network, 9)
    save_file(w, tmp_path / "w.safetensors")
    path = tmp_path / "p"
    assert run("export", spec, "--train", "-o", path, "--weights", tmp_path / "w.safetensors").status == 0
    state = load_file(tmp_path / "p.state.safetensors")
    assert all(np.array_equal(state[name], w[name]) for name in w)


def test_large_weights_go_to_a_file_of_their_own(spec, tmp_path):
    network = compile_network(spec).network
    w = initial_weights(network, 1)
    path = tmp_path / "points.onnx"
    size = sum(a.nbytes for a in w.values())
    assert save_network(network, w, path, inline_limit=size) == [path]
    whole = path.read_bytes()
    # Tensors below 256 bytes stay inside, so the limit is for a network that has a larger one.
    wide = compile_network(spec, settings={"hidden": 100}).network
    w = initial_weights(wide, 1)
    files = save_network(wide, w, path, inline_limit=size)
    assert files == [path, tmp_path / "points.onnx.data"]
    assert path.read_bytes() != whole
    onnx.checker.check_model(str(path), full_check=True)
    stored = onnx.load(path, load_external_data=False).graph.initializer
    outside = {t.name for t in stored if t.data_location == onnx.TensorProto.EXTERNAL}
    assert {"dense1.weight", "dense2.weight"} <= outside
    assert {e.value for t in stored for e in t.external_data if e.key == "location"} == {"points.onnx.data"}
    got = weights_of(path)
    assert all(np.array_equal(got[name], w[name]) for name in w)
    x = np.ones((3, 2), np.float32)
    hidden = np.tanh(x @ w["dense1.weight"].T + w["dense1.bias"])
    expected = hidden @ w["dense2.weight"].T + w["dense2.bias"]
    np.testing.assert_allclose(session(path).run(None, {"at": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_a_model_that_the_checker_refuses_is_not_written(spec, tmp_path, monkeypatch):
    import nnspec.export

    path = tmp_path / "points.onnx"
    path.write_text("the old one")

    def refuse(*arguments: object, **options: object) -> None:
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    network = compile_network(spec).network
    with pytest.raises(RuntimeError, match="the ONNX checker refuses the model: no"):
        nnspec.export.save_network(network, initial_weights(network), path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.glob(".nnspec*")) == []
