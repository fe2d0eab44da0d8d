"""What lies between a decoder's input and its logits, and whether each step of it sees earlier steps only.

Generating feeds a network what it said itself, one step after the other. That makes sense where step t of the logits
depends on steps 0 to t of the input alone; a step that sees later ones has seen, in training, what it is to say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch

from nnspec.dims import Symbolic, product
from nnspec.ir import Input, Layer, Node, ShapeError, TensorType
from nnspec.layers.activation import Maxout, Prelu, Softmax
from nnspec.layers.base import axis_of
from nnspec.layers.conv import Conv
from nnspec.layers.dense import Dense, Embedding
from nnspec.layers.math import MatMul
from nnspec.layers.norm import BatchNorm, Dropout, LayerNorm
from nnspec.layers.recurrent import Recurrence
from nnspec.layers.reduce import ArgMax, CumSum, Normalize, Reduction, TopK
from nnspec.layers.shape import Concat, Repeat, Reshape, Reverse, Slice, Split, Squeeze, Stack, Transpose, Unsqueeze


@dataclass(frozen=True)
class Path:
    """The part of a network that turns a decoder's input into its logits."""

    nodes: tuple[Node, ...]
    """What has to be computed anew as the input grows, in order."""
    outside: tuple[str, ...]
    """The values that it reads and that the decoder's input has no part in, such as an encoder's."""
    symbol: str
    """The length of the decoder's input."""
    stepwise: bool
    """Whether one step follows from the one before through the states of recurrences, so that none is repeated."""


@singledispatch
def joins(layer: Layer, at: int, x: Sequence[TensorType]) -> Collection[int]:
    """Return the axes of input `at` along which one element of the output may depend on several of the input."""
    return () if layer.elementwise and layer.window(*x) is None else range(x[at].rank)


@joins.register
def _(layer: Recurrence, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [0] if at < len(layer.data) else range(x[at].rank)


@joins.register
def _(layer: MatMul, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [max(x[at].rank - 1 - at, 0)]


@joins.register(Dense)
@joins.register(Normalize)
@joins.register(TopK)
def _(layer: Layer, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [x[at].rank - 1]


@joins.register
def _(layer: LayerNorm, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [x[at].rank - 1] if x[at].rank < 3 else range(x[at].rank)


@joins.register(Embedding)
@joins.register(Prelu)
@joins.register(Dropout)
@joins.register(BatchNorm)
@joins.register(Transpose)
@joins.register(Unsqueeze)
@joins.register(Squeeze)
@joins.register(Repeat)
@joins.register(Stack)
def _(layer: Layer, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return ()


@joins.register(Softmax)
@joins.register(ArgMax)
@joins.register(CumSum)
@joins.register(Slice)
@joins.register(Reverse)
def _(layer: Softmax | ArgMax | CumSum | Slice | Reverse, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [axis_of(layer.axis, x[at].rank)]


@joins.register
def _(layer: Reduction, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return range(x[at].rank) if layer.axis is None else [axis_of(layer.axis, x[at].rank)]


@joins.register
def _(layer: Maxout, at: int, x: Sequence[TensorType]) -> Collection[int]:
    return [layer._axis(x[at])]


@joins.register(Concat)
@joins.register(Split)
def _(layer: Concat | Split, at: int, x: Sequence[TensorType]) -> Collection[int]:
    rank = x[at].rank
    return [axis_of(layer.axis, rank) if layer.axis is not None else (0 if rank >= 3 else rank - 1)]


@joins.register
def _(layer: Reshape, at: int, x: Sequence[TensorType]) -> Collection[int]:
    """An axis survives where one of its size stands behind as many elements as before."""
    before, after = x[at].shape, layer.infer(x[at]).shape
    kept = {(size, product(after[:i])) for i, size in enumerate(after)}
    return [i for i, size in enumerate(before) if (size, product(before[:i])) not in kept]


def looks_back(layer: Layer, at: int, axis: int, x: Sequence[TensorType]) -> bool:
    """Return whether what a layer joins along an axis of input `at` are an element and earlier ones."""
    match layer:
        case Recurrence():
            return at < len(layer.data) and not layer.reverse
        case CumSum():
            return True
        case Conv() if axis > 0:
            kernel, stride, dilation, begins, ends = layer._geometry(x[0])
            extent = dilation[axis - 1] * (kernel[axis - 1] - 1)
            return stride[axis - 1] == 1 and begins[axis - 1] == extent and ends[axis - 1] == 0
    return False


def trace(inputs: Sequence[Input], nodes: Sequence[Node], logits: str, feed: str, *, check: bool = True) -> Path:
    """Return what lies between two values of a network.

    Raises ShapeError where the one does not depend on the other, where the length of the input is not its own, and,
    unless `check` is off, where a step sees later ones.
    """
    types = {i.name: i.type for i in inputs} | {n.output(i): t for n in nodes for i, t in enumerate(n.outputs)}
    symbol = _own_length(types[feed])
    inside, foreign = _inside(inputs, nodes, logits, feed, symbol)
    if logits not in {n.output(i) for n in inside for i in range(len(n.outputs))} or not _depends(nodes, logits, feed):
        raise ShapeError(
            "the logits do not depend on the `feed`",
            input=1,
            help="`feed` is the decoder's input, from which `logits` are computed, as in `generate(logits, feed)`",
        )
    made = {feed} | {n.output(i) for n in inside for i in range(len(n.outputs))}
    outside = tuple(dict.fromkeys(v for n in inside for v in n.inputs if v not in made))
    for value in outside:
        if value in foreign:
            raise ShapeError(
                f"the input `{foreign[value]}` has the length `{symbol}` of the `feed`, which grows while generating",
                input=1,
                help=f"give the `feed` a length of its own, as in `input {feed}: int[N]`",
            )
    stepwise = _follow(inside, types, feed, symbol, check)
    return Path(tuple(inside), outside, symbol, stepwise)


def _own_length(type_: TensorType) -> str:
    """Return the symbol of the input's length."""
    length = type_.shape[0] if type_.rank else None
    if (
        type_.dtype != "int64"
        or type_.rank != 1
        or not isinstance(length, Symbolic)
        or str(length) not in length.symbols
    ):
        raise ShapeError(
            f"the `feed` must be a sequence of whole numbers of any length, and is {type_}",
            input=1,
            label=f"gives {type_}",
            help="declare it as `int[N]`, with a name of its own as its length",
        )
    return str(length)


def _depends(nodes: Sequence[Node], value: str, on: str) -> bool:
    reached = {on}
    for node in nodes:
        if reached.intersection(node.inputs):
            reached.update(node.output(i) for i in range(len(node.outputs)))
    return value in reached


def _inside(
    inputs: Sequence[Input], nodes: Sequence[Node], logits: str, feed: str, symbol: str
) -> tuple[list[Node], Mapping[str, str]]:
    """Return what grows with the input, and the values whose length is the input's but comes from another one."""
    needed = {logits}
    wanted = []
    for node in reversed(nodes):
        if needed.intersection(node.output(i) for i in range(len(node.outputs))):
            wanted.append(node)
            needed.update(v for v in node.inputs if v != feed)
    grows = {feed}
    of = {i.name: i.name for i in inputs if i.name != feed and symbol in i.type.symbols}
    inside = []
    for node in reversed(wanted):
        outputs = [node.output(i) for i in range(len(node.outputs))]
        sized = any(symbol in t.symbols for t in node.outputs)
        source = next((of[v] for v in node.inputs if v in of), None)
        # Something repeated once for each step has the length without having read it off another input.
        if grows.intersection(node.inputs) or (sized and source is None):
            grows.update(outputs)
            inside.append(node)
        elif source is not None:
            of |= dict.fromkeys(outputs, source)
    foreign = {v: name for v, name in of.items() if v in {i.name for i in inputs} or _sized(nodes, v, symbol)}
    return inside, foreign


def _sized(nodes: Sequence[Node], value: str, symbol: str) -> bool:
    return any(symbol in t.symbols for n in nodes for i, t in enumerate(n.outputs) if n.output(i) == value)


def _follow(inside: Sequence[Node], types: Mapping[str, TensorType], feed: str, symbol: str, check: bool) -> bool:
    """Follow the axis of time through the nodes; return whether states are all that one step leaves to the next."""
    stepwise = True
    made = {feed}
    for node in inside:
        x = [types[v] for v in node.inputs]
        for at, value in enumerate(node.inputs):
            if value not in made:
                continue
            axis = _time(x[at], symbol)
            seen = axis is None or axis in joins(node.layer, at, x)
            if check and seen and (axis is None or not looks_back(node.layer, at, axis, x)):
                raise ShapeError(
                    f"the logits are not computed causally: `{node.name}` in line {node.line} sees later steps of the"
                    " `feed`",
                    input=1,
                    help="a decoder's layers may see earlier steps only; `causal = true` says that they do where this"
                    " cannot be told",
                )
            stepwise = stepwise and (not seen or (axis == 0 and _goes_on(node.layer, at)))
        made.update(node.output(i) for i in range(len(node.outputs)))
    return stepwise


def _goes_on(layer: Layer, at: int) -> bool:
    """Return whether a layer can be run step by step along input `at`, going on from its states."""
    return isinstance(layer, Recurrence) and layer.step is None and not layer.reverse and at < len(layer.data)


def _time(type_: TensorType, symbol: str) -> int | None:
    """Return the axis that runs in time; None where there is none or several."""
    axes = [i for i, d in enumerate(type_.shape) if symbol in (d.symbols if isinstance(d, Symbolic) else ())]
    return axes[0] if len(axes) == 1 and str(type_.shape[axes[0]]) == symbol else None
