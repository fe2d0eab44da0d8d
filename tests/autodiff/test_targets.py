"""Gradients made for the CPU alone are those made for any device."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.autodiff import differentiate
from nnspec.ops import CUDA, IR_VERSION, OPSET, PORTABLE, Ops, Target

ALONE = Target(alone=True)


def _gradient(target: Target, shape, build, x: np.ndarray):
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    ops = Ops(ir.Graph([value], [], nodes=[], opset_imports={"": OPSET}, name="g"), target=target)
    y = build(ops, value)
    weighted = ops.Mul(y, ops.Cos(y))  # each element has another gradient
    (dx,) = differentiate(ops, weighted, [value])
    dx.name = "dx"
    ops.graph.outputs.append(dx)
    model = ir.to_proto(ir.Model(ops.graph, ir_version=IR_VERSION)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["dx"], {"x": x})[0], {n.op_type for n in ops.graph}


POOLS = {
    "tiles": ((3, 2, 6, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "rows are left over": ((3, 2, 7, 9), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "gaps": ((2, 3, 9, 8), {"kernel_shape": [2, 2], "strides": [3, 4]}),
    "padded": ((2, 3, 7, 8), {"kernel_shape": [3, 2], "strides": [3, 2], "pads": [1, 0, 1, 1]}),
    "ceil": ((2, 3, 7, 9), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "dilated": ((2, 3, 9, 9), {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [2, 2]}),
    "one axis": ((2, 3, 9), {"kernel_shape": [2], "strides": [2]}),
    "three axes": ((2, 2, 4, 5, 6), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    "overlapping": ((2, 3, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 2]}),
}


@pytest.mark.parametrize("symbolic", [False, True], ids=["fixed", "symbolic"])
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("name", POOLS)
def test_max_pool(name: str, ties: bool, symbolic: bool) -> None:
    shape, settings = POOLS[name]
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 3, shape) if ties else rng.standard_normal(shape)).astype(np.float32)
    dims = ("batch", *shape[1:]) if symbolic else shape
    expected, _ = _gradient(PORTABLE, dims, lambda op, v: op.MaxPool(v, **settings), x)
    found, operators = _gradient(ALONE, dims, lambda op, v: op.MaxPool(v, **settings), x)
    assert ("MaxUnpool" in operators) == (name not in ("overlapping", "padded", "ceil"))
    np.testing.assert_array_equal(found, expected)


def test_relu() -> None:
    x = np.array([-1e30, -1.0, -1e-37, -0.0, 0.0, 1.2e-38, 1e-30, 0.5, 1e30], np.float32)
    expected, plain = _gradient(CUDA, x.shape, lambda op, v: op.Relu(v), x)
    found, operators = _gradient(PORTABLE, x.shape, lambda op, v: op.Relu(v), x)
    assert "Where" in plain
    assert "Where" not in operators
    np.testing.assert_array_equal(found, expected)
