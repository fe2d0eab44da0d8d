"""When the tensors of a graph are there, and in whose memory: ONNX Runtime's plan, followed in numbers.

The graph is followed in the order in which ONNX Runtime runs it: a tensor lives from the node that makes it to its last
reader. A view of another tensor takes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.driver import sources
from nnspec.ops import dims_of, numbers
from nnspec.ops.blocks import DOMAIN
from nnspec.training.arena import FIRST_REGION, Arena, Chunk
from nnspec.training.fixed import dims_at

_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result is their first input's memory."""

_IN_PLACE = frozenset(
    """Cast Clip Dropout Elu HardSigmoid LeakyRelu LogSoftmax Relu Selu Sigmoid Softmax Softplus Softsign Tanh
    ThresholdedRelu""".split()  # noqa: SIM905
)
"""Operators that write over an input of the same size that has no later reader: activations. Arithmetic does not.
Measured with ONNX Runtime 1.31, one operator at a time."""

_PRODUCTS = frozenset({"MatMul", "Gemm"})

_ROOM = (1.25, 1.5, 2.0)
"""How many times what it needs a region may have that is to hold all: kernels take memory that is not known here.

Which is best nobody can tell beforehand: how a chunk is cut up hangs on how large the last one is.
"""
_LARGEST = 2**31 - 1
"""Bytes of a first region that can be asked for in Python."""


@dataclass(frozen=True)
class Live:
    """A tensor that is there when most memory is in use."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    layer: str
    """Where it comes from: the path of the layer, or the operator that makes it."""


def size_of(value: ir.Value, sizes: Mapping[str, int] | None = None) -> int:
    """Return the bytes of a value where symbols have these sizes; 0 where a dim is unknown.

    What Compress keeps may be all of it.
    """
    if (node := value.producer()) is not None and node.op_type == "Compress" and node.inputs[0] is not None:
        return size_of(node.inputs[0], sizes)
    dims = _numbers_of(value, sizes or {})
    return 0 if dims is None or value.dtype is None else math.ceil(math.prod(dims) * value.dtype.itemsize)


def least_memory(graph: ir.Graph, bound: set[str], sizes: Mapping[str, int]) -> tuple[bool, int]:
    """Return how ONNX Runtime takes least memory for a run: with planned reuse or not, and the first region's bytes.

    See Timeline; 0 bytes leave the region to ONNX Runtime. Regions that grow step by step leave room at their ends;
    one that has room for all has a larger table.
    """
    found = []
    for reuse in (True, False):
        timeline = Timeline(graph, bound, sizes, reuse=reuse)
        needed = timeline.follow(sum(size for _, size in timeline.moves)).touched
        regions = [0, *(int(room * needed) for room in _ROOM if FIRST_REGION < room * needed <= _LARGEST)]
        found += [(timeline.follow(region).held, not reuse, region) for region in regions]
    _, without, region = min(found)
    return not without, region


class Timeline:
    """The tensors of a graph over the time that it runs.

    `bound` names outputs that are written where they stay; `sizes` are those of symbols. With `reuse`, ONNX Runtime
    plans beforehand which tensor takes over the memory of one of its size that nobody reads any more: that memory is
    then kept from the first of them to the last.
    """

    def __init__(
        self, graph: ir.Graph, bound: set[str], sizes: Mapping[str, int] | None = None, *, reuse: bool = True
    ) -> None:
        self._bound, self._sizes, self._reuse = bound, sizes or {}, reuse
        folded = _folded(graph, self._sizes)
        self._nodes = _schedule([n for n in graph if n not in folded])
        self._last_reader: dict[ir.Value, int] = {v: i for i, n in enumerate(self._nodes) for v in sources(n)}
        self._given = {*graph.inputs, *graph.initializers.values()}
        made_before = {v for n in folded for v in n.outputs}
        self._given |= made_before
        self.constants = sum(self._size(v) for v in made_before if v in self._last_reader)
        """What the session computes beforehand and keeps."""
        self._home: dict[ir.Value, ir.Value] = {}
        """For each value the one whose memory it is in."""
        self._homes: list[list[ir.Value]] = []
        """For each node the memories that it reads and writes."""
        self._until: dict[ir.Value, int] = {}
        """For each memory, by the value that it was made for, the last node that reads it."""
        self._free: dict[tuple[object, ...], list[ir.Value]] = {}
        """Memories that nobody reads any more, by what fits into them, the latest last."""
        self.live: list[Live] = []
        self.at = ""
        self.moves: list[tuple[object, int]] = []
        """What the allocator hands out, by whom it is for, with its bytes; 0 bytes for what it gets back."""
        self._plan()
        self._run()

    def follow(self, region: int) -> Arena:
        """Return the allocator after two runs that begin with a region of so many bytes, 0 where that is left to it.

        What the first run leaves is free, and the second run cuts it up in other ways than what was new to the first.
        """
        arena = Arena(region or FIRST_REGION)
        chunks: dict[object, Chunk] = {}
        for who, size in (*self.moves, *self.moves):
            if size:
                chunks[who] = arena.take(size)
            else:
                arena.give(chunks.pop(who))
        return arena

    def _last_use(self, value: ir.Value) -> int:
        if value.is_graph_output():
            return len(self._nodes)
        return self._last_reader.get(value, -1)

    def _size(self, value: ir.Value) -> int:
        return 0 if value.name in self._bound else size_of(value, self._sizes)

    def _plan(self) -> None:
        """Decide in which memory each tensor lies, and until when that is kept."""
        for i, node in enumerate(self._nodes):
            for out in node.outputs:
                home = self._place(node, out, i) or out
                self._home[out] = home
                if home is out or home in self._until:
                    self._until[home] = max(self._until.get(home, i), self._last_use(out))
            homes = (self._home[v] for v in (*sources(node), *node.outputs) if v in self._home)
            self._homes.append(list(dict.fromkeys(homes)))
            for home in self._homes[i]:
                if self._until.get(home) == i and home.name not in self._bound:
                    self._free.setdefault(self._kind(home), []).append(home)

    def _kind(self, value: ir.Value) -> tuple[object, ...]:
        return value.dtype, dims_of(value)

    def _place(self, node: ir.Node, out: ir.Value, i: int) -> ir.Value | None:
        """Return the memory that a result takes over, or None where it gets its own."""
        if out.name in self._bound:
            return None
        first = node.inputs[0] if node.inputs else None
        if out is node.outputs[0]:
            if not node.domain and first is not None and (node.op_type in _VIEWS or _fused_away(node)):
                return self._home.get(first, first)
            wanted = self._size(out)
            for value in _written_over(node):
                if value is None or value in self._given or size_of(value, self._sizes) != wanted:
                    continue
                home = self._home.get(value, value)
                if self._until.get(home) == i and home.name not in self._bound:
                    return home
        freed = self._free.get(self._kind(out)) if self._reuse and not out.is_graph_output() else None
        return freed.pop() if freed else None

    def _run(self) -> None:
        """Go from node to node: note what lives, and what the allocator is asked for."""
        now = best = 0
        alive: dict[ir.Value, int] = {}
        peak: list[ir.Value] = []
        moves = self.moves
        for i, node in enumerate(self._nodes):
            partial = _partial_sums(node)
            for k in range(partial):
                moves.append(((node, k), size_of(node.outputs[0], self._sizes)))
                if k:
                    moves.append(((node, k - 1), 0))
            for out in node.outputs:
                if self._home[out] is out:
                    size = alive[out] = self._size(out)
                    now += size
                    if size:
                        moves.append((out, size))
            if partial:
                moves.append(((node, partial - 1), 0))
            if now > best:
                best, peak, self.at = now, list(alive), node.name or node.op_type
            for home in self._homes[i]:
                if home in alive and self._until[home] <= i:
                    size = alive.pop(home)
                    now -= size
                    if size:
                        moves.append((home, 0))
        moves.extend((home, 0) for home, size in alive.items() if size)
        sizes = {v: self._size(v) for v in peak}
        shown = sorted((v for v in peak if sizes[v]), key=lambda v: -sizes[v])
        self.live = [_describe(v, sizes[v]) for v in shown]


def _schedule(nodes: list[ir.Node]) -> list[ir.Node]:
    """Return nodes in the order in which ONNX Runtime runs them.

    It goes depth first from the nodes that nothing follows, the last first, and for each node through the last of what
    it needs first (`Graph::ReverseDFSFrom`).
    """
    number = {node: i for i, node in enumerate(nodes)}
    before: dict[ir.Node, list[ir.Node]] = {}
    followed: set[ir.Node] = set()
    for node in nodes:
        makers = {v.producer() for v in sources(node)}
        before[node] = sorted((n for n in makers if n in number), key=number.__getitem__)
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


def _folded(graph: ir.Graph, sizes: Mapping[str, int]) -> set[ir.Node]:
    """Return the nodes that depend on constants and known sizes alone: ONNX Runtime computes them when it opens it."""
    found: set[ir.Node] = set()
    for node in graph:
        random = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
        made = all(v is None or v.producer() in found for v in node.inputs) or _asks_known_size(node, sizes)
        if node.op_type == "Constant" or (node.inputs and made and not random):
            found.add(node)
    return found


def _asks_known_size(node: ir.Node, sizes: Mapping[str, int]) -> bool:
    asked = node.inputs[0] if node.op_type in ("Shape", "Size") else None
    return asked is not None and _numbers_of(asked, sizes) is not None


def _numbers_of(value: ir.Value, sizes: Mapping[str, int]) -> list[int] | None:
    """Return the dims of a value where all of them are numbers, once symbols have these sizes."""
    dims = dims_at(value, sizes)
    return numbers(dims) if dims is not None and all(isinstance(d, int) for d in dims) else None


def _written_over(node: ir.Node) -> Sequence[ir.Value | None]:
    """Return the inputs whose memory a node's result may take over."""
    if node.domain == DOMAIN and node.op_type == "Conv":
        return node.inputs[3:]  # what it adds to
    return node.inputs if node.op_type in _IN_PLACE and not node.domain else ()


def _partial_sums(node: ir.Node) -> int:
    """Return how many tensors of its result's size a kernel takes for itself: a sum of n adds two by two."""
    return max(0, len(node.inputs) - 2) if node.op_type == "Sum" else 0


def _fused_away(node: ir.Node) -> bool:
    """Say whether ONNX Runtime never makes a node's result: a transposition whose readers are products.

    Those transpose themselves, and read what was to be transposed.
    """
    users = [use.node for out in node.outputs for use in out.uses()]
    return node.op_type == "Transpose" and bool(users) and all(n.op_type in _PRODUCTS for n in users)


def _describe(value: ir.Value, size: int) -> Live:
    node = value.producer()
    assert node is not None
    assert value.dtype is not None
    dims = tuple(d for d in dims_of(value) or () if isinstance(d, int))
    layer = (node.name or node.op_type).rsplit("/", 1)[0] if "/" in (node.name or "") else node.op_type
    return Live(value.name or "", value.dtype.name.lower(), dims, size, layer)
