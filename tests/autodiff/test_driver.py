"""The driver: which gradients it makes, what it leaves out, and gradients of gradients."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.autodiff import GradientError, differentiate
from nnspec.lower import RECOMPUTE
from nnspec.ops import Ops, dims_of
from tests.autodiff.cases.scan import elman, lstm
from tests.autodiff.check import rand

FLOAT, DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE


class Graph:
    """A graph with named inputs that can be differentiated and run."""

    def __init__(self, dtype=DOUBLE, **inputs):
        self.values = {
            name: ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims)) for name, dims in inputs.items()
        }
        graph = ir.Graph(list(self.values.values()), [], nodes=[], opset_imports={"": 21}, name="g")
        self.ops = Ops(graph)

    def __getitem__(self, name):
        return self.values[name]

    def counts(self, start=0):
        """Return how many nodes there are of each operator, from number `start` on."""
        return Counter(node.op_type for node in list(self.ops.graph)[start:])

    def run(self, outputs, **feeds):
        """Return the outputs' arrays."""
        self.ops.graph.outputs[:] = []
        named = [self.ops.Identity(v) for v in outputs]
        self.ops.graph.outputs.extend(named)
        proto = ir.to_proto(ir.Model(self.ops.graph, ir_version=10))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(
            None, feeds
        )


def test_paths_that_add_up() -> None:
    g = Graph(x=[3])
    x, op = g["x"], g.ops
    y = op.Add(op.Mul(x, op.Sin(x)), op.Add(op.Exp(x), x))
    (dx,) = differentiate(op, y, [x])
    v = np.array([0.3, -0.7, 1.1])
    (found,) = g.run([dx], x=v)
    np.testing.assert_allclose(found, np.sin(v) + v * np.cos(v) + np.exp(v) + 1, rtol=1e-12)


def test_no_path_is_none() -> None:
    g = Graph(x=[3], z=[3])
    y = g.ops.Floor(g["x"])
    assert differentiate(g.ops, y, [g["x"], g["z"]]) == [None, None]


def test_the_value_itself() -> None:
    g = Graph(x=[2])
    y = g.ops.Exp(g["x"])
    dy, dx = differentiate(g.ops, y, [y, g["x"]])
    assert dims_of(dy) == (2,)
    found = g.run([dy, dx], x=np.array([0.0, 1.0]))
    np.testing.assert_allclose(found[0], [1, 1])
    np.testing.assert_allclose(found[1], np.exp([0.0, 1.0]))


def test_nothing_is_computed_that_nobody_wants() -> None:
    g = Graph(FLOAT, x=["batch", 3, 8, 8], w=[4, 3, 3, 3], v=[5, 4, 3, 3])
    y = g.ops.ReduceSum(g.ops.Conv(g.ops.Conv(g["x"], g["w"]), g["v"]))

    def input_gradients(wrt: str) -> int:
        start = len(g.ops.graph)
        differentiate(g.ops, y, [g[wrt]])
        convolutions = [n for n in list(g.ops.graph)[start:] if n.op_type in ("Conv", "ConvTranspose")]
        # Those of weights shift images by kernels that are constants.
        return sum(n.inputs[1].const_value is None for n in convolutions)

    assert input_gradients("v") == 0
    assert input_gradients("w") == 1


def test_a_rule_is_asked_for_only_on_the_path() -> None:
    g = Graph(x=[3, 3], z=[3, 3])
    y = g.ops.Mul(g["x"], g.ops.Det(g["z"]))
    assert differentiate(g.ops, y, [g["x"]])[0] is not None
    with pytest.raises(GradientError, match="Det"):
        differentiate(g.ops, y, [g["z"]])


def test_no_node_is_left_unused() -> None:
    g = Graph(FLOAT, x=["batch", 6], w=[6, 4], b=[4])
    y = g.ops.ReduceMean(g.ops.LogSoftmax(g.ops.Add(g.ops.MatMul(g["x"], g["w"]), g["b"])))
    found = differentiate(g.ops, y, [g["w"], g["b"]])
    for node in g.ops.graph:
        assert any(out.uses() or out in found or out is y for out in node.outputs), node


def test_a_seed() -> None:
    g = Graph(x=[2, 3], u=[2, 3])
    y = g.ops.Mul(g["x"], g["x"])
    (dx,) = differentiate(g.ops, y, [g["x"]], g["u"])
    x, u = rand(2, 3), rand(2, 3, seed=1)
    np.testing.assert_allclose(g.run([dx], x=x, u=u)[0], 2 * x * u, rtol=1e-12)


def test_second_order() -> None:
    g = Graph(x=[2, 3], w=[3, 2])
    op = g.ops
    y = op.ReduceSum(op.Tanh(op.MatMul(op.Mul(g["x"], g["x"]), g["w"])), keepdims=0)
    (dw,) = differentiate(op, y, [g["w"]])
    penalty = op.ReduceSumSquare(dw, keepdims=0)
    dx, dww = differentiate(op, penalty, [g["x"], g["w"]])
    x, w = rand(2, 3), rand(3, 2)
    v = {"x": rand(2, 3, seed=5), "w": rand(3, 2, seed=6)}
    _, gx, gw = g.run([penalty, dx, dww], x=x, w=w)
    h = 1e-6
    for name, gradient in (("x", gx), ("w", gw)):
        moved = [{"x": x, "w": w, name: {"x": x, "w": w}[name] + s * h * v[name]} for s in (1, -1)]
        above, below = (g.run([penalty], **m)[0] for m in moved)
        np.testing.assert_allclose((above - below) / (2 * h), np.sum(gradient * v[name]), rtol=1e-7)


def test_second_order_through_time() -> None:
    g = Graph(x=[3, 2, 2], h=[2, 3], w=[2, 3], r=[3, 3], b=[3])
    last, ys = elman(g.ops, *(g[n] for n in "xhwrb"))
    y = g.ops.Add(g.ops.ReduceSum(g.ops.Mul(ys, ys), keepdims=0), g.ops.ReduceSum(last, keepdims=0))
    (dr,) = differentiate(g.ops, y, [g["r"]])
    penalty = g.ops.ReduceSumSquare(dr, keepdims=0)
    names = list("xhwrb")
    found = differentiate(g.ops, penalty, [g[n] for n in names])
    values = {n: rand(*dims_of(g[n]), seed=i) for i, n in enumerate(names)}
    results = dict(zip(names, g.run(found, **values), strict=True))
    for name in names:
        v = rand(*values[name].shape, seed=9)
        above, below = (g.run([penalty], **{**values, name: values[name] + s * 1e-6 * v})[0] for s in (1, -1))
        np.testing.assert_allclose((above - below) / 2e-6, np.sum(results[name] * v), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("training", [True, "input"])
def test_dropout_uses_the_forward_mask(training: bool | str) -> None:
    g = Graph(FLOAT, x=[50])
    op = g.ops
    flag = op.constant(np.bool_(True))
    if training == "input":
        flag = ir.Value(name="training", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
        op.graph.inputs.append(flag)
    y = op.Dropout(g["x"], 0.4, flag)
    (dx,) = differentiate(op, y, [g["x"]])
    ones = np.ones(50, np.float32)
    feeds = {} if training is True else {"training": np.array(True)}
    out, gradient = g.run([y, dx], x=ones, **feeds)
    np.testing.assert_allclose(gradient, out, rtol=1e-6)
    assert 0 < np.count_nonzero(out) < 50
    np.testing.assert_allclose(out[out != 0], 1 / 0.6, rtol=1e-6)
    if training == "input":
        out, gradient = g.run([y, dx], x=ones, training=np.array(False))
        np.testing.assert_array_equal(gradient, ones)


def test_ties_are_shared_and_the_first_maximum_of_a_window_wins() -> None:
    g = Graph(FLOAT, x=[1, 1, 2, 4])
    x, op = g["x"], g.ops
    shared = op.ReduceMax(x)
    pooled = op.MaxPool(x, kernel_shape=[2, 2], strides=[1, 1])
    both = op.Max(x, op.Identity(x))
    found = [differentiate(op, y, [x])[0] for y in (shared, pooled, both)]
    results = g.run(found, x=np.zeros((1, 1, 2, 4), np.float32))
    np.testing.assert_allclose(results[0], np.full((1, 1, 2, 4), 1 / 8))
    np.testing.assert_array_equal(results[1][0, 0], [[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(results[2], np.ones((1, 1, 2, 4)))


def test_half_precision_graphs_stay_in_half_precision() -> None:
    half = ir.DataType.FLOAT16
    g = Graph(half, x=["batch", 3, 8, 8], w=[4, 3, 3, 3], s=[4], v=[4, 2])
    op = g.ops
    y = op.Relu(op.Add(op.Conv(g["x"], g["w"], pads=[1, 1, 1, 1]), op.Unsqueeze(g["s"], [1, 2])))
    y = op.LogSoftmax(op.MatMul(op.ReduceMean(op.MaxPool(y, kernel_shape=[2, 2]), [2, 3], keepdims=0), g["v"]))
    names = ("x", "w", "s", "v")
    found = differentiate(op, op.ReduceMean(y, keepdims=0), [g[n] for n in names])
    assert [v.dtype for v in found] == [half] * 4
    assert not any(v.dtype == DOUBLE for node in op.graph for v in node.outputs)


def scans(g):
    return [node for node in g.ops.graph if node.op_type == "Scan"]


def test_products_with_weights_leave_the_loop() -> None:
    g = Graph(FLOAT, x=["T", "batch", 2], h=["batch", 5], c=["batch", 5], w=[20, 2], r=[20, 5], b=[20], p=[5])
    _, _, ys = lstm(g.ops, *(g[n] for n in "xhcwrbp"))
    found = differentiate(g.ops, g.ops.ReduceSum(ys), [g[n] for n in "wrbp"])
    assert [dims_of(v) for v in found] == [(20, 2), (20, 5), (20,), (5,)]
    backward = scans(g)[1].attributes["body"].as_graph()
    products = [n for n in backward if n.op_type in ("Gemm", "MatMul")]
    # One product a step takes dz to the state before; those with x and h cover all steps at once behind the loop.
    assert len(products) == 1
    assert g.counts()["Gemm"] == 2


def test_recomputing_stores_the_states_alone() -> None:
    stored, again = (Graph(FLOAT, x=[7, 3, 2], h=[3, 5], c=[3, 5], w=[20, 2], r=[20, 5], b=[20], p=[5]) for _ in "ab")
    lstm(stored.ops, *(stored[n] for n in "xhcwrbp"))
    lstm(again.ops, *(again[n] for n in "xhcwrbp"), recompute=True)
    assert RECOMPUTE in scans(again)[0].metadata_props
    for g in (stored, again):
        out = scans(g)[0].outputs[2]
        differentiate(g.ops, g.ops.ReduceSum(out), [g["w"], g["r"]])
    # Three results, then what is kept: every gate, or the cell alone, since the other state is a result already.
    assert len(scans(stored)[0].outputs) > 7
    assert len(scans(again)[0].outputs) == 4


def test_what_a_loop_keeps_is_kept_once() -> None:
    g = Graph(FLOAT, x=[4, 3, 2], h=[3, 5], w=[2, 5], r=[5, 5], b=[5])
    last, ys = elman(g.ops, *(g[n] for n in "xhwrb"))
    differentiate(g.ops, g.ops.ReduceSum(ys), [g["w"], g["r"]])
    kept = len(scans(g)[0].outputs)
    differentiate(g.ops, g.ops.ReduceSum(last), [g["w"], g["r"]])
    assert len(scans(g)[0].outputs) == kept


def test_names_in_the_whole_model_are_unique() -> None:
    g = Graph(FLOAT, x=[4, 3, 2], h=[3, 5], w=[2, 5], r=[5, 5], b=[5])
    first, _ = elman(g.ops, *(g[n] for n in "xhwrb"))
    _, ys = elman(Ops(g.ops.graph), g["x"], first, *(g[n] for n in "wrb"))
    differentiate(Ops(g.ops.graph), ys, [g["w"], g["h"]])
    names = [v.name for node in ir.traversal.RecursiveGraphIterator(g.ops.graph) for v in node.outputs]
    names += [v.name for node in scans(g) for v in node.attributes["body"].as_graph().inputs]
    assert len(names) == len(set(names))


def test_symbols_survive() -> None:
    g = Graph(FLOAT, x=["batch", "T", 8], w=[8, 4], b=[4])
    op = g.ops
    y = op.Softmax(op.Add(op.MatMul(g["x"], g["w"]), g["b"]))
    found = differentiate(op, op.ReduceMean(op.Mul(y, y)), [g[n] for n in "xwb"])
    assert [dims_of(v) for v in found] == [("batch", "T", 8), (8, 4), (4,)]
    # Equal symbols are equal sizes: nothing has to be found out when the graph runs.
    assert g.counts()["NonZero"] == 0
