"""Maximum and relu change places, and nothing else changes."""

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.lower import SEGMENT
from nnspec.ops import OPSET, Ops
from nnspec.training import build, step
from nnspec.training.pool_first import pool_first

from .programs import Training, recipe_of

NETWORK = """
network Net {{
  input x: [2, 9, 7]
  y = x -> conv(3, 3x3)
  output logits = y -> relu -> {pool} -> flatten -> dense(3)
}}
train Net {{
  target label: int
  loss = cross_entropy(logits, label)
  optimizer = sgd(lr = 0.5)
  batch = 4
}}
"""
POOLS = ["maxpool(2)", "maxpool(3, stride = 2, pad = 1)", "maxpool(7x5)", "global_maxpool"]


def _relus(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type == "Relu"]


def _data(seed: int) -> dict[str, np.ndarray]:
    """Return a batch with many ties: small whole numbers, and a sample of zeros."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (4, 2, 9, 7)).astype(np.float32)
    x[1] = 0
    return {"x": x, "label": rng.integers(0, 3, 4)}


@pytest.mark.parametrize("pool", POOLS)
def test_a_step_leads_to_the_same_state(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(NETWORK.format(pool=pool))
    swapped = Training(build(recipe))
    monkeypatch.setattr(step, "pool_first", lambda graph, kept: None)
    plain = Training(build(recipe))
    (relu,), (before,) = _relus(swapped.program.step), _relus(plain.program.step)
    assert relu.inputs[0].producer().op_type in ("MaxPool", "ReduceMax")
    assert before.inputs[0].producer().op_type == "Conv"
    for weights in (swapped.state, plain.state):
        # Whole numbers and halves: elements tie, and some maxima are zero or negative.
        kernel = np.random.default_rng(1).integers(-2, 3, weights["conv1.weight"].shape).astype(np.float32)
        weights["conv1.weight"] = kernel / 2
    for seed in range(3):
        found, expected = (t.step(_data(seed)) for t in (swapped, plain))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def _graph(read_twice: bool = False, op: str = "MaxPool") -> tuple[ir.Graph, ir.Value]:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1, 2, 6, 6)))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    relu = ops.Relu(x)
    y = getattr(ops, op)(relu, kernel_shape=[2, 2])
    y.name = "y"
    ops.graph.outputs.append(y)
    if read_twice:
        ops.graph.outputs.append(ops.Neg(relu))
    return ops.graph, relu


def _kinds(graph: ir.Graph) -> list[str]:
    return [n.op_type for n in graph]


def test_names_and_shapes_stay_with_what_they_name() -> None:
    graph, _ = _graph()
    pool_first(graph, [])
    assert _kinds(graph) == ["MaxPool", "Relu"]
    pool, relu = graph
    assert list(pool.attributes) == ["kernel_shape"]
    assert not relu.attributes
    assert relu.outputs[0] is graph.outputs[0]
    assert relu.outputs[0].name == "y"
    assert pool.outputs[0].shape == relu.outputs[0].shape


def test_a_relu_that_something_else_needs_stays() -> None:
    graph, relu = _graph()
    pool_first(graph, [relu])
    assert _kinds(graph) == ["Relu", "MaxPool"]
    graph, _ = _graph(read_twice=True)
    pool_first(graph, [])
    assert _kinds(graph) == ["Relu", "MaxPool", "Neg"]


def test_a_segment_that_is_recomputed_keeps_its_nodes_together() -> None:
    for marks, exchanged in (({0: "a"}, False), ({1: "a"}, False), ({0: "a", 1: "b"}, False), ({0: "a", 1: "a"}, True)):
        graph, _ = _graph()
        for node, mark in marks.items():
            graph[node].metadata_props[SEGMENT] = mark
        pool_first(graph, [])
        assert _kinds(graph) == (["MaxPool", "Relu"] if exchanged else ["Relu", "MaxPool"])


def test_means_do_not_change_places() -> None:
    graph, _ = _graph(op="AveragePool")
    pool_first(graph, [])
    assert _kinds(graph) == ["Relu", "AveragePool"]
