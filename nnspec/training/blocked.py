"""Convolutions, and what stands between them, in the layout of ONNX Runtime's own CPU kernels: `nnspec.ops.blocks`.

Its optimizer uses this layout by itself, but only where weights are constants, which those of a training step are not.
Here the reordering is made part of the graph. An image of few channels goes in as it is: the first convolution makes
blocks of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.ops import Ops, Target, dims_of
from nnspec.ops.blocks import DOMAIN, filled_up, two_axes
from nnspec.training.block_followers import follow
from nnspec.training.block_layout import Layout
from nnspec.training.rewrite import only_reader, put_in_place


def use_blocks(graph: ir.Graph, target: Target) -> None:
    """Let the convolutions of a graph that gain by it run in blocks of channels; in place."""
    ops = Ops(graph, target=target)
    layout = Layout(ops)
    for node in list(graph):
        if node.graph is None:
            continue  # a part of one before it
        one = _convolution(node, layout)
        if one is not None:
            _rewrite(ops, layout, one)
        else:
            follow(ops, layout, node)
    layout.join(graph)
    if any(node.domain == DOMAIN for node in ir.traversal.RecursiveGraphIterator(graph)):
        graph.opset_imports[DOMAIN] = 1
    graph.sort()


@dataclass(frozen=True)
class _Convolution:
    """A Conv node that gains, with what is known of it.

    `depthwise` has one filter for each channel; an `image` has channels too few for a block and stays as it is.
    """

    node: ir.Node
    filters: int
    channels: int
    kernel: tuple[int, ...] | None
    depthwise: bool = False
    image: bool = False


def _convolution(node: ir.Node, layout: Layout) -> _Convolution | None:
    target = layout.target
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
        return _Convolution(node, filters, channels, sizes, depthwise=True) if fits else None
    if group != 1 or sizes is None or (math.prod(sizes) == 1 and not layout.has(x)):
        return None  # for 1x1 the plain kernel is one product already
    image = channels < target.block
    fits = filters >= target.block and not target.wastes(filters) if image else target.fits(channels, filters)
    return _Convolution(node, filters, channels, sizes, image=image) if fits else None


def _rewrite(ops: Ops, layout: Layout, one: _Convolution) -> None:
    node = one.node
    x, w = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    y = node.outputs[0]
    assert x is not None
    assert w is not None
    relu = only_reader(y, "Relu")
    out = y if relu is None else relu.outputs[0]
    flat = len(dims_of(x) or ()) == 3  # one axis of space
    attributes = {
        "group": one.channels if one.depthwise else 1,
        "strides": _setting(node, "strides", flat, 1),
        "dilations": _setting(node, "dilations", flat, 1),
        "pads": _setting(node, "pads", flat, 0),
        "kernel_shape": None if one.kernel is None else two_axes(one.kernel),
        "activation": None if relu is None else "Relu",
    }
    if one.depthwise:
        kernel = layout.depthwise_kernel(layout.image(w), one.channels)
    elif one.image:
        kernel = layout.kernel_of_image(w, one.filters, one.channels)
    else:
        kernel = layout.kernel(w, one.filters, one.channels)
    missing = layout.target.whole(one.filters) - one.filters
    if bias is not None and missing:
        bias = ops.Pad(bias, [0, missing])
    data = layout.image(x) if one.image else layout.into(x)
    blocks = ops.emit("Conv", [data, kernel, bias], attributes, domain=DOMAIN, name=node.name)
    blocks.type, blocks.shape = y.type, filled_up(ops, dims_of(y))
    result = layout.out_of(blocks, one.filters, 3 if flat else 4)
    put_in_place(ops.graph, out, result, [node] if relu is None else [relu, node])


def _setting(node: ir.Node, name: str, flat: bool, before: int) -> list[int] | None:
    """Return a setting of the axes of space; where there is one axis, with `before` for a further one in front."""
    values = node.attributes.get_ints(name, None)
    if values is None or not flat:
        return None if values is None else list(values)
    return [before, values[0]] if len(values) == 1 else [before, values[0], before, values[1]]
