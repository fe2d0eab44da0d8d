"""From the IR to an ONNX graph: each layer lowers itself; this file names, aligns batches and knows sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from nnspec.dims import Dim, Symbolic
from nnspec.ir import Network, Node, TensorType
from nnspec.ops import IR_VERSION, OPSET, Ops

BATCH = "batch"
"""The name of the batch axis in every exported model."""

STOP_GRADIENT = "nnspec.stop_gradient"
"""Metadata key of an Identity node through which no gradient flows."""

DTYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64, "bool": ir.DataType.BOOL}

Uniform = Callable[[Ops, ir.Value, str], ir.Value]
"""Makes random numbers of a value's shape for the layer of a name."""


@dataclass
class Lowered:
    """A network as a graph under construction, and where each of its names lives in it."""

    ops: Ops
    values: dict[str, ir.Value]
    """Every value of the network, by its IR name."""
    weights: dict[str, ir.Value]
    """Every weight: a value that is not yet an input nor an initializer of the graph."""
    updates: dict[str, ir.Value] = field(default_factory=dict)
    """What each buffer holds after a training step, by the buffer's name."""

    @property
    def graph(self) -> ir.Graph:
        """The graph under construction."""
        return self.ops.graph


def value_of(name: str, type_: TensorType) -> ir.Value:
    """Return a graph input for a type: its batch axis is symbolic, and so are its symbolic dims."""
    dims: list[int | str] = [d if isinstance(d, int) else str(d) for d in type_.shape]
    shape = ir.Shape([BATCH, *dims] if type_.batch else dims)
    return ir.Value(name=name, type=ir.TensorType(DTYPES[type_.dtype]), shape=shape)


def lower(network: Network, *, training: bool = False, uniform: Uniform | None = None) -> Lowered:
    """Return the network's forward graph.

    Inputs are graph inputs; weights are left to the caller, which makes them initializers (export) or inputs (training).
    `uniform` draws the random numbers that dropout needs in training.
    """
    inputs = {i.name: value_of(i.name, i.type) for i in network.inputs}
    graph = ir.Graph(list(inputs.values()), [], nodes=[], opset_imports={"": OPSET}, name=network.name)
    weights = {
        w.name: ir.Value(name=w.name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(w.shape)) for w in network.weights
    }
    lowered = Lowered(Ops(graph), dict(inputs), weights)
    sizes = Sizes(lowered.ops, network, inputs)
    types = network.types()
    for node in network.nodes:
        before = len(graph)
        context = Context(node, tuple(types[v] for v in node.inputs), lowered, sizes, training, uniform)
        x = [lowered.values[v] for v in node.inputs]
        w = {role: weights[name] for role, name in node.weights.items()}
        results = context.run(x, w)
        for i, value in enumerate(results):
            lowered.values[node.output(i)] = value
        _name(graph, before, node, results)
    return lowered


def _name(graph: ir.Graph, before: int, node: Node, results: list[ir.Value]) -> None:
    """Name the ONNX nodes that a layer became after its path."""
    seen: dict[str, int] = {}
    fresh = []
    for onnx_node in reversed(graph):
        if len(graph) - len(fresh) <= before:
            break
        fresh.append(onnx_node)
    for onnx_node in reversed(fresh):
        count = seen[onnx_node.op_type] = seen.get(onnx_node.op_type, 0) + 1
        onnx_node.name = f"{node.name}/{onnx_node.op_type}{count if count > 1 else ''}"
        for i, out in enumerate(onnx_node.outputs):
            out.name = f"{onnx_node.name}_output{i or ''}"
    for i, value in enumerate(results):
        producer = value.producer()
        if producer is not None and producer in fresh and producer.op_type != "Constant":
            value.name = node.output(i)


class Sizes:
    """What the graph knows of symbolic dims, batch size and sequence lengths while it runs."""

    def __init__(self, ops: Ops, network: Network, inputs: Mapping[str, ir.Value]) -> None:
        self.ops = ops
        self.masks = network.masks
        self.inputs = inputs
        self._batch: ir.Value | None = None
        self._dims: dict[str, ir.Value] = {}
        self._batched = [inputs[i.name] for i in network.inputs if i.type.batch]
        self._where = {
            str(d): (inputs[i.name], at + i.type.batch)
            for i in reversed(network.inputs)
            for at, d in enumerate(i.type.shape)
            if isinstance(d, Symbolic)
        }

    def batch(self) -> ir.Value:
        if self._batch is None:
            self._batch = self.ops.Shape(self._batched[0], start=0, end=1) if self._batched else self.ops.constant([1])
        return self._batch

    def dim(self, dim: Dim) -> ir.Value:
        """Return a dim as int64 [1]."""
        if isinstance(dim, int):
            return self.ops.constant([dim])
        key = str(dim)
        if key not in self._dims:
            if key in self._where:
                value, axis = self._where[key]
                self._dims[key] = self.ops.Shape(value, start=axis, end=axis + 1)
            else:
                self._dims[key] = self.evaluate(dim, {s: self.dim(Symbolic.symbol(s)) for s in dim.symbols})
        return self._dims[key]

    def evaluate(self, dim: Dim, values: Mapping[str, ir.Value]) -> ir.Value:
        """Evaluate a dim's expression on int64 values, such as each sample's own length."""
        op = self.ops
        if isinstance(dim, int):
            return op.constant([dim])
        total: ir.Value | None = None
        for monomial, coefficient in dim.terms.values():
            term: ir.Value | None = None
            for atom in monomial:
                if isinstance(atom, str):
                    factor = values[atom]
                else:
                    numerator = self.evaluate(atom.numerator, values)
                    denominator = self.evaluate(atom.denominator, values)
                    # ONNX divides integers towards zero; a floor needs the remainder taken off first.
                    factor = op.Div(op.Sub(numerator, op.Mod(numerator, denominator)), denominator)
                term = factor if term is None else op.Mul(term, factor)
            if term is None:
                term = op.constant([coefficient])
            elif coefficient != 1:
                term = op.Mul(term, op.constant([coefficient]))
            total = term if total is None else op.Add(total, term)
        assert total is not None
        return total

    def lengths(self, dim: Dim) -> ir.Value | None:
        """Return the samples' own lengths along a dim as int64 [batch]; None where it is not masked."""
        if isinstance(dim, int) or not dim.symbols & self.masks.keys():
            return None
        known = {s: self.inputs[self.masks[s]] if s in self.masks else self.dim(Symbolic.symbol(s)) for s in dim.symbols}
        lengths = self.evaluate(dim, known)
        return lengths if isinstance(dim, Symbolic) and str(dim) in self.masks else self.ops.Max(lengths, self.ops.constant([0]))


class Context:
    """What one layer sees while it is lowered; see `nnspec.layers.base.Lowering`."""

    def __init__(
        self,
        node: Node,
        inputs: tuple[TensorType, ...],
        lowered: Lowered,
        sizes: Sizes,
        training: bool,
        uniform: Uniform | None,
    ) -> None:
        self.node = node
        self.name = node.name
        self.inputs = inputs
        self.outputs = node.outputs
        self.training = training
        self.op = lowered.ops
        self._lowered = lowered
        self._sizes = sizes
        self._uniform = uniform
        self._unbatched = False

    def run(self, x: list[ir.Value], w: dict[str, ir.Value]) -> list[ir.Value]:
        """Lower the node; give tensors without a batch axis one where the layer counts on it."""
        layer = self.node.layer
        if not layer.elementwise and self.inputs and not all(t.batch for t in self.inputs):
            if any(t.batch for t in self.inputs):
                x = [v if t.batch else self._expand(v, t) for v, t in zip(x, self.inputs, strict=True)]
                self.inputs = tuple(TensorType(shape=t.shape, dtype=t.dtype) for t in self.inputs)
            else:
                self._unbatched = True
                x = [self.op.Unsqueeze(v, [0]) for v in x]
        result = layer.lower(self, *x, **w)
        results = list(result) if isinstance(result, tuple | list) else [result]
        if self._unbatched and all(not t.batch for t in self.outputs):
            results = [self.op.Squeeze(v, [0]) for v in results]
        return results

    def _expand(self, value: ir.Value, type_: TensorType) -> ir.Value:
        shape = self.op.Concat(self.batch_size(), *(self._sizes.dim(d) for d in type_.shape), axis=0)
        return self.op.Expand(value, shape)

    def batch_size(self) -> ir.Value:
        return self.op.constant([1]) if self._unbatched else self._sizes.batch()

    def dim(self, dim: Dim) -> ir.Value:
        return self._sizes.dim(dim)

    def shape(self, type_: TensorType) -> ir.Value:
        dims = list(type_.shape)
        if all(isinstance(d, int) for d in dims):
            if type_.batch and not self._unbatched:
                # 0 keeps the batch axis in Reshape; Expand and others need the number itself.
                return self.op.constant([-1, *dims]) if 0 not in dims else self.op.Concat(self.batch_size(), self.op.constant(dims), axis=0)
            return self.op.constant([1, *dims] if self._unbatched else dims)
        parts = [self.batch_size()] if type_.batch or self._unbatched else []
        return self.op.Concat(*parts, *(self.dim(d) for d in dims), axis=0)

    def lengths(self, dim: Dim) -> ir.Value | None:
        return self._sizes.lengths(dim)

    def mask(self, value: ir.Value, type_: TensorType) -> ir.Value | None:
        op, keep = self.op, None
        for i, dim in enumerate(type_.shape):
            lengths = self.lengths(dim)
            if lengths is None:
                continue
            steps = op.Range(op.constant(0), op.Squeeze(self.dim(dim), [0]), op.constant(1))
            valid = op.Cast(op.Less(op.Unsqueeze(steps, [0]), op.Unsqueeze(lengths, [1])), to=int(ir.DataType.FLOAT))
            wide = [a + 1 for a in range(type_.rank) if a != i]
            valid = op.Unsqueeze(valid, wide) if wide else valid
            keep = valid if keep is None else op.Mul(keep, valid)
        return keep

    def stop(self, value: ir.Value) -> ir.Value:
        out: ir.Value = self.op.Identity(value)
        producer = out.producer()
        assert producer is not None
        producer.metadata_props[STOP_GRADIENT] = "1"
        return out

    def uniform(self, like: ir.Value) -> ir.Value:
        if self._uniform is None:
            raise ValueError("a graph with random numbers needs a source of them")
        return self._uniform(self.op, like, self.name)

    def update(self, role: str, value: ir.Value) -> None:
        self._lowered.updates[self.node.weights[role]] = value


def forward_model(network: Network, weights: Mapping[str, ir.TensorProtocol] | None = None) -> ir.Model:
    """Return the inference model: weights as initializers, outputs under their public names.

    Without `weights` they stay graph inputs.
    """
    lowered = lower(network)
    finish_outputs(lowered, {o.name: lowered.values[o.value] for o in network.outputs})
    for weight in network.weights:
        value = lowered.weights[weight.name]
        if weights is None:
            lowered.graph.inputs.append(value)
        else:
            value.const_value = weights[weight.name]
            lowered.graph.register_initializer(value)
    return ir.Model(lowered.graph, ir_version=IR_VERSION, producer_name="nnspec")


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
