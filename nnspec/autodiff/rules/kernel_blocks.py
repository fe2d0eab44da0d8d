"""The gradient of a convolution's weight as a convolution of whole images, in blocks of channels."""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import Term
from nnspec.ops import numbers
from nnspec.ops.blocks import DOMAIN, into_blocks, out_of_blocks, whole_blocks


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
    return target.fits(depth, filters)  # type: ignore[arg-type]


def by_blocks(x: Term, dy: Term, w: Term, window: Window, group: int) -> Term:
    """A convolution of x with dy: samples are what it sums over, and x's channels are images.

    It has as many results per image as the kernel has places: too few to fill the registers. So the channels of a block
    lie side by side in a row, [.., W, b], and dy meets every b-th element: the results of a whole block are neighbours.
    See `fits`.
    """
    if window.axes == 1:
        flat = window
        ones = (1, *flat.kernel), (1, *flat.strides), (1, *flat.dilations)
        window = Window(*ones, begins=(0, *flat.begins), ends=(0, *flat.ends))
        x, dy, w = (t.unsqueeze([2]) for t in (x, dy, w))
        return by_blocks(x, dy, w, window, group).squeeze([2])
    op, block = dy.op, dy.op.target.block
    filters, depth = numbers(w.dims[:2])
    rows, columns = map(op.target.whole, (filters, depth))
    # Exactly the rows and columns that windows reach: zeros are added behind, or rows left over are cut off.
    reach = [(c - 1) * s + e for c, s, e in zip(numbers(dy.dims[2:]), window.strides, window.extent, strict=True)]
    behind = [r - b - s for r, b, s in zip(reach, window.begins, numbers(x.dims[2:]), strict=True)]
    settings = {
        "kernel_shape": numbers(dy.dims[2:]),
        "strides": [window.dilations[0], 1],
        "dilations": [window.strides[0], window.strides[1] * block],
        "pads": [window.begins[0], 0, max(behind[0], 0), 0],
        "group": 1,
    }
    given = [_data(x, window.begins[1], (min(behind[0], 0), behind[1])), _kernel(dy, filters)]
    blocks: ir.Value = op.ops.emit("Conv", given, settings, domain=DOMAIN)
    high, wide = window.kernel
    blocks.type, blocks.shape = dy.value.type, ir.Shape([columns // block, rows, high, wide * block])
    plain = op.term(out_of_blocks(op.ops, blocks, filters))  # [C/b, M, h, w, b of C]
    plain = op.term(out_of_blocks(op.ops, op.Reshape(plain, [-1, block, high, wide]).value, block))
    dw = op.Reshape(plain, [columns // block, filters, block * high * wide]).transpose([1, 0, 2])
    dw = dw.reshape([filters, columns, high, wide])
    return dw if columns == depth else dw.slice(1, 0, depth)


def _data(x: Term, left: int, behind: tuple[int, int]) -> ir.Value:
    """Return x as images [C/b, N, H, W b] in blocks of samples, with zeros on the left, and rows and columns behind."""
    op, block = x.op, x.op.target.block
    lines = op.term(into_blocks(op.ops, x.value))
    columns, height, width = numbers(lines.dims[1:])
    batch = x.shape(0, 1)
    lines = _in_groups(lines, columns // block, op.Range(0, op.Squeeze(batch, [0]), 1))
    lines = op.Reshape(lines, [0, 0, height, width * block])
    pads = op.Concat([0, 0, 0, left * block, 0], _missing(x), [behind[0], behind[1] * block], axis=0)
    padded = op.Pad(lines, pads).value
    samples = whole_blocks(op.target, x.dims[0])
    padded.shape = ir.Shape([columns // block, samples, height + behind[0], (left + width + behind[1]) * block])
    return into_blocks(op.ops, padded)


def _kernel(dy: Term, filters: int) -> ir.Value:
    """Return dy as a kernel [M, N, h, w] in blocks of filters and samples."""
    op, block = dy.op, dy.op.target.block
    rows = op.target.whole(filters)
    if rows != filters:
        dy = op.term(out_of_blocks(op.ops, into_blocks(op.ops, dy.value), rows))
    batch, (height, width) = dy.shape(0, 1), numbers(dy.dims[2:])
    # Samples that fill up the last block meet zeros, so any will do.
    samples = op.Min(op.Range(0, op.Squeeze(batch + _missing(dy), [0]), 1), batch - 1)
    images = _in_groups(dy, rows // block, samples)
    images.value.shape = ir.Shape([rows // block, whole_blocks(op.target, dy.dims[0]), images.dims[2]])
    first = op.term(into_blocks(op.ops, op.Reshape(images, [0, 0, 1, -1]).value))  # [M/b, N/b, b of M, h, w, b of N]
    second = op.term(into_blocks(op.ops, op.Reshape(first, [-1, block, 1, height * width * block]).value))
    kernel: ir.Value = op.Reshape(second, [rows, -1, height, width]).value
    return kernel


def _missing(t: Term) -> Term:
    """Return how many samples would fill up the last block of them."""
    return t.op.Mod(-t.shape(0, 1), [t.op.target.block])


def _in_groups(t: Term, groups: int, samples: Term) -> Term:
    """Return [groups, samples, elements]: the groups of channels of the samples that are named."""
    op = t.op
    rows = samples * groups + op.const([[i] for i in range(groups)])
    return op.Gather(op.Reshape(t, [-1, math.prod(numbers(t.dims[1:])) // groups]), rows, axis=0)
