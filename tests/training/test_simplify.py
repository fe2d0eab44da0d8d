"""What a finished graph does not need is left out, and it computes what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.training.simplify import simplify

CHAINS: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "transposed twice": (lambda op, x: op.Transpose(op.Transpose(x, perm=[1, 2, 0]), perm=[2, 1, 0]), ["Transpose"]),
    "transposed back and forth thrice": (
        lambda op, x: op.Transpose(op.Transpose(op.Transpose(x, perm=[1, 2, 0]), perm=[0, 2, 1]), perm=[1, 0, 2]),
        ["Transpose"],
    ),
    "a view of a view": (lambda op, x: op.Reshape(op.Reshape(x, [6, -1]), [4, 6]), ["Reshape"]),
    "a view that takes a dim over": (lambda op, x: op.Reshape(op.Reshape(x, [6, -1]), [0, 2, 2]), ["Reshape"] * 2),
    "a view of what is moved": (
        lambda op, x: op.Reshape(op.Transpose(x, perm=[2, 0, 1]), [4, 6]),
        ["Transpose", "Reshape"],
    ),
    "nothing": (lambda op, x: op.Neg(op.Identity(x)), ["Neg"]),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_moves_are_joined(chain: str) -> None:
    build, left = CHAINS[chain]
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((2, 3, 4)))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    y = build(ops, x)
    y.name = "y"
    ops.graph.outputs.append(y)
    data = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    before = _run(ops.graph, data)
    simplify(ops.graph)
    assert [n.op_type for n in ops.graph if n.op_type != "Constant"] == left
    np.testing.assert_array_equal(_run(ops.graph, data), before)


def test_what_others_read_stays() -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((2, 3, 4)))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    first = ops.Transpose(x, perm=[1, 2, 0])
    second = ops.Transpose(first, perm=[1, 2, 0])
    for name, value in (("first", first), ("second", second)):
        value.name = name
        ops.graph.outputs.append(value)
    simplify(ops.graph)
    assert [n.inputs[0].name for n in ops.graph] == ["x", "x"]
    assert [n.attributes.get_ints("perm") for n in ops.graph] == [(1, 2, 0), (2, 0, 1)]


def _run(graph: ir.Graph, x: np.ndarray) -> np.ndarray:
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]
