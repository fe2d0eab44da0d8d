"""The artefact is enough: what `runtime/README.md` says, done with bare onnxruntime and NumPy."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest
from nnspec_runtime import Device, Program, Trainer, bound, load_data, session, slots, stepper
from safetensors.numpy import load_file

from tests.runtime import programs


def test_training_with_bare_onnxruntime_gives_the_same_bits(tmp_path):
    path = programs.save(programs.mlp(batch=8, epochs=2, seed=3), tmp_path)
    data = programs.blobs(50)

    manifest = json.loads(path.read_text())
    files = manifest["files"]
    state = load_file(tmp_path / files["state"])
    graph = ort.InferenceSession(tmp_path / files["step"], providers=["CPUExecutionProvider"])
    declared = [one.name for one in graph.get_inputs()]
    settings = manifest["settings"]
    outputs = {one["name"]: one["output"] for one in manifest["state"] if one["output"]}
    losses = []
    for epoch in range(settings["epochs"]):
        key = np.array([settings["seed"], epoch], np.uint64)
        order = np.argsort(np.random.Philox(key=key).random_raw(50), kind="stable")
        total = 0.0
        for start in range(0, 50, settings["batch"]):
            chosen = order[start : start + settings["batch"]]
            feed = {one["input"]: state[one["name"]] for one in manifest["state"]}
            feed |= {name: array[chosen] for name, array in data.items()}
            wanted = [manifest["loss"]["output"], *outputs.values()]
            loss, *after = graph.run(wanted, {name: feed[name] for name in declared})
            state |= dict(zip(outputs, after, strict=True))
            total += float(loss) * len(chosen)
        losses.append(total / 50)

    program = Program.load(path)
    trainer = Trainer(program, load_data(program, data))
    result = trainer.fit()
    for name, array in trainer.session.state().items():
        assert array.tobytes() == state[name].tobytes(), name
    assert [record["train"]["loss"] for record in result.history] == pytest.approx(losses, rel=1e-12)


def test_a_batch_reaches_a_device_that_cannot_see_host_memory(monkeypatch):
    """Train as on another device, its memory played by memory of the host that only explicit copies reach."""
    program = programs.mlp(batch=8, epochs=2)
    data = load_data(program, programs.blobs(50))
    expected = Trainer(program, data, validation=data).fit()
    host = Device()
    empty, copy, opened = session.empty_value, session.ort_value, session.open_session
    sent = []
    for module in (slots, stepper):
        monkeypatch.setattr(module, "empty_value", lambda shape, dtype, device: empty(shape, dtype, host))
    monkeypatch.setattr(stepper, "ort_value", lambda array, device: copy(array, host))
    monkeypatch.setattr(bound, "open_session", lambda model, device, *rest, **how: opened(model, host, *rest, **how))
    send = slots.Slot.send
    monkeypatch.setattr(slots.Slot, "send", lambda slot: (sent.append(slot), send(slot)))
    result = Trainer(program, data, device=Device("cuda")).fit()
    for name, weight in expected.weights.items():
        assert weight.tobytes() == result.weights[name].tobytes(), name
    assert len(sent) == result.steps
