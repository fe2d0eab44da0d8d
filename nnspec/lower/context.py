"""What a layer sees while it is lowered: the builder, sizes that are known when the graph runs, masks, randomness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from nnspec.diagnostics import NnspecError
from nnspec.dims import Dim, Symbolic
from nnspec.ir import Network, Node, TensorType
from nnspec.ops import Ops

BATCH = "batch"
"""The name of the batch axis in every exported model."""

STOP_GRADIENT = "nnspec.stop_gradient"
"""Metadata key of an Identity node through which no gradient flows."""

RECOMPUTE = "nnspec.recompute"
"""Metadata key of a Scan node whose gradient computes the values within a step again instead of storing them."""

OF_BATCH = "nnspec.of_batch"
"""Metadata key of a BatchNormalization whose mean, 0, and variance are those of its very input."""

SEGMENT = "nnspec.segment"
"""Metadata key of nodes whose values are to be computed again on the way back: the name of their segment."""

DTYPES = {"float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64, "bool": ir.DataType.BOOL}

Uniform = Callable[[Ops, ir.Value, str], ir.Value]
"""Makes random numbers of a value's shape for the layer of a name."""


@dataclass(frozen=True)
class Options:
    """How a network is lowered."""

    training: bool = False
    """Whether dropout drops and batch normalisation uses the batch."""
    uniform: Uniform | None = None
    """Draws the random numbers of training."""
    unroll: bool = False
    """Whether recurrences become straight-line graphs; their length must be a number."""
    carry: bool = False
    """Whether recurrent states go on from batch to batch."""
    fused: bool = True
    """Whether inference uses ONNX's LSTM, GRU and RNN where a cell is one of them."""


class LoweringError(NnspecError):
    """A network that has no graph with the options given."""


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
    network: Network | None = None
    """The network; `generate` runs a part of it again."""
    carries: dict[str, tuple[ir.Value, ir.Value]] = field(default_factory=dict)
    """The recurrent states that go on from batch to batch: a graph input, and what it becomes."""

    @property
    def graph(self) -> ir.Graph:
        """The graph under construction."""
        return self.ops.graph


def value_of(name: str, type_: TensorType) -> ir.Value:
    """Return a graph input for a type: its batch axis is symbolic, and so are its symbolic dims."""
    dims: list[int | str] = [d if isinstance(d, int) else str(d) for d in type_.shape]
    shape = ir.Shape([BATCH, *dims] if type_.batch else dims)
    return ir.Value(name=name, type=ir.TensorType(DTYPES[type_.dtype]), shape=shape)


class Sizes:
    """What the graph knows of symbolic dims, batch size and sequence lengths while it runs."""

    batch_name: str = BATCH
    """What the batch axis is called: ONNX Runtime plans memory by the names of sizes."""

    def __init__(
        self, ops: Ops, network: Network, inputs: Mapping[str, ir.Value], used: Collection[str] | None = None
    ) -> None:
        self.ops = ops
        self.masks = network.masks
        self.inputs = inputs
        self._batch: ir.Value | None = None
        self._dims: dict[str, ir.Value] = {}
        self._masks: dict[tuple[str, int, int], ir.Value] = {}
        # Sizes are read off inputs that the graph needs anyway.
        order = sorted(network.inputs, key=lambda i: used is not None and i.name not in used)
        self._batched = [inputs[i.name] for i in order if i.type.batch]
        self._where = {
            str(d): (inputs[i.name], at + i.type.batch)
            for i in reversed(order)
            for at, d in enumerate(i.type.shape)
            if isinstance(d, Symbolic)
        }

    def batch(self) -> ir.Value:
        """Return the number of samples as int64 [1]."""
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
        known = {
            s: self.inputs[self.masks[s]] if s in self.masks else self.dim(Symbolic.symbol(s)) for s in dim.symbols
        }
        lengths = self.evaluate(dim, known)
        return lengths if str(dim) in self.masks else self.ops.Max(lengths, self.ops.constant([0]))

    def mask(self, type_: TensorType) -> ir.Value | None:
        """Return 1 for what counts and 0 for padding, broadcastable to [batch, ...]; None where nothing is masked."""
        op, keep = self.ops, None
        for i, dim in enumerate(type_.shape):
            lengths = self.lengths(dim)
            if lengths is None:
                continue
            key = (str(dim), i, type_.rank)
            if key not in self._masks:
                steps = op.Range(op.constant(0), op.Squeeze(self.dim(dim), [0]), op.constant(1))
                valid = op.Cast(
                    op.Less(op.Unsqueeze(steps, [0]), op.Unsqueeze(lengths, [1])), to=int(ir.DataType.FLOAT)
                )
                wide = [a + 1 for a in range(type_.rank) if a != i]
                self._masks[key] = op.Unsqueeze(valid, wide) if wide else valid
            valid = self._masks[key]
            keep = valid if keep is None else op.Mul(keep, valid)
        return keep


class FoldedSizes(Sizes):
    """The sizes where time is folded into the batch: [T, batch, ...] seen as [T batch, ...], time-major."""

    def __init__(self, outer: Sizes, length: Dim) -> None:
        self.ops, self.masks, self.inputs = outer.ops, outer.masks, outer.inputs
        self._outer, self._length = outer, length
        self.batch_name = f"{outer.batch_name}*{length}"
        self._batch = None
        self._masks = {}

    def batch(self) -> ir.Value:
        if self._batch is None:
            self._batch = self.ops.Mul(self._outer.batch(), self._outer.dim(self._length))
        return self._batch

    def dim(self, dim: Dim) -> ir.Value:
        return self._outer.dim(dim)

    def lengths(self, dim: Dim) -> ir.Value | None:
        lengths = self._outer.lengths(dim)
        return None if lengths is None else self.ops.Tile(lengths, self._outer.dim(self._length))


class Context:
    """What one layer sees while it is lowered; see `nnspec.layers.base.Lowering`."""

    def __init__(
        self,
        node: Node,
        inputs: tuple[TensorType, ...],
        lowered: Lowered,
        sizes: Sizes,
        options: Options,
        path: str = "",
    ) -> None:
        self.node = node
        self.name = path + node.name
        self.inputs = inputs
        self.outputs = node.outputs
        self.options = options
        self.training = options.training
        self.lowered = lowered
        self.sizes = sizes
        self.op = lowered.ops
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
        shape = self.op.Concat(self.batch_size(), *(self.sizes.dim(d) for d in type_.shape), axis=0)
        expanded: ir.Value = self.op.Expand(value, shape)
        return expanded

    def batch_size(self) -> ir.Value:
        return self.op.constant([1]) if self._unbatched else self.sizes.batch()

    def dim(self, dim: Dim) -> ir.Value:
        return self.sizes.dim(dim)

    def shape(self, type_: TensorType) -> ir.Value:
        dims = list(type_.shape)
        if all(isinstance(d, int) for d in dims):
            if type_.batch and not self._unbatched:
                # 0 keeps the batch axis in Reshape; Expand and others need the number itself.
                return (
                    self.op.constant([-1, *dims])
                    if 0 not in dims
                    else self.op.Concat(self.batch_size(), self.op.constant(dims), axis=0)
                )
            return self.op.constant([1, *dims] if self._unbatched else dims)
        parts = [self.batch_size()] if type_.batch or self._unbatched else []
        shape: ir.Value = self.op.Concat(*parts, *(self.dim(d) for d in dims), axis=0)
        return shape

    def lengths(self, dim: Dim) -> ir.Value | None:
        return self.sizes.lengths(dim)

    def mask(self, value: ir.Value, type_: TensorType) -> ir.Value | None:
        return self.sizes.mask(type_)

    def stop(self, value: ir.Value, op: Ops | None = None) -> ir.Value:
        out: ir.Value = (op or self.op).Identity(value)
        producer = out.producer()
        assert producer is not None
        producer.metadata_props[STOP_GRADIENT] = "1"
        return out

    def of_batch(self, value: ir.Value) -> ir.Value:
        producer = value.producer()
        assert producer is not None
        producer.metadata_props[OF_BATCH] = "1"
        return value

    def uniform(self, like: ir.Value) -> ir.Value:
        if self.options.uniform is None:
            raise ValueError("a graph with random numbers needs a source of them")
        return self.options.uniform(self.op, like, self.name)

    def recurrence(self, layer: Any, x: Sequence[ir.Value], w: Mapping[str, ir.Value]) -> tuple[ir.Value, ...]:
        from nnspec.lower.recurrence import lower_recurrence

        return lower_recurrence(self, layer, x, w)

    def generate(self, layer: Any) -> tuple[ir.Value, ...]:
        from nnspec.lower.generate import lower_generate

        return lower_generate(self, layer)

    def update(self, role: str, value: ir.Value) -> None:
        # A shared layer is used several times: each use is given what the one before it left (see `lower`).
        self.lowered.updates[self.node.weights[role]] = value
