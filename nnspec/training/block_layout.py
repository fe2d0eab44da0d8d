"""Tensors and kernels brought into blocks of channels and out of them, see `nnspec.ops.blocks`; each once."""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.ops import Ops, dims_of
from nnspec.ops.blocks import into_blocks, out_of_blocks

_FEW = 2**19
"""Elements of a kernel up to which the numbers that pick each of them are little memory; in time it wins for all."""


class Layout:
    """Bring tensors into the layout of blocks and out of it; what came out whole goes in again as it was."""

    def __init__(self, ops: Ops) -> None:
        self.target = ops.target
        self._ops = ops
        self._order = {node: i for i, node in enumerate(ops.graph)}
        self._same: dict[ir.Value, ir.Value] = {}
        """Plain tensors whose blocks exist."""
        self._orders: dict[tuple[tuple[int, ...], bool], ir.Value] = {}
        """The numbers of elements in blocks, by the kernel's shape and whether it is turned around."""

    def has(self, x: ir.Value) -> bool:
        """Return whether the blocks of a tensor exist, all of them whole: what fills others up has to stay zero."""
        channels = (dims_of(x) or (0, 0))[1]
        return x in self._same and isinstance(channels, int) and channels % self.target.block == 0

    def into(self, x: ir.Value) -> ir.Value:
        """Return the blocks of a tensor [N, C, H, W]."""
        if x not in self._same:
            self._same[x] = into_blocks(self._ops, x)
        return self._same[x]

    def last_reader(self, x: ir.Value) -> ir.Node | None:
        """Return which of the nodes that read a tensor, or its blocks, came last in the graph as it was."""
        nodes = [*x.consumers(), *(self._same[x].consumers() if x in self._same else ())]
        return max((n for n in nodes if n in self._order), key=self._order.__getitem__, default=None)

    def join(self, graph: ir.Graph) -> None:
        """Let whatever else brings a tensor into blocks use those that exist."""
        for node in graph:
            x = node.inputs[0] if node.op_type == "ReorderInput" else None
            if x is not None and self._same.get(x, node.outputs[0]) is not node.outputs[0]:
                ir.convenience.replace_all_uses_with(node.outputs[0], self._same[x])

    def out_of(self, blocks: ir.Value, channels: int) -> ir.Value:
        """Return the tensor of `channels` channels that lies in blocks."""
        plain = out_of_blocks(self._ops, blocks, channels)
        if channels % self.target.block == 0:
            self._same[plain] = blocks
        return plain

    def kernel(self, w: ir.Value, filters: int, channels: int) -> ir.Value:
        """Return a kernel [M, C, ...] in blocks of both, with two axes of space.

        Of the kernel of an input gradient, the kernel that it turns around is read.
        """
        source = _turned(w)
        turned = source is not None
        plain: ir.Value = w if source is None else source
        dims = tuple(int(d) for d in dims_of(plain) or ())  # type: ignore[arg-type]
        space = dims[2:]
        rows, columns = self.target.whole(filters), self.target.whole(channels)
        few = rows * columns * math.prod(space) <= _FEW
        blocks = self._picked(plain, dims, turned) if few else self._moved(plain, dims, turned)
        flat = [1] if len(space) == 1 else []
        return self._ops.Reshape(blocks, [rows, columns, *flat, *space])  # type: ignore[no-any-return]

    def _picked(self, w: ir.Value, dims: tuple[int, ...], turned: bool) -> ir.Value:
        """Return the blocks of a kernel of these dims, each element picked by its number.

        The numbers in blocks are those in order, moved as a kernel is; a session works them out when it is opened.
        What fills up the last blocks has the number behind the last element.
        """
        ops, count = self._ops, math.prod(dims)
        if (dims, turned) not in self._orders:
            numbers = ops.Range(*(ops.constant(n, ir.DataType.INT32) for n in (0, count, 1)))
            self._orders[dims, turned] = ops.Reshape(self._moved(numbers, dims, turned, count), [-1])
        flat = ops.Reshape(w, [-1])
        if any(size % self.target.block for size in dims[:2]):
            flat = ops.Concat(flat, ops.constant([0.0], w.dtype), axis=0)
        return ops.GatherElements(flat, self._orders[dims, turned], axis=0)  # type: ignore[no-any-return]

    def _moved(self, w: ir.Value, dims: tuple[int, ...], turned: bool, filling: int = 0) -> ir.Value:
        """Return the blocks of a kernel of these dims by transpositions, which need no number for each element.

        A transposition of single elements is slow but for two axes, and one of whole blocks is fast. ONNX Runtime would
        make both into one, which is slow again; choosing places of the kernel in between keeps them apart, and turns
        the kernel of an input gradient around by the way.
        """
        ops, b = self._ops, self.target.block
        filters, channels, *space = dims
        rows, columns = self.target.whole(filters), self.target.whole(channels)
        places = math.prod(space)
        order = list(range(places))
        w = ops.Reshape(w, [filters, channels, places])
        if (rows, columns) != (filters, channels):
            fill = ops.constant(filling, w.dtype)
            w = ops.Pad(w, [0, 0, 0, rows - filters, columns - channels, 0], fill)
        if turned:
            last = ops.Transpose(w, perm=[0, 2, 1])
            rows, columns, order = columns, rows, order[::-1]
        else:
            last = ops.Reshape(ops.Transpose(ops.Reshape(w, [rows, -1]), perm=[1, 0]), [columns, places, rows])
        blocks = ops.Reshape(ops.Gather(last, order, axis=1), [columns // b, b, places, rows // b, b])
        return ops.Transpose(blocks, perm=[3, 0, 2, 1, 4])  # type: ignore[no-any-return]

    def depthwise_kernel(self, w: ir.Value, channels: int) -> ir.Value:
        """Return a kernel [C, 1, h, w] in blocks: what a tensor [1, C, h, w] is."""
        ops = self._ops
        rows, columns = (dims_of(w) or ())[2:]
        sizes = [rows if isinstance(rows, int) else -1, columns]
        image = self.into(ops.Reshape(w, [1, channels, *sizes]))
        return ops.Reshape(image, [channels, 1, *sizes])  # type: ignore[no-any-return]


def _turned(w: ir.Value) -> ir.Value | None:
    """Return the kernel of which `w` is made for an input gradient: turned around, filters and channels exchanged."""
    exchange = w.producer()
    if exchange is None or exchange.op_type != "Transpose" or exchange.attributes["perm"].as_ints()[:2] != (1, 0):
        return None
    source = exchange.inputs[0]
    turn = None if source is None else source.producer()
    if turn is None or turn.op_type != "Slice" or len(turn.inputs) != 5 or turn.inputs[4] is None:
        return None
    steps, axes = (v.const_value if v is not None else None for v in (turn.inputs[4], turn.inputs[3]))
    rank = len(dims_of(w) or ())
    if steps is None or axes is None or axes.numpy().tolist() != list(range(2, rank)):
        return None
    whole = dims_of(turn.outputs[0]) == dims_of(turn.inputs[0]) if turn.inputs[0] is not None else False
    return turn.inputs[0] if whole and set(steps.numpy().tolist()) == {-1} else None
