"""Gradients of lookups with repeated indices, on as many threads as there are: no update may be lost."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.autodiff import differentiate
from nnspec.ops import CUDA, IR_VERSION, OPSET, Ops


@pytest.mark.parametrize(
    ("rows", "columns", "count"),
    [(10, 128, 4096), (192, 64, 4096), (193, 64, 4096), (1000, 128, 2048), (1000, 15, 4096), (1000, 16, 2056)],
)
@pytest.mark.parametrize("lookup", ["Gather", "GatherND"])
def test_every_update_counts(rows: int, columns: int, count: int, lookup: str) -> None:
    rng = np.random.default_rng(0)
    check(rows, columns, rng.integers(0, rows, (8, count // 8)), lookup)


SORTED = {
    "all of one row": np.full((4, 300), 7),
    "runs over many blocks": np.repeat([3, 499, 0, 250], [700, 33, 200, 267]).reshape(4, 300),
    "runs that end with a block": np.repeat([5, 6, 7], [32, 64, 32]).reshape(4, 32),
    "each row once": np.random.default_rng(1).permutation(500)[:256].reshape(8, 32),
    "the last row, the first row": np.array([[499] * 31 + [0] * 2]),
    "one row": np.array([[499]]),
    "from the end": np.random.default_rng(2).integers(-500, 500, (7, 61)),
}


@pytest.mark.parametrize("case", SORTED)
def test_rows_that_are_sorted_first(case: str) -> None:
    check(500, 32, SORTED[case], "Gather")


def check(rows: int, columns: int, index: np.ndarray, lookup: str) -> None:
    """Compare the gradient of a lookup on four threads with NumPy's, five times."""
    rng = np.random.default_rng(3)
    seeds = rng.standard_normal((*index.shape, columns)).astype(np.float32)
    types = {"w": ir.DataType.FLOAT, "i": ir.DataType.INT64, "dy": ir.DataType.FLOAT}
    shapes = {"w": (rows, columns), "i": ("batch", index.shape[1]), "dy": ("batch", *seeds.shape[1:])}
    given = {n: ir.Value(name=n, type=ir.TensorType(t), shape=ir.Shape(shapes[n])) for n, t in types.items()}
    ops = Ops(ir.Graph(list(given.values()), [], nodes=[], opset_imports={"": OPSET}, name="g"))
    at = given["i"] if lookup == "Gather" else ops.Unsqueeze(given["i"], [-1])
    y = getattr(ops, lookup)(given["w"], at)
    (dw,) = differentiate(ops, y, [given["w"]], given["dy"])
    dw.name = "dw"
    ops.graph.outputs.append(dw)
    by_row = [n for n in ops.graph if n.op_type == "ScatterND"]
    assert not [n for n in by_row if n.attributes.get_string("reduction", "none") == "add"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 4
    model = ir.to_proto(ir.Model(ops.graph, ir_version=IR_VERSION)).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    expected = np.zeros((rows, columns))
    np.add.at(expected, index, seeds.astype(np.float64))
    feeds = {"w": np.zeros((rows, columns), np.float32), "i": index, "dy": seeds}
    feeds = {i.name: feeds[i.name] for i in session.get_inputs()}
    for _ in range(5):
        np.testing.assert_allclose(session.run(["dw"], feeds)[0], expected, atol=1e-4)


def test_on_cuda_rows_are_added_whole() -> None:
    given = [
        ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1000, 8))),
        ir.Value(name="i", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape((5,))),
    ]
    ops = Ops(ir.Graph(given, [], nodes=[], opset_imports={"": OPSET}, name="g"), target=CUDA)
    differentiate(ops, ops.Gather(*given), [given[0]])
    assert "ScatterND" in {n.op_type for n in ops.graph}
