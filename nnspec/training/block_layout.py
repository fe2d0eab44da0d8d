"""Tensors and kernels brought into blocks of channels and out of them, see `nnspec.ops.blocks`; each once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from nnspec.ops import Ops, dims_of
from nnspec.ops.blocks import brought_in, comes_in_last, filled_up, into_blocks, out_of_blocks, two_axes
from nnspec.training.rewrite import put_in_place


class Layout:
    """Bring tensors into the layout of blocks and out of it; what came out whole goes in again as it was."""

    def __init__(self, ops: Ops) -> None:
        self.target = ops.target
        self._ops = ops
        self._order = {node: i for i, node in enumerate(ops.graph)}
        self._same: dict[ir.Value, ir.Value] = {}
        """The blocks of plain tensors, as far as they exist; what fills up the last one is zeros."""
        self.places: dict[ir.Value, ir.Value] = {}
        """Indices of maxima: for those in plain tensors, those in their blocks."""

    def has(self, x: ir.Value) -> bool:
        """Return whether the blocks of a tensor exist."""
        return x in self._same

    def is_whole(self, x: ir.Value) -> bool:
        """Return whether a tensor's channels fill all of their blocks."""
        channels = (dims_of(x) or (0, 0))[1]
        return isinstance(channels, int) and channels % self.target.block == 0

    def into(self, x: ir.Value) -> ir.Value:
        """Return the blocks of a tensor [N, C, H, W], or of [N, C, W] as one of height 1."""
        if x not in self._same:
            source = moved(x, to=1)
            last = source is not None and comes_in_last((dims_of(x) or (0, 0))[1])
            image = self.image(source, height=1) if source is not None and last else self.image(x)
            self._same[x] = into_blocks(self._ops, image, channels_last=last)
        return self._same[x]

    def image(self, x: ir.Value, height: int = 2) -> ir.Value:
        """Return a tensor with two axes of space: where there is one, `height` is the place of a further one."""
        return x if len(dims_of(x) or ()) == 4 else self._ops.Unsqueeze(x, [height])

    def spent_in(self, node: ir.Node, x: ir.Value) -> bool:
        """Return whether nothing needs the blocks of a tensor after a node: they may be written over there."""
        return not x.is_graph_output() and self._last_reader(x) is node

    def _last_reader(self, x: ir.Value) -> ir.Node | None:
        """Return which of the nodes that read a tensor, or its blocks, came last in the graph as it was."""
        nodes = [*x.consumers(), *(self._same[x].consumers() if x in self._same else ())]
        return max((n for n in nodes if n in self._order), key=self._order.__getitem__, default=None)

    def join(self, graph: ir.Graph) -> None:
        """Let whatever else brings a tensor into blocks use those that exist."""
        for node in graph:
            x = brought_in(node)
            if x is not None and x not in self._same:
                x = _of_one_axis(x)
            if x is not None and self._same.get(x, node.outputs[0]) is not node.outputs[0]:
                ir.convenience.replace_all_uses_with(node.outputs[0], self._same[x])

    def out_of(self, blocks: ir.Value, channels: int, rank: int) -> ir.Value:
        """Return the plain tensor that lies in blocks; what fills up the last block has to be zeros."""
        plain = out_of_blocks(self._ops, blocks, channels)
        if rank == 3:
            plain = self._ops.Squeeze(plain, [2])
        self._same[plain] = blocks
        return plain

    def move_last(self, x: ir.Value) -> ir.Value:
        """Return a tensor that is in blocks with its channels as the last axis."""
        dims = dims_of(x) or ()
        plain = out_of_blocks(self._ops, self._same[x], int(dims[1]), channels_last=True)  # type: ignore[arg-type]
        return self._ops.Squeeze(plain, [1]) if len(dims) == 3 else plain

    def put(self, out: ir.Value, blocks: ir.Value, gone: Sequence[ir.Node]) -> None:
        """Let what lies in blocks stand for the result of the nodes `gone`, last first."""
        dims = dims_of(out) or ()
        blocks.type, blocks.shape = out.type, filled_up(self._ops, dims)
        put_in_place(self._ops.graph, out, self.out_of(blocks, int(dims[1]), len(dims)), gone)  # type: ignore[arg-type]

    def kernel(self, w: ir.Value, filters: int, channels: int) -> ir.Value:
        """Return a kernel [M, C, ...] in blocks of both, with two axes of space.

        Channels go into blocks first, filters then. Of the kernel of an input gradient, the kernel that it turns around
        is read: its filters are the channels.
        """
        ops, b = self._ops, self.target.block
        rows, columns = self.target.whole(filters), self.target.whole(channels)
        source = _turned(w)
        plain: ir.Value = w if source is None else source
        space = [int(d) for d in (dims_of(plain) or ())[2:]]  # type: ignore[arg-type]
        places, axis = math.prod(space), int(source is not None)
        if rows != filters:
            pads = [0] * (2 * len(space) + 4)
            pads[2 + len(space) + axis] = rows - filters
            plain = ops.Pad(plain, pads)
        if source is None:
            first = into_blocks(ops, ops.Reshape(plain, [rows, channels, 1, places]))
            blocks = into_blocks(ops, ops.Reshape(first, [rows // b, b, 1, columns * places]))
        else:
            first = into_blocks(ops, ops.Reshape(plain, [1, channels, 1, rows * places]))
            blocks = into_blocks(ops, ops.Reshape(first, [columns // b * (rows // b), b, 1, places * b]))
            at = np.arange(columns // b * (rows // b) * places, dtype=np.int32)
            turned = at.reshape(columns // b, rows // b, places).transpose(1, 0, 2)[..., ::-1]
            blocks = ops.Gather(ops.Reshape(blocks, [-1, b * b]), ops.constant(turned.reshape(-1)), axis=0)
        return ops.Reshape(blocks, [rows, columns, *two_axes(space)])  # type: ignore[no-any-return]

    def kernel_of_image(self, w: ir.Value, filters: int, channels: int) -> ir.Value:
        """Return a kernel [M, C, ...] of channels too few for a block, in blocks of filters; with two axes of space."""
        ops, rows = self._ops, self.target.whole(filters)
        space = [int(d) for d in (dims_of(w) or ())[2:]]  # type: ignore[arg-type]
        blocks = into_blocks(ops, ops.Reshape(w, [1, filters, 1, channels * math.prod(space)]))
        return ops.Reshape(blocks, [rows, channels, *two_axes(space)])  # type: ignore[no-any-return]

    def depthwise_kernel(self, w: ir.Value, channels: int) -> ir.Value:
        """Return a kernel [C, 1, h, w] in blocks: what a tensor [1, C, h, w] is."""
        ops = self._ops
        rows, columns = (dims_of(w) or ())[2:]
        sizes = [rows if isinstance(rows, int) else -1, columns]
        image = self.into(ops.Reshape(w, [1, channels, *sizes]))
        return ops.Reshape(image, [channels, 1, *sizes])  # type: ignore[no-any-return]


def moved(x: ir.Value, to: int) -> ir.Value | None:
    """Return the tensor that is transposed so that its last axis becomes axis 1, or for `to` -1 the other way round."""
    node = x.producer()
    rank = len(dims_of(x) or ())
    if node is None or node.op_type != "Transpose" or rank not in (3, 4):
        return None
    perm = [0, rank - 1, *range(1, rank - 1)] if to == 1 else [0, *range(2, rank), 1]
    return node.inputs[0] if list(node.attributes["perm"].as_ints()) == perm else None


def _of_one_axis(x: ir.Value) -> ir.Value | None:
    """Return the tensor [N, C, W] that is an image [N, C, 1, W]."""
    node = x.producer()
    axes = node.inputs[1] if node is not None and node.op_type == "Unsqueeze" else None
    found = None if axes is None or axes.const_value is None else axes.const_value.numpy().tolist()
    return node.inputs[0] if node is not None and found == [2] and len(dims_of(x) or ()) == 4 else None


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
