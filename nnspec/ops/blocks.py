"""The layout of ONNX Runtime's own CPU convolutions: channels in blocks that one vector register holds.

A tensor [N, C, H, W] lies in it as [N, C/b, H, W, b], a kernel [M, C, h, w] as [M/b, C/b, h, w, b of C, b of M], a
depthwise one as [C/b, h, w, b]; what is missing in the last block is zeros. Its operators say nothing of the order:
their tensors have the dims of plain ones, channels filled up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import onnx_ir as ir

from nnspec.ops.builder import Ops
from nnspec.ops.infer import Dims, dims_of, factors
from nnspec.ops.target import Target

_T = TypeVar("_T")

DOMAIN = "com.microsoft.nchwc"
"""The domain of the operators that take tensors in blocks; a model that uses them has to import it."""
_ALIGNED = 4
"""Channels come in multiples of this into the layout of blocks."""


def into_blocks(ops: Ops, x: ir.Value, *, channels_last: bool = False) -> ir.Value:
    """Return the blocks of a tensor [N, C, H, W], or with `channels_last` of [N, H, W, C]; see `comes_in_last`."""
    dims = dims_of(x)
    if channels_last:
        assert dims is not None
        dims = (dims[0], dims[3], *dims[1:3])
    elif dims is not None and isinstance(dims[1], int) and dims[1] % _ALIGNED:
        x = ops.Pad(x, [0, 0, 0, 0, 0, -dims[1] % _ALIGNED, 0, 0])
    blocks: ir.Value = ops.emit("ReorderInput", [x], {"channels_last": int(channels_last)}, domain=DOMAIN)
    blocks.type, blocks.shape = x.type, filled_up(ops, dims)
    return blocks


def comes_in_last(channels: int | str | None) -> bool:
    """Return whether so many channels may be the last axis of a tensor that goes into blocks."""
    return isinstance(channels, int) and channels % _ALIGNED == 0


def brought_in(node: ir.Node) -> ir.Value | None:
    """Return the tensor that a node, or a node and that which fills up its channels, brings into blocks."""
    if node.op_type != "ReorderInput" or node.attributes["channels_last"].as_int():
        return None
    x = node.inputs[0]
    pad = None if x is None else x.producer()
    if pad is None or pad.op_type != "Pad" or len(pad.inputs) != 2:
        return x
    pads = pad.inputs[1].const_value if pad.inputs[1] is not None else None
    added = [] if pads is None else pads.numpy().tolist()
    alone = len(added) == 8 and 0 < added[5] < _ALIGNED and not any(added[:5] + added[6:])
    return pad.inputs[0] if alone else x


def out_of_blocks(ops: Ops, blocks: ir.Value, channels: int, *, channels_last: bool = False) -> ir.Value:
    """Return the tensor of `channels` channels that lies in blocks; channels are its last axis, or follow the batch."""
    attributes = {"channels": channels, "channels_last": int(channels_last)}
    plain: ir.Value = ops.emit("ReorderOutput", [blocks], attributes, domain=DOMAIN)
    dims = dims_of(blocks)
    if dims is not None:
        dims = (dims[0], *dims[2:], channels) if channels_last else (dims[0], channels, *dims[2:])
    plain.type, plain.shape = blocks.type, None if dims is None else ir.Shape(dims)
    return plain


def filled_up(ops: Ops, dims: Dims | None) -> ir.Shape | None:
    """Return the shape that the blocks of a tensor have, with two axes of space."""
    if dims is None:
        return None
    channels = ops.target.whole(dims[1]) if isinstance(dims[1], int) else dims[1]
    if channels is not None and factors([channels])[0] % ops.target.block:
        channels = None
    return ir.Shape([dims[0], channels, *two_axes(dims[2:])])


def two_axes(sizes: Sequence[_T]) -> list[_T | int]:
    """Return sizes of the axes of space as those of height and width: a single axis is the width."""
    return [1, *sizes] if len(sizes) == 1 else [*sizes]


_BLOCKS = ".blocks"


def whole_blocks(target: Target, dim: int | str | None) -> int | str | None:
    """Return a size filled up to whole blocks; of a symbol, a product with the symbol for their number."""
    if isinstance(dim, str):
        return f"{target.block}*{dim}{_BLOCKS}{target.block}"
    return None if dim is None else target.whole(dim)


def number_of_blocks(symbol: str, sizes: Mapping[str, int]) -> int | None:
    """Return what a symbol for a number of blocks stands for, where the size that fills them is known."""
    size, _, block = symbol.rpartition(_BLOCKS)
    return Target(block=int(block)).whole(sizes[size]) // int(block) if size in sizes else None
