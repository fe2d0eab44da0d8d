"""Mixed precision: matrix products and convolutions in half precision, what loses digits there in float32.

`halve` rewrites a forward graph before it is differentiated, so that the gradients of its products are products in
half precision too; `protect` then gives the backward graph its float32 islands. Weights stay float32 and are cast in
the graph (Micikevicius et al. 2018).
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from nnspec.ops import dims_of

PRECISIONS = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
"""The element type of each half precision, by its name in a train block."""

_FLOAT = ir.DataType.FLOAT

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""What is worth the loss of digits: their kernels sum in float32."""

CARRIERS = frozenset(
    """Add Concat DepthToSpace Elu Expand Flatten Gather Identity LeakyRelu MaxPool Mul Neg Pad Relu Reshape
    Sigmoid Slice SpaceToDepth Split Squeeze Sub Tanh Tile Transpose Unsqueeze Where""".split()  # noqa: SIM905
)
"""What may run in half precision between products: it moves numbers, or each result needs a few of them only."""

_BESIDE = frozenset(
    """Cast Constant Equal GatherElements Greater GreaterOrEqual Less LessOrEqual Shape Sign Size Trilu""".split()  # noqa: SIM905
)
"""What further takes half precision in a backward graph without harm."""

NO_BFLOAT16 = frozenset(
    """Conv ConvTranspose CumSum Einsum Elu Equal GlobalAveragePool LeakyRelu Less Log LogSoftmax MaxPool OneHot Pad
    Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSumSquare Resize""".split()  # noqa: SIM905
)
"""Operators without bfloat16: ONNX Runtime 1.31 has no such kernel on CUDA, or, for Conv, ONNX none before opset 22."""


def takes(op_type: str, dtype: ir.DataType) -> bool:
    """Say whether an operator may run in a half precision."""
    known = op_type in PRODUCTS or op_type in CARRIERS or op_type in _BESIDE
    return known and not (dtype == ir.DataType.BFLOAT16 and op_type in NO_BFLOAT16)


def halve(graph: ir.Graph, dtype: ir.DataType, data: Iterable[ir.Value]) -> None:
    """Let the products of a float32 graph run in half precision, in place, and what lies between them.

    A carrier goes along where what it takes is half already, apart from parameters, or where all that read its result
    want it in half precision; so the float32 result of a normalisation is cast once, before its activation. `data` are
    the inputs that are no parameters. Bodies of Scan, Loop and If stay float32: a state there sums over many steps.
    """
    wanted = _wanted(graph, dtype)
    varies = set(data)
    casts = _Casts(graph)
    for node in list(graph):
        if any(v in varies for v in node.inputs):
            varies.update(node.outputs)
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            # What a body captures has the type that the body was built for.
            varies.update(node.outputs)
            _restore(graph, node, casts)
            continue
        real = [i for i, v in enumerate(node.inputs) if v is not None and v.dtype in (_FLOAT, dtype)]
        if _goes_half(node, dtype, real, varies, wanted):
            for i in real:
                node.replace_input_with(i, casts.to(node.inputs[i], dtype))
            for out in node.outputs:
                if out.dtype == _FLOAT:
                    out.dtype = dtype
        elif node.op_type not in ("Cast", "Shape", "Size") or node.domain:
            for i in real:
                node.replace_input_with(i, casts.to(node.inputs[i], _FLOAT))


def single(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Return a value of the graph in float32, cast where it is in half precision."""
    return _Casts(graph).to(value, _FLOAT) if value.dtype in PRECISIONS.values() else value


def protect(graph: ir.Graph, dtype: ir.DataType, results: Iterable[ir.Value | None]) -> list[ir.Value | None]:
    """Put float32 islands around every node that half precision would harm, or that lacks a kernel for it; in place.

    Reductions, quotients, powers and whatever is not known to be safe is computed in float32. Every value keeps its
    type; a cast to half precision and back again on the way from one island to the next is left out. Return where
    `results`, which may have no reader yet, are now.
    """
    casts = _Casts(graph)
    for node in list(graph):
        if takes(node.op_type, dtype) and not node.domain:
            continue
        if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        halves = [i for i, v in enumerate(node.inputs) if v is not None and v.dtype == dtype]
        for i in halves:
            node.replace_input_with(i, casts.to(node.inputs[i], _FLOAT))
        for out in [v for v in node.outputs if v.dtype == dtype]:
            _round(graph, node, out, dtype)
    replaced = _skip_detours(graph, dtype)
    return [None if v is None else replaced.get(v, v) for v in results]


class _Casts:
    """Casts of values, each made once, right behind what gives the value."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def to(self, value: ir.Value | None, dtype: ir.DataType) -> ir.Value:
        assert value is not None
        if value.dtype == dtype:
            return value
        key = (value, dtype)
        if key not in self._made:
            self._made[key] = self._make(value, dtype)
        return self._made[key]

    def _make(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        producer = value.producer()
        name = f"{value.name}/{dtype.name.lower()}" if value.name else None
        if producer is not None and producer.op_type == "Constant" and value.const_value is not None:
            tensor = ir.Tensor(value.const_value.numpy().astype(dtype.numpy()))
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1, name=name)
            node.outputs[0].const_value = tensor
        else:
            node = cast(value, dtype, name)
        node.outputs[0].dtype, node.outputs[0].shape = dtype, value.shape
        place_behind(self._graph, value, node)
        return node.outputs[0]


def cast(value: ir.Value, dtype: ir.DataType, name: str | None = None) -> ir.Node:
    """Return a Cast of a value that is not yet in a graph."""
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], num_outputs=1, name=name)


def place_behind(graph: ir.Graph, value: ir.Value, node: ir.Node) -> None:
    """Insert a node right behind what gives a value: at the front for inputs of the graph."""
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, node)
    elif len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)


def _goes_half(
    node: ir.Node, dtype: ir.DataType, real: list[int], varies: set[ir.Value], wanted: set[ir.Node]
) -> bool:
    if node.domain or not real or not takes(node.op_type, dtype):
        return False
    if any(v is not None and v.dtype == ir.DataType.DOUBLE for v in (*node.inputs, *node.outputs)):
        return False
    if node.op_type in PRODUCTS or node in wanted:
        return any(node.inputs[i] in varies for i in real)
    if node.op_type not in CARRIERS:
        return False
    halves = [node.inputs[i].dtype == dtype for i in real]  # type: ignore[union-attr]
    return any(halves) and all(h or node.inputs[i] not in varies for h, i in zip(halves, real, strict=True))


def _wanted(graph: ir.Graph, dtype: ir.DataType) -> set[ir.Node]:
    """Return the carriers of one tensor whose every reader is a product or is itself such a carrier."""
    found: set[ir.Node] = set()
    for node in reversed(list(graph)):
        tensors = [v for v in node.inputs if v is not None and v.dtype == _FLOAT and (dims_of(v) or ())]
        if node.op_type not in CARRIERS or not takes(node.op_type, dtype) or node.domain or len(tensors) != 1:
            continue
        real = [out for out in node.outputs if out.dtype == _FLOAT]
        uses = [use for out in real for use in out.uses()]
        if not uses or any(out.is_graph_output() for out in real):
            continue
        if all(u.node in found or (u.node.op_type in PRODUCTS and takes(u.node.op_type, dtype)) for u in uses):
            found.add(node)
    return found


def _restore(graph: ir.Graph, node: ir.Node, casts: _Casts) -> None:
    """Give a node with bodies its inputs, and what the bodies capture, in float32."""
    for i, value in enumerate(node.inputs):
        if value is not None and value.dtype in PRECISIONS.values():
            node.replace_input_with(i, casts.to(value, _FLOAT))
    for attribute in node.attributes.values():
        if attribute.type != ir.AttributeType.GRAPH:
            continue
        for inner in ir.traversal.RecursiveGraphIterator(attribute.value):
            for i, value in enumerate(inner.inputs):
                if value is not None and value.dtype in PRECISIONS.values():
                    inner.replace_input_with(i, casts.to(value, _FLOAT))


def _round(graph: ir.Graph, node: ir.Node, out: ir.Value, dtype: ir.DataType) -> None:
    """Let a node give float32 behind which a cast restores the type that its readers expect."""
    node_cast = cast(out, dtype)
    result = node_cast.outputs[0]
    result.dtype, result.shape = dtype, out.shape
    ir.convenience.replace_all_uses_with(out, result, replace_graph_outputs=True)
    node_cast.replace_input_with(0, out)
    result.name, out.name = out.name, (f"{out.name}/float32" if out.name else None)
    out.dtype = _FLOAT
    graph.insert_after(node, node_cast)


def _skip_detours(graph: ir.Graph, dtype: ir.DataType) -> dict[ir.Value, ir.Value]:
    """Take out casts from float32 to half and back; return what now stands for their results."""
    replaced: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type != "Cast" or node.outputs[0].dtype != _FLOAT or node.outputs[0].is_graph_output():
            continue
        source = node.inputs[0]
        first = source.producer() if source is not None and source.dtype == dtype else None
        if first is None or first.op_type != "Cast" or first.inputs[0] is None or first.inputs[0].dtype != _FLOAT:
            continue
        replaced[node.outputs[0]] = first.inputs[0]
        ir.convenience.replace_all_uses_with(node.outputs[0], first.inputs[0])
        graph.remove(node, safe=True)
    return replaced
