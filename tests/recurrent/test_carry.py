"""Carried states: windows one after another are one long sequence, and training from them is truncated BPTT."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.lower import finish_outputs, lower
from nnspec.ops import IR_VERSION
from tests.recurrent.running import Arrays, network_of, random_weights, reals, run

CELLS = {
    "lstm": "lstm(4)",
    "gru": "gru(4)",
    "stacked": "lstm(4) -> rnn(4)",
    "starting at one": "begins(4)",
    "scrn": "scrn(4, 3)",
}
TEXT = """
cell begins(units) on x {{
  state h: [units] = ones
  next h = tanh((x, h) -> concat -> dense(units))
  return next h
}}
network N {{
  input x: [T, 3]
  output y = x -> {}
}}"""


def carrying(network: Any, weights: Arrays, fused: bool) -> tuple[Any, list[str]]:
    """Return the model with carried states as inputs, and after them as outputs `NAME.next`."""
    lowered = lower(network, carry=True, fused=fused)
    outputs = {"y": lowered.values[network.outputs[0].value]}
    outputs |= {f"{name}.next": after for name, (_, after) in lowered.carries.items()}
    lowered.graph.inputs.extend(before for before, _ in lowered.carries.values())
    for name, value in lowered.weights.items():
        value.const_value = ir.tensor(weights[name], name=name)
        lowered.graph.register_initializer(value)
    finish_outputs(lowered, outputs)
    return ir.to_proto(ir.Model(lowered.graph, ir_version=IR_VERSION)), list(lowered.carries)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_windows_are_one_long_sequence(cell: str) -> None:
    network = network_of(TEXT.format(cell))
    weights = random_weights(network)
    x = reals(2, 12, 3)
    model, names = carrying(network, weights, fused=True)
    whole = run(model, {"x": x, **{n: np.zeros((2, s), np.float32) for n, s in sizes(model, names)}})["y"]
    states = {n: np.zeros((2, s), np.float32) for n, s in sizes(model, names)}
    parts = []
    for begin in (0, 4, 8):
        results = run(model, {"x": x[:, begin : begin + 4], **states})
        states = {n: results[f"{n}.next"] for n in names}
        parts.append(results["y"])
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-6)
    alone = run(model, {"x": x[:, 8:], **{n: np.zeros((2, s), np.float32) for n, s in sizes(model, names)}})["y"]
    assert np.abs(alone - whole[:, 8:]).max() > 1e-2


def sizes(model: Any, names: list[str]) -> list[tuple[str, int]]:
    """Return the carried states and how many units each has."""
    units = {i.name: i.type.tensor_type.shape.dim[1].dim_value for i in model.graph.input if i.name in names}
    return [(n, units[n]) for n in names]


def test_zeros_carried_in_are_the_start_of_a_stream() -> None:
    for cell in CELLS.values():
        network = network_of(TEXT.format(cell))
        weights = random_weights(network)
        model, names = carrying(network, weights, fused=True)
        x = reals(2, 5, 3)
        plain = lower(network)
        finish_outputs(plain, {"y": plain.values[network.outputs[0].value]})
        for name, value in plain.weights.items():
            value.const_value = ir.tensor(weights[name], name=name)
            plain.graph.register_initializer(value)
        expected = run(ir.to_proto(ir.Model(plain.graph, ir_version=IR_VERSION)), {"x": x})["y"]
        results = run(model, {"x": x, **{n: np.zeros((2, s), np.float32) for n, s in sizes(model, names)}})
        np.testing.assert_allclose(results["y"], expected, rtol=0, atol=1e-6)


def test_backward_cells_and_given_starts_are_not_carried() -> None:
    network = network_of(
        """network N {
          input x: [T, 3]
          input start: [4]
          a, h, c = x -> lstm(4)
          b = x -> lstm(4, initial = (start, start))
          output y = (a, b, x -> gru(4, reverse = true)) -> concat
        }"""
    )
    assert list(lower(network, carry=True).carries) == ["lstm1.h", "lstm1.c"]
