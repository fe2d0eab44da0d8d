"""From the IR to an ONNX graph: each layer lowers itself; this file names, aligns batches and knows sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from nnspec.diagnostics import suggest
from nnspec.ir import Network, Node
from nnspec.layers.sequence import Generate
from nnspec.lower.context import (
    BATCH,
    DTYPES,
    OF_BATCH,
    RECOMPUTE,
    SEGMENT,
    STOP_GRADIENT,
    Context,
    Lowered,
    LoweringError,
    Options,
    Sizes,
    Uniform,
    value_of,
)
from nnspec.lower.generate import path_of
from nnspec.ops import IR_VERSION, OPSET, Ops

__all__ = [
    "BATCH",
    "DTYPES",
    "OF_BATCH",
    "RECOMPUTE",
    "SEGMENT",
    "STOP_GRADIENT",
    "Lowered",
    "Options",
    "Uniform",
    "finish_outputs",
    "forward_model",
    "lower",
    "value_of",
]


def lower(
    network: Network,
    *,
    training: bool = False,
    uniform: Uniform | None = None,
    unroll: bool = False,
    carry: bool = False,
    fused: bool = True,
    ops: Ops | None = None,
    wanted: Collection[str] | None = None,
) -> Lowered:
    """Return the network's forward graph, in the graph of `ops` where that is given.

    Where only some values are `wanted`, the others are left out, and so is what only they need.
    Inputs are graph inputs; weights are left to the caller: initializers for export, inputs for training.
    See `Options` for the switches. Raises LoweringError where the network has no such graph.
    """
    options = Options(training, uniform, unroll, carry, fused)
    inputs = {i.name: value_of(i.name, i.type) for i in network.inputs}
    ops = ops or Ops(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=network.name))
    graph = ops.graph
    graph.inputs.extend(inputs.values())
    weights = {
        w.name: ir.Value(name=w.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(w.shape))
        for w in network.weights
    }
    lowered = Lowered(ops, dict(inputs), weights, network=network)
    nodes, used = _needed(network, wanted)
    sizes = Sizes(lowered.ops, network, inputs, used)
    types = network.types()
    for node in nodes:
        before = len(graph)
        context = Context(node, tuple(types[v] for v in node.inputs), lowered, sizes, options)
        x = [] if isinstance(node.layer, Generate) else [lowered.values[v] for v in node.inputs]
        # A layer used twice updates its buffers twice, the second time what the first one left.
        w = {role: lowered.updates.get(name, weights[name]) for role, name in node.weights.items()}
        results = context.run(x, w)
        for i, value in enumerate(results):
            lowered.values[node.output(i)] = value
        _name(graph, before, node, results, node.recompute if training else "")
    return lowered


def _needed(network: Network, wanted: Collection[str] | None) -> tuple[Sequence[Node], set[str]]:
    """Return the nodes that some values need, in order, and every value that these read."""
    needed = {node.output(i) for node in network.nodes for i in range(len(node.outputs))}
    needed = needed if wanted is None else set(wanted)
    kept = []
    for node in reversed(network.nodes):
        if needed.intersection(node.output(i) for i in range(len(node.outputs))):
            kept.append(node)
            needed.update(path_of(network, node).outside if isinstance(node.layer, Generate) else node.inputs)
    return kept[::-1], needed


def _name(graph: ir.Graph, before: int, node: Node, results: list[ir.Value], segment: str) -> None:
    """Name the ONNX nodes that a layer became after its path, and mark those of a segment to compute again."""
    seen: dict[str, int] = {}
    fresh: list[ir.Node] = []
    for onnx_node in reversed(graph):
        if len(graph) - len(fresh) <= before:
            break
        fresh.append(onnx_node)
    for onnx_node in reversed(fresh):
        if segment and onnx_node.op_type != "Constant":
            onnx_node.metadata_props[SEGMENT] = segment
        count = seen[onnx_node.op_type] = seen.get(onnx_node.op_type, 0) + 1
        onnx_node.name = f"{node.name}/{onnx_node.op_type}{count if count > 1 else ''}"
        for i, out in enumerate(onnx_node.outputs):
            out.name = f"{onnx_node.name}_output{i or ''}"
    for i, value in enumerate(results):
        producer = value.producer()
        if producer is not None and producer in fresh and producer.op_type != "Constant":
            value.name = node.output(i)


def forward_model(
    network: Network,
    weights: Mapping[str, ir.TensorProtocol] | None = None,
    *,
    unroll: bool = False,
    fused: bool = True,
    outputs: Sequence[str] | None = None,
) -> ir.Model:
    """Return the inference model: weights as initializers, outputs under their public names.

    Without `weights` they stay graph inputs. Where only some `outputs` are named, the model has these, in that order,
    and only the inputs and weights that they need. Raises LoweringError where the network has no output of a name.
    """
    values = {o.name: o.value for o in network.outputs}
    for name in outputs or ():
        if name not in values:
            help = suggest(name, values, what="outputs")
            raise LoweringError(f"the network {network.name} has no output `{name}`: {help}")
    chosen = values if outputs is None else {name: values[name] for name in outputs}
    lowered = lower(network, unroll=unroll, fused=fused, wanted=None if outputs is None else chosen.values())
    finish_outputs(lowered, {name: lowered.values[value] for name, value in chosen.items()})
    model = ir.Model(lowered.graph, ir_version=IR_VERSION, producer_name="nnspec")
    types = network.types()
    for value, (name, source) in zip(model.graph.outputs, chosen.items(), strict=True):
        # Inference loses the names of symbolic sizes on the way; the IR knows them.
        value.shape = value_of(name, types[source]).shape
    RemoveUnusedNodesPass()(model)
    if outputs is not None:
        _prune(model)
    for weight in network.weights:
        value = lowered.weights[weight.name]
        if outputs is not None and not value.uses() and not value.is_graph_output():
            continue
        if weights is None:
            lowered.graph.inputs.append(value)
        else:
            value.const_value = weights[weight.name]
            lowered.graph.register_initializer(value)
    return model


def _prune(model: ir.Model) -> None:
    """Leave out the inputs that no output needs."""
    graph = model.graph
    for value in [v for v in graph.inputs if not v.uses() and not v.is_graph_output()]:
        graph.inputs.remove(value)


def finish_outputs(lowered: Lowered, outputs: Mapping[str, ir.Value]) -> None:
    """Make values the graph's outputs under given names, and free those names where other values hold them."""
    graph = lowered.graph
    taken = {id(v) for v in graph.inputs} | {id(v) for v in lowered.weights.values()}
    holders = {v.name: v for node in graph for v in node.outputs if v.name}
    for name, value in outputs.items():
        holder = holders.get(name)
        if holder is not None and holder is not value:
            holder.name = f"{name}/value"
        if id(value) in taken or (value.producer() is not None and value.producer().op_type == "Constant"):  # type: ignore[union-attr]
            value = lowered.ops.Identity(value)
        taken.add(id(value))
        value.name = name
        graph.outputs.append(value)
