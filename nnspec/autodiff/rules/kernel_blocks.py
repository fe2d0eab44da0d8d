"""The gradient of a convolution's weight as a convolution of whole images, in blocks of channels."""

from __future__ import annotations

import dataclasses
import math

import onnx_ir as ir

from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import Term
from nnspec.ops.blocks import DOMAIN, into_blocks, out_of_blocks
from nnspec.ops.target import ALIGNED


def fits(x: Term, dy: Term, w: Term, window: Window) -> bool:
    """Return whether `by_blocks` takes a convolution without groups: channels that fill blocks, images of known size.

    Samples fill up blocks too; few of them would be mostly zeros.
    """
    target = dy.op.target
    block = target.block
    if not block or window.axes > 2 or window.dilations[-1] != 1 or target.wastes(target.batch):
        return False
    filters, depth = w.dims[:2]
    if not all(isinstance(d, int) for d in (filters, depth, *x.dims[2:], *dy.dims[2:])):
        return False
    return target.fits(depth, filters) and filters % ALIGNED == 0  # type: ignore[arg-type,operator]


def by_blocks(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """A convolution of x with dy: samples are what it sums over, and x's channels are images.

    It has as many results per image as the kernel has places: too few to fill the registers. So the channels of a block
    lie side by side in a row, [.., W, b], and dy meets every b-th element: the results of a whole block are neighbours.
    See `fits`.
    """
    if window.axes == 1:
        flat = window
        window = Window(*((1, *getattr(flat, f.name)) for f in dataclasses.fields(flat)))  # type: ignore[arg-type]
        window = dataclasses.replace(window, begins=(0, *flat.begins), ends=(0, *flat.ends))
        two = by_blocks(x.unsqueeze([2]), dy.unsqueeze([2]), w.unsqueeze([2]), window, group)
        return two.squeeze([2])
    op, block = dy.op, dy.op.target.block
    filters, depth = _ints(w.dims[:2])
    rows, columns = map(op.target.whole, (filters, depth))
    size, count = _ints(x.dims[2:]), _ints(dy.dims[2:])
    # Exactly the rows and columns that windows reach: zeros are added behind, or rows left over are cut off.
    reach = [(c - 1) * s + e for c, s, e in zip(count, window.strides, window.extent, strict=True)]
    behind = [r - b - s for r, b, s in zip(reach, window.begins, size, strict=True)]
    batch = x.shape(0, 1)
    missing = op.Mod(-batch, [block])

    lines = _in_groups(op.term(into_blocks(op.ops, x.value)), columns // block, op.Range(0, op.Squeeze(batch, [0]), 1))
    lines = op.Reshape(lines, [0, 0, size[0], size[1] * block])
    pads = op.Concat([0, 0, 0, window.begins[1] * block, 0], missing, [min(behind[0], 0), behind[1] * block], axis=0)
    data = into_blocks(op.ops, op.Pad(lines, pads).value)

    # Samples that fill up the last block meet zeros, so any will do.
    samples = op.Min(op.Range(0, op.Squeeze(batch + missing, [0]), 1), batch - 1)
    if rows != filters:
        dy = op.term(out_of_blocks(op.ops, into_blocks(op.ops, dy.value), rows))
    images = op.Reshape(_in_groups(dy, rows // block, samples), [0, 0, 1, -1])
    first = op.term(into_blocks(op.ops, images.value))  # [M/b, N/b, b of M, h, w, b of N]
    second = into_blocks(op.ops, op.Reshape(first, [-1, block, 1, count[0] * count[1] * block]).value)
    kernel = op.Reshape(op.term(second), [rows, -1, *count])

    settings = {
        "kernel_shape": count,
        "strides": [window.dilations[0], 1],
        "dilations": [window.strides[0], window.strides[1] * block],
        "pads": [window.begins[0], 0, max(behind[0], 0), 0],
        "group": 1,
    }
    blocks: ir.Value = op.ops.emit("Conv", [data, kernel.value], settings, domain=DOMAIN)
    high, wide = window.kernel
    blocks.type, blocks.shape = dy.value.type, ir.Shape([columns // block, rows, high, wide * block])
    plain = op.term(out_of_blocks(op.ops, blocks, filters))  # [C/b, M, h, w, b of C]
    plain = op.term(out_of_blocks(op.ops, op.Reshape(plain, [-1, block, high, wide]).value, block))
    dw = op.Reshape(plain, [columns // block, filters, block * high * wide]).transpose([1, 0, 2])
    dw = dw.reshape([filters, columns, high, wide])
    return dw if columns == depth else dw.slice(1, 0, depth)


def _in_groups(t: Term, groups: int, samples: Term) -> Term:
    """Return [groups, samples, elements]: the groups of channels of the samples that are named."""
    op = t.op
    rows = samples * groups + op.const([[i] for i in range(groups)])
    return op.Gather(op.Reshape(t, [-1, math.prod(_ints(t.dims[1:])) // groups]), rows, axis=0)


def _ints(dims: object) -> list[int]:
    return [int(d) for d in dims]  # type: ignore[attr-defined]
