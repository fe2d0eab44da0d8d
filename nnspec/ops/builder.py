"""`Ops`: append nodes to a graph, with types and shapes inferred as they are appended."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir

from nnspec.ops.infer import Dims, Inferred, infer
from nnspec.ops.shapedata import fold, remember
from nnspec.ops.target import PORTABLE, Target

OPSET = 21
"""The newest opset whose kernels ONNX Runtime has on both its CPU and its CUDA provider (CUDA loses MaxPool at 22)."""
IR_VERSION = 10

Operand = ir.Value | np.ndarray | float | int | bool | Sequence[int] | None
"""What an operator takes: a value, or something that becomes a constant, or None for an input left out."""

_IMPURE = frozenset(
    "Dropout RandomNormal RandomUniform RandomNormalLike RandomUniformLike Bernoulli Multinomial".split()  # noqa: SIM905
)
_ATTR: dict[int, Callable[[str, Any], ir.Attr]] = {
    onnx.AttributeProto.INT: lambda k, v: ir.AttrInt64(k, int(v)),
    onnx.AttributeProto.INTS: lambda k, v: ir.AttrInt64s(k, [int(i) for i in v]),
    onnx.AttributeProto.FLOAT: lambda k, v: ir.AttrFloat32(k, float(v)),
    onnx.AttributeProto.FLOATS: lambda k, v: ir.AttrFloat32s(k, [float(f) for f in v]),
    onnx.AttributeProto.STRING: lambda k, v: ir.AttrString(k, v),
    onnx.AttributeProto.GRAPH: lambda k, v: ir.AttrGraph(k, v),
    onnx.AttributeProto.TENSOR: lambda k, v: ir.AttrTensor(k, ir.Tensor(v) if isinstance(v, np.ndarray) else v),
}


@cache
def _attribute_types(op_type: str, domain: str, version: int) -> dict[str, int]:
    schema = onnx.defs.get_schema(op_type, version, domain)
    return {name: int(cast(Any, a.type).value) for name, a in schema.attributes.items()}


def _highest_number(graph: ir.Graph) -> int:
    """Return the highest number in the names of subgraphs that are there already, as in a model that was loaded."""
    numbers = [int(found[1]) for sub in graph.subgraphs() if (found := re.search(r"(\d+)$", sub.name or ""))]
    return max(numbers, default=0)


class Ops:
    """Append nodes to `graph`.

    Python numbers and NumPy arrays among the inputs become Constant nodes, equal ones shared. A bare Python float takes
    the element type of the node's first real-valued input, so that `ops.Mul(x, 0.5)` works in any precision. Integer
    arithmetic on shapes (Shape, Gather, Concat, ...) is folded into constants where the dims are known.
    """

    def __init__(self, graph: ir.Graph, opset: int = OPSET, target: Target = PORTABLE) -> None:
        self.graph = graph
        self.opset = opset
        self.target = target
        self._constants: dict[tuple[Any, tuple[int, ...], bytes], ir.Value] = {}
        self._shared: dict[tuple[Any, ...], Any] = {}
        self.sizes: dict[str, ir.Value] = {}
        """The int64 scalars that hold the sizes of symbolic dims, as far as they were asked for."""
        self._prefix: str | None = None
        self._count = 0
        self._bodies: list[int] | None = None

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
        values = self._operands(inputs)
        attrs = self._attributes(op_type, attributes, domain) if attributes else []
        return self._append(op_type, values, attrs, outputs, name, domain)

    def shared(
        self, op_type: str, inputs: Sequence[Operand], attributes: dict[str, Any] | None = None, *, outputs: int = 1
    ) -> Any:
        """Return what an equal node emitted through here before gave, or append one; never for random operators."""
        values = self._operands(inputs)
        if op_type in _IMPURE:
            return self.emit(op_type, values, attributes, outputs=outputs)
        found = tuple(
            (k, tuple(v) if isinstance(v, list) else v) for k, v in sorted((attributes or {}).items()) if v is not None
        )
        key = (op_type, outputs, *(id(v) for v in values), found)
        if key not in self._shared:
            attrs = self._attributes(op_type, dict(found), "") if found else []
            self._shared[key] = self._append(op_type, values, attrs, outputs, None, "")
        return self._shared[key]

    def constant(self, value: Any, dtype: Any = None) -> ir.Value:
        """Return a Constant: lists and ints become int64, floats float32 unless `dtype` says otherwise."""
        array = np.asarray(value)
        if dtype is not None:
            array = array.astype(dtype.numpy() if isinstance(dtype, ir.DataType) else dtype)
        elif array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.int64 if array.size == 0 else np.float32)
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.Tensor(np.array(array, order="C"))
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
            out = node.outputs[0]
            out.dtype, out.shape, out.const_value = tensor.dtype, ir.Shape(array.shape), tensor
            self._add(node)
            self._constants[key] = out
        return self._constants[key]

    def subgraph(self, inputs: Sequence[tuple[str, ir.DataType, Dims | None]], name: str = "body") -> Ops:
        """Return the builder of a new subgraph, for Scan, Loop and If.

        `inputs` are name, element type and dims; the body may use values of this graph too. Append the results to
        `sub.graph.outputs` and pass `body=sub.graph`. Names within are unique in the whole model, as ONNX asks.
        """
        if self._bodies is None:
            self._bodies = self.graph.meta.setdefault("nnspec.bodies", [_highest_number(self.graph)])
        self._bodies[0] += 1
        prefix = f"{name}{self._bodies[0]}/"
        sub = Ops(ir.Graph([], [], nodes=[], name=prefix[:-1], opset_imports={"": self.opset}), self.opset, self.target)
        sub._prefix, sub._bodies = prefix, self._bodies
        for key, dtype, dims in inputs:
            sub.input(key, dtype, dims)
        return sub

    def input(self, name: str, dtype: ir.DataType, dims: Dims | None) -> ir.Value:
        """Append an input to the graph; return it."""
        shape = None if dims is None else ir.Shape(dims)
        value = ir.Value(name=(self._prefix or "") + name, type=ir.TensorType(dtype), shape=shape)
        self.graph.inputs.append(value)
        return value

    def prune(self, start: int, keep: Sequence[ir.Value] = ()) -> None:
        """Remove those nodes from number `start` on of which nothing is used; the values of `keep` count as used."""
        kept = {*keep, *self.graph.outputs}
        gone: set[ir.Value] = set()
        for node in reversed(list(self.graph)[start:]):
            if any(out in kept or out.uses() for out in node.outputs):
                continue
            for i in range(len(node.inputs)):
                node.replace_input_with(i, None)
            self.graph.remove(node)
            gone.update(node.outputs)
        if gone:
            self.sizes = {k: v for k, v in self.sizes.items() if v not in gone}
            self._constants = {k: v for k, v in self._constants.items() if v not in gone}
            self._shared = {k: v for k, v in self._shared.items() if not gone & {v, *(v if type(v) is tuple else ())}}

    def _append(
        self,
        op_type: str,
        values: list[ir.Value | None],
        attrs: list[ir.Attr],
        outputs: int,
        name: str | None,
        domain: str,
    ) -> Any:
        data = fold(op_type, values, attrs) if domain == "" else None
        if data is not None and name is None and data.static:
            return self.constant(np.array(data.array(), np.int64))
        types: list[Inferred | None] = infer(op_type, values, attrs, outputs, self.opset) if domain == "" else []
        node = ir.Node(domain, op_type, values, attrs, num_outputs=outputs, name=name)
        for out, found in zip(node.outputs, types, strict=False):
            if found is not None:
                out.dtype = found[0]
                if found[1] is not None:
                    out.shape = ir.Shape(found[1])
        if data is not None:
            remember(node.outputs[0], data)
        self._add(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def _add(self, node: ir.Node) -> None:
        if self._prefix is not None:
            # A subgraph names its values itself: it must not shadow a name of the graphs around it.
            for out in node.outputs:
                out.name = f"{self._prefix}{node.op_type}_{self._count}"
                self._count += 1
        self.graph.append(node)

    def _operands(self, inputs: Sequence[Operand]) -> list[ir.Value | None]:
        values: list[ir.Value | None] = []
        for value in inputs:
            if value is None or isinstance(value, ir.Value):
                values.append(value)
                continue
            dtype = None
            if isinstance(value, float):
                typed = (v.dtype for v in inputs if isinstance(v, ir.Value) and v.dtype is not None)
                dtype = next((d for d in typed if d.is_floating_point()), None)
            values.append(self.constant(value, dtype))
        while values and values[-1] is None:
            values.pop()
        return values

    def _attributes(self, op_type: str, attributes: dict[str, Any], domain: str) -> list[ir.Attr]:
        types = _attribute_types(op_type, domain, self.opset) if domain == "" else {}
        made = []
        for key, value in attributes.items():
            if value is None:
                continue
            if isinstance(value, ir.Attr):
                made.append(value)
            elif domain != "":
                made.append(ir.convenience.convert_attribute(key, value))
            elif key not in types:
                raise TypeError(f"{op_type} has no attribute {key!r}; it has {', '.join(types) or 'none'}")
            elif types[key] in _ATTR:
                made.append(_ATTR[types[key]](key, value))
            else:
                made.append(ir.convenience.convert_attribute(key, value))
        return made
