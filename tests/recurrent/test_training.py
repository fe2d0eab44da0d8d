"""Training of recurrences: masks, truncated backpropagation through time, long sequences, dropout."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.compile import compile_network, compile_recipe
from nnspec.lower import finish_outputs, lower
from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.recipe import Recipe
from nnspec.source import Source
from nnspec.training import build, gradients
from nnspec.training.random import Random
from tests.recurrent.running import Arrays, reals
from tests.training.programs import Graph, Training

MASKED = """
network N {{
  input words: int[T] masked
  e = words -> embedding(9, 4)
  y = e -> {cell}
  output tags = y -> dense(3)
  output verdict = (y -> last, y -> mean(axis = 0), y -> max(axis = 0)) -> concat -> dense(2)
}}
train N {{
  target tag: int[T] masked
  target label: int
  loss = cross_entropy(tags, tag) + 0.5 * cross_entropy(verdict, label)
  metric right = accuracy(tags, tag)
  metric sentences = sequence_accuracy(tags, tag)
  optimizer = sgd(lr = 1)
}}"""
CELLS = [
    "lstm(4, recurrent_bias = true)",
    "gru(4, reverse = true)",
    "bidirectional(peephole_lstm(3))",
    "elman(4) -> clockwork(8, periods = [1, 2])",
    "scrn(4, 2) * 2",
]


def recipe(text: str) -> Recipe:
    return compile_recipe(Source("test.nn", text))


def loss_and_gradients(r: Recipe, data: Arrays, seed: int = 3) -> Arrays:
    """Return loss and gradients at random weights."""
    rng = np.random.default_rng(seed)
    weights = {w.name: (rng.standard_normal(w.shape) * 0.5).astype(np.float32) for w in r.network.weights}
    state = {"seed": np.array(5), "step": np.array(0)}
    return Graph(gradients(r))({**data, **weights, **state})


def masked_data(batch: int = 3, length: int = 7) -> Arrays:
    rng = np.random.default_rng(4)
    return {
        "words": rng.integers(0, 9, (batch, length)),
        "words.lengths": np.array([4, 7, 1]),
        "tag": rng.integers(0, 3, (batch, length)),
        "label": rng.integers(0, 2, batch),
    }


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_neither_loss_nor_metrics_nor_gradients(cell: str) -> None:
    r = recipe(MASKED.format(cell=cell))
    data = masked_data()
    other = {k: v.copy() for k, v in data.items()}
    longer = {k: np.pad(v, [(0, 0), (0, 3)]) if k in ("words", "tag") else v for k, v in data.items()}
    for i, length in enumerate(data["words.lengths"]):
        other["words"][i, length:] = 8
        other["tag"][i, length:] = 2
    expected = loss_and_gradients(r, data)
    for name, value in loss_and_gradients(r, other).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    for name, value in loss_and_gradients(r, longer).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    program = Training(build(r))
    figures = program.step(data)
    for name, value in Training(build(r)).step(other).items():
        np.testing.assert_array_equal(value, figures[name], err_msg=name)
    assert all(np.abs(v).max() > 0 for n, v in expected.items() if n.endswith(".weight.grad"))


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_has_the_gradients_of_its_samples(cell: str) -> None:
    """With a loss that sums over steps, the gradient of a masked batch is the sum over samples cut to their lengths."""
    text = MASKED.format(cell=cell).replace(
        "loss = cross_entropy(tags, tag) + 0.5 * cross_entropy(verdict, label)",
        "loss = sum(tags * tags) + sum(verdict)",
    )
    text = text.replace("  target label: int\n", "")
    r = recipe(text)
    data = masked_data()
    del data["label"]
    whole = loss_and_gradients(r, data)
    alone = [
        loss_and_gradients(
            r,
            {
                "words": data["words"][i : i + 1, :n],
                "tag": data["tag"][i : i + 1, :n],
                "words.lengths": np.array([n]),
            },
        )
        for i, n in enumerate(data["words.lengths"])
    ]
    for name, value in whole.items():
        mean = np.mean([a[name] for a in alone], axis=0)
        np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_recomputing_gives_the_same_gradients(cell: str) -> None:
    r = recipe(MASKED.format(cell=cell))
    again = recipe(MASKED.format(cell=f"recompute ({cell})" if "->" in cell else f"recompute {cell}"))
    expected = loss_and_gradients(r, masked_data())
    for name, value in loss_and_gradients(again, masked_data()).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("cell", ["lstm(4)", "gru(4)", "lstmp(4, 3)"])
def test_recomputing_stores_less(cell: str) -> None:
    """The forward loop stacks what the backward loop reads: gates, activations and states, or the states alone."""
    stacks = []
    for written in (cell, f"recompute {cell}"):
        step = build(recipe(MASKED.format(cell=written))).step
        forward = next(n for n in step.graph if n.op_type == "Scan")
        body = forward.attributes["body"].as_graph()
        states = len(body.inputs) - forward.attributes["num_scan_inputs"].as_int()
        stacks.append(len(forward.outputs) - states)
    assert 2 * stacks[1] <= stacks[0], stacks


CARRIED = """
network N {{
  input x: [T, 3]
{inputs}
  output y = x -> {cell}
}}
train N {{
  target goal: [T, 4]
  loss = square_error(y, goal)
  optimizer = sgd(lr = 1)
  batch = 2
  carry = {carry}
}}"""


def test_carried_training_is_truncated_backpropagation() -> None:
    """A step from a carried state has the loss and the gradients of a step that is given this state as data."""
    carried = Training(build(recipe(CARRIED.format(inputs="", cell="lstm(4) as one", carry="true"))))
    given = recipe(
        CARRIED.format(inputs="  input h: [4]\n  input c: [4]", cell="lstm(4, initial = (h, c)) as one", carry="false")
    )
    by_hand = Graph(gradients(given))
    entries = {s["name"]: s for s in carried.states if s["kind"] == "carry"}
    assert {n: s["shape"] for n, s in entries.items()} == {"one.h": ["batch", 4], "one.c": ["batch", 4]}
    state = {"one.h": np.zeros((2, 4), np.float32), "one.c": np.zeros((2, 4), np.float32)}
    carried.state.update(state)
    x, goal = reals(2, 12, 3), reals(2, 12, 4, seed=2)
    for begin in (0, 4, 8):
        window = {"x": x[:, begin : begin + 4], "goal": goal[:, begin : begin + 4]}
        weights = {w.name: carried.state[w.name] for w in given.network.weights}
        h, c = carried.state["one.h"], carried.state["one.c"]
        expected = by_hand({**window, **weights, "h": h, "c": c})
        states = {s["input"]: carried.state[s["name"]] for s in carried.states}
        results = carried.graph({**window, **states})
        np.testing.assert_allclose(results["loss"], expected["loss"], rtol=1e-5)
        for s in carried.states:
            if s["output"] is not None:
                carried.state[s["name"]] = results[s["output"]]
        for name, before in weights.items():
            gradient = before - carried.state[name]
            np.testing.assert_allclose(gradient, expected[f"{name}.grad"], rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.abs(carried.state["one.h"]).max() > 1e-3


def test_the_graph_does_not_grow_with_the_length() -> None:
    text = "network N {{ input x: [{}, 8]  output y = x -> lstm(16) * 2 -> last -> dense(3) }} {}"
    block = "train N { target label: int  loss = cross_entropy(y, label)  optimizer = adam(lr = 0.01) }"
    sizes = []
    for length in (10, 1000):
        step = build(recipe(text.format(length, block))).step
        proto = ir.to_proto(step)
        sizes.append(len(proto.SerializeToString()))
        ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert sizes[1] < sizes[0] + 100


DROPPING = """
cell drops(units) on x {{
  state h: [units]
  next h = {next}
  return next h
}}
network N {{ input x: [T, 50]  output y = x -> drops(50) }}
"""


def dropped(following: str) -> Arrays:
    """Run a cell in training on ones."""
    network = compile_network(Source("test.nn", DROPPING.format(next=following))).network
    ops = Ops(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="n"))
    given = [ir.Value(name=n, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])) for n in ("seed", "step")]
    lowered = lower(network, training=True, uniform=Random(ops, given[0], given[1]), ops=ops)
    lowered.graph.inputs.extend(given)
    finish_outputs(lowered, {"y": lowered.values[network.outputs[0].value]})
    graph = Graph(ir.Model(lowered.graph, ir_version=IR_VERSION))
    x = np.ones((4, 6, 50), np.float32)
    return {str(step): graph({"x": x, "seed": np.array(5), "step": np.array(step)})["y"] for step in (0, 1)}


def test_dropout_on_data_draws_for_every_step_anew() -> None:
    y = dropped("0 * h + (x -> dropout(0.5))")["0"]
    assert set(np.unique(y)) == {0, 2}
    assert 0.4 < (y == 0).mean() < 0.6
    assert not np.array_equal(y[:, 0], y[:, 1])


def test_dropout_on_a_state_drops_the_same_units_at_every_step() -> None:
    y = dropped("(0 * h + x) -> dropout(0.5)")
    assert set(np.unique(y["0"])) == {0, 2}
    assert 0.4 < (y["0"] == 0).mean() < 0.6
    for t in range(1, 6):
        np.testing.assert_array_equal(y["0"][:, t], y["0"][:, 0])
    assert not np.array_equal(y["0"], y["1"])
