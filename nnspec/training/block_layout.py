"""Tensors and kernels brought into blocks of channels and out of them, see `nnspec.ops.blocks`; each once."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from nnspec.ops import Ops, dims_of
from nnspec.ops.blocks import into_blocks, out_of_blocks


class Layout:
    """Bring tensors into the layout of blocks and out of it; what came out whole goes in again as it was."""

    def __init__(self, ops: Ops) -> None:
        self.target = ops.target
        self._ops = ops
        self._order = {node: i for i, node in enumerate(ops.graph)}
        self._same: dict[ir.Value, ir.Value] = {}
        """Plain tensors whose blocks exist."""

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
        return ops.Reshape(blocks, [rows, columns, *([1] if len(space) == 1 else []), *space])  # type: ignore[no-any-return]

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
