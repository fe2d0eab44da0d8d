"""Sums and means over leading axes become products with ones, and mean the same."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.training.sums import sum_by_products


def _graph(dims, axes, keepdims, after=None, dtype=ir.DataType.FLOAT, kind="ReduceSum"):
    x = ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape(dims))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    y = getattr(ops, kind)(x, axes, keepdims=keepdims)
    if after is not None:
        y = after(ops, y)
    y.name = "y"
    ops.graph.outputs.append(y)
    return ops.graph


def _run(graph, x):
    model = ir.Model(graph, ir_version=IR_VERSION)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMean"])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("dims", "axes", "shape"),
    [
        (("batch", 12), [0], (5, 12)),
        ((7, 12), [0], (7, 12)),
        (("batch", 3, 4), [0], (5, 3, 4)),
        (("batch", "time", 9), [0, 1], (5, 2, 9)),
        (("batch", 3, 4, 2), [-4, 1], (2, 3, 4, 2)),
        ((None, 12), [0], (1, 12)),
    ],
)
def test_leading_axes(dims, axes, shape, keepdims, kind) -> None:
    graph = _graph(dims, axes, keepdims, kind=kind)
    sum_by_products(graph)
    assert kind not in {n.op_type for n in graph}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = (x.sum if kind == "ReduceSum" else x.mean)(tuple(axes), keepdims=bool(keepdims))
    found = _run(graph, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_factor_goes_into_the_ones() -> None:
    graph = _graph(("batch", 12), [0], 0, after=lambda op, y: op.Mul(-0.25, y))
    sum_by_products(graph)
    assert "Mul" not in {n.op_type for n in graph}
    x = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    np.testing.assert_allclose(_run(graph, x), -0.25 * x.sum(0), atol=1e-5)


def test_a_sum_that_others_read_keeps_its_value() -> None:
    graph = _graph(("batch", 12), [0], 0, after=lambda op, y: op.Add(op.Mul(y, 2.0), y))
    sum_by_products(graph)
    x = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    np.testing.assert_allclose(_run(graph, x), 3 * x.sum(0), atol=1e-5)


@pytest.mark.parametrize(
    ("dims", "axes", "dtype"),
    [
        (("batch", 12), [1], ir.DataType.FLOAT),
        (("batch", 3, 12), [1], ir.DataType.FLOAT),
        (("batch", 12), [0, 1], ir.DataType.FLOAT),
        (("batch", 4), [0], ir.DataType.FLOAT),
        (("batch", "width"), [0], ir.DataType.FLOAT),
        (("batch", 12), [0], ir.DataType.INT64),
    ],
    ids=["inner", "middle", "all", "narrow", "open width", "integers"],
)
def test_others_stay(dims, axes, dtype) -> None:
    graph = _graph(dims, axes, 0, dtype=dtype)
    sum_by_products(graph)
    assert "ReduceSum" in {n.op_type for n in graph}


@pytest.mark.parametrize("first", ["ReduceSum", "ReduceMean"])
def test_sums_and_means_of_one_length_have_ones_of_their_own(first) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(("batch", 9)))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    second = "ReduceMean" if first == "ReduceSum" else "ReduceSum"
    y = ops.Concat(*(getattr(ops, kind)(x, [0], keepdims=1) for kind in (first, second)), axis=0)
    y.name = "y"
    ops.graph.outputs.append(y)
    sum_by_products(ops.graph)
    data = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    expected = [data.sum(0), data.mean(0)][:: 1 if first == "ReduceSum" else -1]
    np.testing.assert_allclose(_run(ops.graph, data), np.stack(expected), atol=1e-5)
