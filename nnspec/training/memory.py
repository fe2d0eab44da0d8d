"""What a training step needs of memory: state and batch, which stay, and tensors that live while the step runs.

The graph is followed in the order in which ONNX Runtime runs it: a tensor lives from the node that makes it to its last
reader. A view of another tensor takes nothing, and an element-wise result takes over the memory of an input that nobody
reads after it. What a kernel takes for itself while it runs is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.driver import captured
from nnspec.ops import dims_of
from nnspec.recipe import Recipe
from nnspec.training.arena import Arena, Chunk
from nnspec.training.fixed import fix_sizes, open_symbols, sizes_of
from nnspec.training.program import Program
from nnspec.training.step import build

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result is their first input's memory."""

IN_PLACE = frozenset(
    """Abs Add Cast Ceil Clip Cos Div Dropout Elu Erf Exp Floor HardSigmoid LeakyRelu Log Mul Neg Not Pow Reciprocal
    Relu Selu Sigmoid Sin Softmax LogSoftmax Softplus Softsign Sqrt Sub Sum Tanh ThresholdedRelu Where""".split()  # noqa: SIM905
)
"""Operators that may write over an input of the same size that has no later reader."""

_PRODUCTS = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True)
class Live:
    """A tensor that is there when most memory is in use."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    layer: str
    """Where it comes from: the path of the layer, or the operator that makes it."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step needs at its peak, by what they are for."""

    batch: int
    weights: int
    optimizer: int
    second_copies: int
    """The other set of buffers: a step reads one and writes the other."""
    data: int
    activations: int
    """What lives at the peak besides, gradients included."""
    fragments: int
    """What the allocator holds beyond that because pieces of its memory do not fit what is asked for."""
    live: tuple[Live, ...]
    """What lives at the peak besides state and data, the largest first."""
    at: str
    """Where in the step the peak is: the name of the node."""
    unknown: tuple[str, ...]
    """Sizes that no number is known of; tensors of such sizes are not counted."""

    @property
    def peak(self) -> int:
        """All of it."""
        parts = (self.weights, self.optimizer, self.second_copies, self.data, self.activations)
        return sum(parts) + self.fragments


def training_memory(recipe: Recipe, sizes: Mapping[str, int] | None = None) -> TrainingMemory:
    """Predict the peak memory of one training step at the recipe's batch; `sizes` are those of other symbols."""
    return measure_program(build(recipe), sizes_of(recipe, sizes))


def measure_program(program: Program, sizes: Mapping[str, int]) -> TrainingMemory:
    """Predict the peak memory of a program's step where symbols have these sizes."""
    # Nodes that ask for the shape of a tensor keep it: they must stay.
    model = fix_sizes(program.step, sizes, folded=False)
    states = program.manifest["state"]
    of = {value.name: size_of(value) for value in model.graph.inputs}
    weights = sum(of.get(s["input"], 0) for s in states if s["kind"] in ("weight", "frozen", "buffer"))
    every = sum(of.get(s["input"], 0) for s in states)
    again = sum(of.get(s["input"], 0) for s in states if s["output"] is not None and not s["in_place"])
    # Each of the two sets of buffers has its own for the batch, so that one fills while the other is read.
    data = 2 * sum(of.get(i["name"], 0) for i in program.manifest["inputs"])
    bound = {s["output"] for s in states}
    timeline = Timeline(model.graph, bound)
    transient = sum(one.bytes for one in timeline.live)
    return TrainingMemory(
        batch=next(iter(sizes.values())),
        weights=weights,
        optimizer=every - weights,
        second_copies=again,
        data=data,
        activations=transient,
        fragments=timeline.touched - transient,
        live=tuple(timeline.live),
        at=timeline.at,
        unknown=tuple(open_symbols(model.graph)),
    )


def size_of(value: ir.Value) -> int:
    """Return the bytes of a value; 0 where a dim is unknown."""
    dims = dims_of(value)
    if dims is None or value.dtype is None or not all(isinstance(d, int) for d in dims):
        return 0
    return math.ceil(math.prod(d for d in dims if isinstance(d, int)) * value.dtype.itemsize)


class Timeline:
    """The tensors of a graph over the time that it runs; `bound` names outputs that are written where they stay."""

    def __init__(self, graph: ir.Graph, bound: set[str]) -> None:
        self._graph, self._bound = graph, bound
        folded = _folded(graph)
        self._nodes = _schedule([n for n in graph if n not in folded])
        self._order = {n: i for i, n in enumerate(self._nodes)}
        self._captures: dict[ir.Value, list[ir.Node]] = {}
        for node in self._nodes:
            for value in _captured(node):
                self._captures.setdefault(value, []).append(node)
        self._given = {*graph.inputs, *graph.initializers.values()}
        self._given.update(v for n in folded for v in n.outputs)
        self._home: dict[ir.Value, ir.Value] = {}
        """For each value the one whose memory it is in."""
        self._until: dict[ir.Value, int] = {}
        """For each memory, by the value that it was made for, the last node that reads it."""
        self.live: list[Live] = []
        self.at = ""
        self.touched = 0
        """What of the allocator's memory is ever used."""
        self._run()

    def _last_use(self, value: ir.Value) -> int:
        if value.is_graph_output():
            return len(self._nodes)
        return max((self._order[n] for n in self._users(value) if n in self._order), default=-1)

    def _users(self, value: ir.Value) -> list[ir.Node]:
        """Return the nodes of the main graph that read a value, also those in whose bodies it is read."""
        return [*(use.node for use in value.uses()), *self._captures.get(value, ())]

    def _run(self) -> None:
        sizes: dict[ir.Value, int] = {}
        now = best = 0
        alive: dict[ir.Value, None] = {}
        peak: list[ir.Value] = []
        arena = Arena()
        chunks: dict[ir.Value, Chunk] = {}
        for i, node in enumerate(self._nodes):
            taken = self._place(node, i)
            for out in node.outputs:
                last = self._last_use(out)
                home = self._home.setdefault(out, taken if taken is not None and out is node.outputs[0] else out)
                if home is out:
                    sizes[out] = 0 if out.name in self._bound else size_of(out)
                    now += sizes[out]
                    if sizes[out]:
                        chunks[out] = arena.take(sizes[out])
                    alive[out] = None
                    self._until[out] = max(last, i)
                elif home in self._until:
                    self._until[home] = max(self._until[home], last)
            if now > best:
                best, peak, self.at = now, list(alive), node.name or node.op_type
            for home in [h for h in self._touched_by(node) if h in alive and self._until[h] <= i]:
                del alive[home]
                now -= sizes[home]
                if home in chunks:
                    arena.give(chunks.pop(home))
        self.touched = arena.touched
        shown = sorted((v for v in peak if sizes[v]), key=lambda v: -sizes[v])
        self.live = [_describe(v, sizes[v]) for v in shown]

    def _touched_by(self, node: ir.Node) -> list[ir.Value]:
        values = [v for v in (*node.inputs, *node.outputs, *_captured(node)) if v is not None]
        return list(dict.fromkeys(self._home[v] for v in values if v in self._home))

    def _place(self, node: ir.Node, i: int) -> ir.Value | None:
        """Return the memory that a node's first result takes over, or None where it gets its own."""
        first = node.inputs[0] if node.inputs else None
        if node.outputs[0].name in self._bound:
            return None
        if first is not None and not node.domain and (node.op_type in VIEWS or _fused_away(node)):
            return self._home.get(first, first)
        if node.op_type not in IN_PLACE or node.domain:
            return None
        wanted = size_of(node.outputs[0])
        for value in node.inputs:
            if value is None or value in self._given or size_of(value) != wanted:
                continue
            home = self._home.get(value, value)
            if home in self._until and self._until[home] <= i and home.name not in self._bound:
                return home
        return None


def _schedule(nodes: list[ir.Node]) -> list[ir.Node]:
    """Return nodes in the order in which ONNX Runtime runs them.

    It goes depth first from the nodes that nothing follows, the last first, and for each node through the last of what
    it needs first (`Graph::ReverseDFSFrom`).
    """
    number = {node: i for i, node in enumerate(nodes)}
    before: dict[ir.Node, list[ir.Node]] = {}
    followed: set[ir.Node] = set()
    for node in nodes:
        sources = {v.producer() for v in (*node.inputs, *_captured(node)) if v is not None}
        before[node] = sorted((n for n in sources if n in number), key=number.__getitem__)
        followed.update(before[node])
    order: list[ir.Node] = []
    seen: set[ir.Node] = set()
    stack = [(node, False) for node in nodes if node not in followed]
    while stack:
        node, leaving = stack.pop()
        if leaving:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(n, False) for n in before[node] if n not in seen]
    return order


def _folded(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that depend on constants alone: ONNX Runtime computes them when it opens the graph."""
    found: set[ir.Node] = set()
    for node in graph:
        random = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
        made = all(v is None or v.producer() in found for v in node.inputs)
        if node.op_type == "Constant" or (node.inputs and made and not random):
            found.add(node)
    return found


def _fused_away(node: ir.Node) -> bool:
    """Say whether ONNX Runtime never makes a node's result: a transposition whose readers are products.

    Those transpose themselves, and read what was to be transposed.
    """
    users = [use.node for out in node.outputs for use in out.uses()]
    return node.op_type == "Transpose" and bool(users) and all(n.op_type in _PRODUCTS for n in users)


def _captured(node: ir.Node) -> list[ir.Value]:
    return captured(node) if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()) else []


def _describe(value: ir.Value, size: int) -> Live:
    node = value.producer()
    assert node is not None
    assert value.dtype is not None
    dims = tuple(d for d in dims_of(value) or () if isinstance(d, int))
    layer = (node.name or node.op_type).rsplit("/", 1)[0] if "/" in (node.name or "") else node.op_type
    return Live(value.name or "", value.dtype.name.lower(), dims, size, layer)
