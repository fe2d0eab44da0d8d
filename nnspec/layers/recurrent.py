"""Recurrence: a cell run along a sequence, and what takes sequences apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnspec.dims import Dim, total
from nnspec.initializers import AnyInitializer
from nnspec.ir import Frozen, Network
from nnspec.layers.base import Layer, Lowering, ShapeError, TensorType, WeightSpec


class State(Frozen):
    """A state of a cell: the body's input of its name before the step, the value `next` after it."""

    name: str
    type: TensorType
    init: AnyInitializer | None = None
    """How it starts, where `start` is not given."""
    start: str | None = None
    """The body's value that it starts from: one that depends on weights alone."""
    next: str


class Recurrence(Layer, keyword="recurrence"):
    """A cell run along a sequence: the step's network, its states, and which way it runs.

    Inputs are the sequences `data` [T, ...], then what is `given`, then the `initial` states. Outputs are the sequence
    of each of the body's outputs, then each final state. Spec authors write `x -> lstm(256)`; see `cell`.
    """

    arity = None
    elementwise = True
    cell: str
    """The cell's name."""
    body: Network
    """One step: inputs are the data of one step, the given tensors, the states, and perhaps the time index."""
    data: tuple[str, ...]
    """The body's inputs that run in time."""
    given: tuple[str, ...] = ()
    """The body's inputs that stay."""
    states: tuple[State, ...]
    """The states in the order of their declaration."""
    initial: tuple[str, ...] = ()
    """The states that start from an input."""
    step: str | None = None
    """The body's input that holds the time index, counted from 0."""
    reverse: bool = False
    """Whether time runs backwards."""

    @property
    def title(self) -> str:
        return self.cell

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        length = x[0].shape[0]
        types = self.body.types()
        sequences = [
            TensorType(shape=(length, *types[o.value].shape), dtype=types[o.value].dtype) for o in self.body.outputs
        ]
        return (*sequences, *(s.type for s in self.states))

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        return {
            w.name: WeightSpec(shape=w.shape, init=w.init, kind=w.kind, decay=w.decay, fan=w.fan, trainable=w.trainable)
            for w in self.body.weights
        }

    def macs(self, *x: TensorType) -> Dim:
        types = self.body.types()
        step = total(node.layer.macs(*(types[v] for v in node.inputs)) for node in self.body.nodes)
        return step * x[0].shape[0]

    def window(self, *x: TensorType) -> str:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.recurrence(self, x, w)


class Last(Layer, keyword="last"):
    """The final step of a sequence: [T, ...] becomes [...]; of a masked sequence, the last step that counts."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank == 0:
            raise ShapeError("`last` needs a sequence, and gets a scalar", input=0)
        return x[0].with_shape(x[0].shape[1:])

    def window(self, *x: TensorType) -> str:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op = ctx.op
        lengths = ctx.lengths(ctx.inputs[0].shape[0])
        if lengths is None:
            return op.Gather(x[0], op.constant(-1), axis=1)
        at = op.Sub(op.Max(lengths, op.constant([1])), op.constant([1]))
        return op.GatherND(x[0], op.Unsqueeze(at, [1]), batch_dims=1)


class First(Layer, keyword="first"):
    """The first step of a sequence: [T, ...] becomes [...]."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank == 0:
            raise ShapeError("`first` needs a sequence, and gets a scalar", input=0)
        return x[0].with_shape(x[0].shape[1:])

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Gather(x[0], ctx.op.constant(0), axis=1)
