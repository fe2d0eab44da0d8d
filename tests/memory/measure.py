"""Measure the peak of a training step's memory in a fresh process: `python measure.py PROGRAM.json` prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from nnspec_runtime import Device, Program, TrainingSession
from onnx import TensorProto, helper


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    # Code and threads of the libraries are there in any case: they are loaded before anything is counted.
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 64])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 64])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "warm", [value], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((64, 64), np.float32)})
    program = Program.load(sys.argv[1])
    rng = np.random.default_rng(0)
    batch = {}
    for one in program.manifest.inputs:
        shape = [program.settings.batch if isinstance(d, str) else d for d in one.shape]
        real = one.dtype == "float32"
        drawn = rng.normal(size=shape) if real else rng.integers(0, one.classes or 2, shape)
        batch[one.name] = drawn.astype(one.numpy)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    training = TrainingSession(program, Device(threads=2))
    for _ in range(3):
        training.step(batch)
    print(json.dumps({"peak": status("VmHWM") - before}))


if __name__ == "__main__":
    main()
