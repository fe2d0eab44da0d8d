"""Large products with a transposed left operand: the same numbers from a transposition of its own."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.training.transposed import transpose_before


def _graph(depth, rows: int, columns: int, **settings) -> ir.Graph:
    dims = {"a": (depth, rows), "b": (depth, columns), "c": (rows, columns)}
    given = [ir.Value(name=k, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(d)) for k, d in dims.items()]
    ops = Ops(ir.Graph(given, [], nodes=[], opset_imports={"": OPSET}, name="g"))
    y = ops.Gemm(*given, transA=1, **settings)
    y.name = "y"
    ops.graph.outputs.append(y)
    return ops.graph


def _session(graph: ir.Graph, **settings) -> ort.InferenceSession:
    options = ort.SessionOptions()
    for name, value in settings.items():
        setattr(options, name, value)
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("depth", ["batch", 3])
def test_same_numbers(depth) -> None:
    graph = _graph(depth, 512, 772, alpha=-0.5, beta=1.0)
    transpose_before(graph)
    assert [n.op_type for n in graph if n.op_type != "Constant"] == ["Reshape", "Transpose", "Reshape", "Gemm"]
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(s).astype(np.float32) for s in ((3, 512), (3, 772), (512, 772)))
    found = _session(graph).run(["y"], {"a": a, "b": b, "c": c})[0]
    np.testing.assert_allclose(found, c - 0.5 * (a.T @ b), atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(256, 1024), (1024, 256), (514, 1024)])
def test_others_stay(rows: int, columns: int) -> None:
    graph = _graph("batch", rows, columns)
    transpose_before(graph)
    assert [n.op_type for n in graph] == ["Gemm"]


def test_onnx_runtime_leaves_it_apart(tmp_path) -> None:
    """It joins a transposition and the product behind it, unless a view is in between that it cannot see through."""
    graph = _graph("batch", 512, 772)
    transpose_before(graph)
    path = tmp_path / "optimized.onnx"
    _session(graph, optimized_model_filepath=str(path))
    optimized = ir.load(path).graph
    (product,) = [n for n in optimized if n.op_type in ("Gemm", "FusedGemm")]
    assert not product.attributes.get_int("transA", 0)
    assert "Transpose" in {n.op_type for n in optimized}
