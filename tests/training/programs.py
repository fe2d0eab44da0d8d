"""Compile the cases, and run their graphs with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from nnspec_runtime import Device, TrainingSession
from numpy.typing import NDArray

from nnspec.cli.runtime import training_program
from nnspec.compile import compile_recipe
from nnspec.recipe import Recipe
from nnspec.source import Source
from nnspec.training import Program, build

Array = NDArray[Any]


def recipe_of(text: str) -> Recipe:
    """Compile a train block."""
    return compile_recipe(Source("case.nn", text))


def checked(model: ir.Model) -> bytes:
    """Return a model as bytes, after ONNX's full check and strict shape inference."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    content: bytes = proto.SerializeToString()
    return content


class Graph:
    """A model in an ONNX Runtime session that takes what it needs of the arrays it is given.

    Without ONNX Runtime's optimizer each node rounds as it says: two graphs can be compared in float16.
    """

    def __init__(self, model: ir.Model, optimized: bool = True) -> None:
        options = ort.SessionOptions()
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(checked(model), options, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def __call__(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        results = self.session.run(self.outputs, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))


class Training:
    """Step a program from its manifest alone: the state goes round by its names."""

    def __init__(self, program: Program, optimized: bool = True) -> None:
        self.program = program
        self.states = program.manifest["state"]
        self.state = dict(program.state)
        self.graph = Graph(program.step, optimized)

    def step(self, data: Mapping[str, Array]) -> dict[str, Array]:
        """Do one step; return all outputs."""
        given = {s["input"]: self.state[s["name"]] for s in self.states}
        results = self.graph({**data, **given})
        for state in self.states:
            if state["output"] is not None:
                after = results[state["output"]]
                assert after.shape == tuple(state["shape"])
                assert after.dtype == np.dtype(state["dtype"])
                self.state[state["name"]] = after
        return results


def training(text: str) -> Training:
    """Compile a train block and make ready to step it."""
    return Training(build(recipe_of(text)))


def portable_and_here(recipe: Recipe) -> list[TrainingSession]:
    """Return a session of the portable step, and one of that made for this CPU."""
    return [TrainingSession(training_program(recipe, d), Device(threads=1)) for d in (None, Device())]


def assert_same_moves(sessions: list[TrainingSession], tolerance: float) -> None:
    """Assert that each tensor of two sessions' states agrees, to a part of how far it moved from the start."""
    start = sessions[0].program.initial_state()
    expected, found = (s.state() for s in sessions)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        moved = np.abs(value.astype(np.float64) - start[key]).max()
        np.testing.assert_allclose(found[key], value, atol=tolerance * max(moved, 1e-3), err_msg=key)
