"""Build ONNX graphs: every ONNX operator is a method of `Ops`.

`ops.Conv(x, w, b, strides=[2, 2])` appends the node and returns its output value, whose type and shape are inferred by
ONNX's own rules at once, so that the caller may ask for them. Everything that nnspec emits goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

OPSET = 21
"""The newest opset whose kernels ONNX Runtime has on both providers (see shared facts: CUDA loses MaxPool at 22)."""
IR_VERSION = 10

Operand = ir.Value | np.ndarray | float | int | bool | Sequence[int] | None
"""What an operator takes: a value, or something that becomes a constant, or None for an input left out."""


@lru_cache(maxsize=None)
def _schema(op_type: str, domain: str, version: int) -> Any:
    return onnx.defs.get_schema(op_type, version, domain)


class Ops:
    """Append nodes to `graph` (or, inside a Scan body, to that subgraph).

    Python numbers and NumPy arrays among the inputs become Constant nodes, equal ones shared. A bare Python float takes
    the element type of the node's first typed input, so that `ops.Mul(x, 0.5)` works in any precision.
    """

    def __init__(self, graph: ir.Graph, opset: int = OPSET) -> None:
        self.graph = graph
        self.opset = opset
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._counter = 0
        self._insert_before: ir.Node | None = None

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def emit(*inputs: Operand, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
            return self.emit(op_type, inputs, attributes, outputs=outputs, name=name)

        return emit

    def emit(
        self,
        op_type: str,
        inputs: Sequence[Operand],
        attributes: dict[str, Any] | None = None,
        *,
        outputs: int = 1,
        name: str | None = None,
        domain: str = "",
    ) -> Any:
        """Append a node; return its output, or a tuple of them where `outputs` is more than one."""
        dtype = next((v.dtype for v in inputs if isinstance(v, ir.Value) and v.dtype is not None), None)
        values = [self._operand(v, dtype) for v in inputs]
        while values and values[-1] is None:
            values.pop()
        attrs = [ir.convenience.convert_attribute(k, v) for k, v in (attributes or {}).items() if v is not None]
        self._counter += 1
        node = ir.Node(domain, op_type, values, attrs, num_outputs=outputs, name=name)
        self.graph.append(node)
        self._infer(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def constant(self, value: Any, dtype: Any = None) -> ir.Value:
        """Return a Constant: lists and ints become int64, floats float32 unless `dtype` says otherwise."""
        array = np.asarray(value)
        if dtype is not None:
            array = array.astype(dtype.numpy() if isinstance(dtype, ir.DataType) else dtype)
        elif array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        elif array.size == 0 and not isinstance(value, np.ndarray):
            array = array.astype(np.int64)
        key = (array.dtype.str + array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape))
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
            self.graph.append(node)
            out = node.outputs[0]
            out.dtype, out.shape, out.const_value = tensor.dtype, ir.Shape(array.shape), tensor
            self._constants[key] = out
        return self._constants[key]

    def _operand(self, value: Operand, dtype: ir.DataType | None) -> ir.Value | None:
        if value is None or isinstance(value, ir.Value):
            return value
        if isinstance(value, float) and dtype is not None:
            return self.constant(value, dtype)
        return self.constant(value)

    def _infer(self, node: ir.Node) -> None:
        """Set the types and shapes of a new node's outputs by ONNX's own inference."""
        schema = _schema(node.op_type, node.domain, self.opset)
        proto = onnx.NodeProto(op_type=node.op_type, domain=node.domain)
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for i, value in enumerate(node.inputs):
            if value is None:
                proto.input.append("")
                continue
            key = f"i{i}"
            proto.input.append(key)
            if value.dtype is None:
                return
            types[key] = _type_proto(value)
            if value.const_value is not None and value.const_value.size <= 4096:
                data[key] = ir.to_proto(value.const_value)
        proto.output.extend(f"o{i}" for i in range(len(node.outputs)))
        for attribute in node.attributes.values():
            proto.attribute.append(ir.to_proto(attribute))
        inferred = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=IR_VERSION
        )
        for i, out in enumerate(node.outputs):
            found = inferred.get(f"o{i}")
            if found is None:
                continue
            tensor = found.tensor_type
            out.dtype = ir.DataType(tensor.elem_type)
            if tensor.HasField("shape"):
                out.shape = ir.Shape(
                    d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim
                )


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    shape = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    assert value.dtype is not None
    return onnx.helper.make_tensor_type_proto(int(value.dtype), shape)
