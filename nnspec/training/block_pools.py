"""Max pooling whose windows lie side by side, in blocks of channels: where the maxima are is found by comparing.

ONNX Runtime's MaxPool with Indices goes from element to element with a branch for each, and a processor cannot guess
which is the largest. In blocks, the neighbours of a whole register are compared at once: columns in pairs first, then
rows, so that of equal elements the first one counts, as in MaxPool.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from nnspec.ops import Dims, Ops, dims_of, numbers
from nnspec.ops.blocks import DOMAIN, two_axes
from nnspec.training.block_layout import Layout
from nnspec.training.rewrite import after


def pool(ops: Ops, layout: Layout, node: ir.Node) -> None:
    """Let a MaxPool work on the blocks of its operand, where these exist and its windows are one or two elements wide.

    Its indices are those of elements in blocks; see `unpool`.
    """
    x, y = node.inputs[0], node.outputs[0]
    indices = node.outputs[1] if len(node.outputs) > 1 else None
    if x is None or not layout.has(x) or not _side_by_side(node) or x.dtype != ir.DataType.FLOAT:
        return
    sizes = (dims_of(x) or ())[2:]
    if not all(isinstance(d, int) for d in sizes) or math.prod(numbers(sizes)) * layout.target.block > _EXACT:
        return
    if indices is not None and any(n.op_type != "MaxUnpool" for n in indices.consumers()):
        return
    rows, columns = two_axes(node.attributes["kernel_shape"].as_ints())
    height, width = two_axes(numbers(sizes))
    pooling = _Pooling(ops, rows, columns, height, width)
    blocks = layout.into(x)
    largest = pooling.largest(blocks)
    if indices is None:
        layout.put(y, largest, [node])
        return
    layout.places[indices] = pooling.places(blocks)
    # Places are found before the network goes on: by then, what is pooled is no longer needed.
    largest = after(ops, largest, [layout.places[indices]])
    # What unpools still reads the plain indices; with that the node goes too.
    layout.put(y, largest, [])


def unpool(ops: Ops, layout: Layout, node: ir.Node) -> None:
    """Let a MaxUnpool that reads indices of maxima in blocks work on blocks too."""
    dy, indices, x = node.inputs[0], node.inputs[1], node.outputs[0]
    if indices not in layout.places or dy is None:
        return
    into = layout.into(dy)
    _, channels, *space = dims_of(x) or ()
    sizes = [layout.target.whole(*numbers([channels])), *two_axes(numbers(space))]
    shape = ops.Concat(ops.Shape(into, start=0, end=1), sizes, axis=0)
    windows = {name: two_axes(node.attributes[name].as_ints()) for name in ("kernel_shape", "strides")}
    blocks = ops.MaxUnpool(into, layout.places[indices], shape, name=node.name, **windows)
    layout.put(x, blocks, [node])


def _side_by_side(node: ir.Node) -> bool:
    """Return whether windows are pairs, or squares of four, that neither overlap nor reach over the edge."""
    kernel = node.attributes["kernel_shape"].as_ints()
    if len(kernel) > 2 or not {*kernel} <= {1, 2} or max(kernel) == 1:
        return False
    given = node.attributes
    return (
        list(given.get_ints("strides", [1, 1]))[: len(kernel)] == list(kernel)
        and not any(given.get_ints("pads", ()))
        and {*given.get_ints("dilations", (1,))} == {1}
        and not given.get_int("ceil_mode", 0)
        and given.get_string("auto_pad", "NOTSET") == "NOTSET"
        and not given.get_int("storage_order", 0)
    )


_EXACT = 2**24
"""How many elements float32 counts without error; those of one image are counted in it."""


class _Pooling:
    """Windows of one or two rows and columns over images of a height and width, in blocks."""

    def __init__(self, ops: Ops, rows: int, columns: int, height: int, width: int) -> None:
        self._ops = ops
        self._rows, self._columns = rows, columns
        self._height, self._width = height, width
        self._block = ops.target.block

    def largest(self, blocks: ir.Value) -> ir.Value:
        """Return the maximum of each window."""
        return self._over_rows(self._over_columns(blocks))

    def _over_columns(self, blocks: ir.Value) -> ir.Value:
        return self._pool(blocks, [1, 2]) if self._columns == 2 else blocks

    def _over_rows(self, blocks: ir.Value) -> ir.Value:
        return self._pool(blocks, [2, 1]) if self._rows == 2 else blocks

    def _pool(self, blocks: ir.Value, kernel: list[int]) -> ir.Value:
        dims = dims_of(blocks) or ()
        settings = {"kernel_shape": kernel, "strides": kernel}
        result: ir.Value = self._ops.emit("MaxPool", [blocks], settings, domain=DOMAIN)
        result.type = blocks.type
        result.shape = self._windows(dims, kernel)
        return result

    def places(self, blocks: ir.Value) -> ir.Value:
        """Return for each window where its maximum lies, in elements from the start of the tensor."""
        ops, block = self._ops, self._block
        line = self._width * block
        if self._columns == 1:
            offset = ops.Mul(self._grows(blocks, [[-1], [1]]), float(line))
        else:
            offset = self._grows(blocks, [[-1, 1], [0, 0]] if self._rows == 2 else [[-1, 1]])
            if self._rows == 2:
                below = self._grows(blocks, [[0, 0], [-1, 1]])
                lower = self._grows(self._over_columns(blocks), [[-1], [1]])
                # From the left or right of the row above to that of the row below.
                way = ops.Add(ops.Sub(below, offset), float(self._width))
                offset = ops.Add(ops.Mul(way, lower), offset)
            offset = ops.Mul(offset, float(block))
        high, wide = self._height // self._rows, self._width // self._columns
        corner = np.arange(high)[:, None, None] * (self._rows * line)
        corner = corner + np.arange(wide)[:, None] * (self._columns * block) + np.arange(block)
        offset = ops.Add(ops.Reshape(offset, [-1, high, wide * block]), corner.reshape(high, -1).astype(np.float32))
        images = ops.Range(0, ops.Squeeze(ops.Shape(offset, start=0, end=1), [0]), 1)
        first = ops.Reshape(ops.Mul(images, self._height * line), [-1, 1, 1])
        # In two moves, for each of which processors have one instruction for a whole register.
        place = ops.Add(ops.Cast(ops.Cast(offset, to=ir.DataType.INT32), to=ir.DataType.INT64), first)
        lead = ops.Shape(blocks, start=0, end=1)
        return ops.Reshape(place, ops.Concat(lead, [-1, high, wide], axis=0))  # type: ignore[no-any-return]

    def _grows(self, blocks: ir.Value, kernel: list[list[int]]) -> ir.Value:
        """Return 1 for each window in which the second of two elements is larger than the first, otherwise 0."""
        ops = self._ops
        dims = dims_of(blocks) or ()
        (channels,) = numbers(dims[1:2])
        shape = [len(kernel), len(kernel[0])]
        weight = np.asarray(kernel, np.float32)[..., None] * np.ones(self._block, np.float32)
        weight = np.tile(weight[None], (channels // self._block, 1, 1, 1)).reshape(channels, 1, *shape)
        strides = [self._rows, shape[1]]
        settings = {"kernel_shape": shape, "strides": strides, "group": channels}
        growth = ops.emit("Conv", [blocks, ops.constant(weight), None], settings, domain=DOMAIN)
        growth.type = blocks.type
        growth.shape = self._windows(dims, strides)
        return ops.Cast(ops.Greater(growth, 0.0), to=ir.DataType.FLOAT)  # type: ignore[no-any-return]

    def _windows(self, dims: Dims, strides: list[int]) -> ir.Shape:
        return ir.Shape([*dims[:2], *(size // s for size, s in zip(numbers(dims[2:]), strides, strict=True))])
