"""Convolutions in the layout of ONNX Runtime's own CPU kernels, see `nnspec.ops.blocks`.

Its optimizer uses this layout by itself, but only where weights are constants, which those of a training step are not.
Here the reordering is made part of the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.ops import Ops, Target, dims_of
from nnspec.ops.blocks import DOMAIN, filled_up, into_blocks, out_of_blocks
from nnspec.training.rewrite import only_reader, put_in_place

_FEW = 2**19
"""Elements of a kernel up to which the numbers that pick each of them are little memory; in time it wins for all."""


def use_blocks(graph: ir.Graph, target: Target) -> None:
    """Let the convolutions of a graph that gain by it run in blocks of channels; in place."""
    found = [c for node in graph if (c := _convolution(node, target)) is not None]
    ops = Ops(graph, target=target)
    layout = _Layout(ops)
    for one in found:
        _rewrite(ops, layout, one)
    layout.join(graph)
    graph.sort()


@dataclass(frozen=True)
class _Convolution:
    """A Conv node that gains, with what is known of it; `depthwise` has one filter for each channel."""

    node: ir.Node
    filters: int
    channels: int
    kernel: tuple[int, ...] | None
    depthwise: bool


def _convolution(node: ir.Node, target: Target) -> _Convolution | None:
    if node.op_type != "Conv" or node.domain or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    x, w = node.inputs[0], node.inputs[1]
    if x is None or w is None or w.const_value is not None or w.dtype != ir.DataType.FLOAT:
        return None
    into, shape = dims_of(x), dims_of(w)
    if into is None or shape is None or len(shape) not in (3, 4):
        return None
    channels, filters, depth = into[1], shape[0], shape[1]
    if not (isinstance(channels, int) and isinstance(filters, int) and isinstance(depth, int)):
        return None
    # The kernel of a weight gradient is as large as the batch; its size is known only when it runs.
    kernel = shape[2:]
    known = tuple(k for k in kernel if isinstance(k, int))
    sizes = known if len(known) == len(kernel) else None
    group = node.attributes.get_int("group", 1)
    if group == channels == filters and depth == 1:
        fits = channels % target.block == 0 and isinstance(kernel[-1], int)
        return _Convolution(node, filters, channels, sizes, True) if fits else None
    if group != 1 or sizes is None or math.prod(sizes) == 1:
        return None  # for 1x1 the plain kernel is one product already
    return _Convolution(node, filters, channels, sizes, False) if target.fits(channels, filters) else None


def _rewrite(ops: Ops, layout: _Layout, one: _Convolution) -> None:
    node = one.node
    x, w = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    y = node.outputs[0]
    assert x is not None
    assert w is not None
    relu = only_reader(y, "Relu")
    out = y if relu is None else relu.outputs[0]
    flat = len(dims_of(x) or ()) == 3
    attributes = {
        "group": one.channels if one.depthwise else 1,
        "strides": _setting(node, "strides", flat, 1),
        "dilations": _setting(node, "dilations", flat, 1),
        "pads": _setting(node, "pads", flat, 0),
        "kernel_shape": None if one.kernel is None else [1, *one.kernel] if flat else list(one.kernel),
        "activation": None if relu is None else "Relu",
    }
    if one.depthwise:
        kernel = layout.depthwise_kernel(ops.Unsqueeze(w, [2]) if flat else w, one.channels)
    else:
        kernel = layout.kernel(w, one.filters, one.channels)
    if flat:
        x = ops.Unsqueeze(x, [2])
    missing = layout.target.whole(one.filters) - one.filters
    if bias is not None and missing:
        bias = ops.Pad(bias, [0, missing])
    blocks = ops.emit("Conv", [layout.into(x), kernel, bias], attributes, domain=DOMAIN, name=node.name)
    blocks.type, blocks.shape = y.type, filled_up(ops, dims_of(y))
    result = layout.out_of(blocks, one.filters)
    if flat:
        result = ops.Squeeze(result, [2])
    result.type, result.shape = out.type, out.shape
    put_in_place(ops.graph, out, result, [node] if relu is None else [relu, node])


def _setting(node: ir.Node, name: str, flat: bool, before: int) -> list[int] | None:
    """Return a setting of the axes of space; where there is one axis, with `before` for a further one in front."""
    values = node.attributes.get_ints(name, None)
    if values is None or not flat:
        return None if values is None else list(values)
    return [before, values[0]] if len(values) == 1 else [before, values[0], before, values[1]]


class _Layout:
    """Bring tensors into the layout of blocks and out of it; what came out whole goes in again as it was."""

    def __init__(self, ops: Ops) -> None:
        self.target = ops.target
        self._ops = ops
        self._same: dict[ir.Value, ir.Value] = {}
        """Plain tensors whose blocks exist."""
        self._orders: dict[tuple[tuple[int, ...], bool], ir.Value] = {}
        """The numbers of elements in blocks, by the kernel's shape and whether it is turned around."""

    def into(self, x: ir.Value) -> ir.Value:
        """Return the blocks of a tensor [N, C, H, W]."""
        if x not in self._same:
            self._same[x] = into_blocks(self._ops, x)
        return self._same[x]

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
