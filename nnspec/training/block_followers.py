"""What stands between convolutions in blocks of channels stays in blocks: activations, normalisation, means, sums.

Bringing a tensor into blocks and back is a pass over it; an operator that works element by element needs neither.
"""

from __future__ import annotations

import onnx_ir as ir

from nnspec.ops import Dims, Ops, dims_of
from nnspec.ops.blocks import DOMAIN
from nnspec.training.block_layout import Layout
from nnspec.training.rewrite import only_reader, put_in_place, reduced_axes

_ELEMENTWISE = frozenset(
    """Abs Neg Exp Log Sqrt Reciprocal Tanh Sigmoid HardSigmoid Relu LeakyRelu Elu Selu Celu Gelu Softplus Softsign Mish
    HardSwish ThresholdedRelu Erf Clip Add Sub Mul Div Sum Min Max""".split()  # noqa: SIM905
)
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum"})


def follow(ops: Ops, layout: Layout, node: ir.Node) -> None:
    """Let a node work on the blocks of its operands, where they exist and it can; in place."""
    out = node.outputs[0]
    if node.domain or len(node.outputs) != 1 or out.dtype != ir.DataType.FLOAT:
        return
    if node.op_type in _REDUCTIONS:
        _reduce(ops, layout, node)
        return
    shape = dims_of(out)
    if shape is None or len(shape) != 4 or None in shape:
        return
    operands = [v for v in node.inputs if v is not None]
    large = [v for v in operands if dims_of(v) == shape]
    if not large or 2 * sum(map(layout.has, large)) < len(large):
        return
    small = [v for v in operands if dims_of(v) != shape]
    if node.op_type in _ELEMENTWISE and all(_is_single(dims_of(v)) for v in small):
        given = [layout.into(v) if v in large else v for v in operands]
        _put(layout, node, ops.emit(node.op_type, given, dict(node.attributes), name=node.name))
    else:
        _scale_and_shift(ops, layout, node, large, small)


def _is_single(dims: Dims | None) -> bool:
    return dims is not None and all(d == 1 for d in dims)


def _put(layout: Layout, node: ir.Node, blocks: ir.Value, *behind: ir.Node) -> None:
    """Let blocks stand for the result of a node, or of those behind it that they include."""
    out = (behind[-1] if behind else node).outputs[0]
    dims = dims_of(out) or ()
    blocks.type, blocks.shape = out.type, ir.Shape(dims)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    put_in_place(graph, out, layout.out_of(blocks, int(dims[1])), [*reversed(behind), node])  # type: ignore[arg-type]


def _scale_and_shift(ops: Ops, layout: Layout, node: ir.Node, large: list[ir.Value], small: list[ir.Value]) -> None:
    """Let a node that treats each channel in its own way be a depthwise convolution with one place."""
    found = _factors(ops, node, small) if len(large) == 1 else None
    if found is None:
        return
    scale, shift = found
    addition, other = _addition(layout, node)
    relu = only_reader((addition or node).outputs[0], "Relu")
    channels = int((dims_of(large[0]) or ())[1])  # type: ignore[arg-type]
    settings = {"group": channels, "kernel_shape": [1, 1], "activation": None if relu is None else "Relu"}
    kernel = ops.Reshape(scale, [channels, 1, 1, 1])  # in blocks it lies as it is
    given = [layout.into(large[0]), kernel, shift, None if other is None else layout.into(other)]
    blocks = ops.emit("Conv", given, settings, domain=DOMAIN, name=node.name)
    _put(layout, node, blocks, *(n for n in (addition, relu) if n is not None))


def _factors(ops: Ops, node: ir.Node, small: list[ir.Value]) -> tuple[ir.Value, ir.Value | None] | None:
    """Return the vectors that a node multiplies each channel by and adds to it; None for any other node."""
    if node.op_type == "BatchNormalization" and not node.attributes.get_int("training_mode", 0):
        return _of_statistics(ops, node, small)
    if node.op_type not in ("Add", "Sub", "Mul") or (node.op_type == "Sub" and node.inputs[1] is not small[0]):
        return None
    channels = (dims_of(node.outputs[0]) or ())[1]
    if dims_of(small[0]) not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    vector = ops.Reshape(small[0], [channels])
    if node.op_type == "Mul":
        return vector, None
    return ops.constant([1.0] * int(channels), vector.dtype), vector if node.op_type == "Add" else ops.Neg(vector)  # type: ignore[arg-type]


def _addition(layout: Layout, node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """Return the node that alone reads a result, to add blocks to it that nothing else will read; and these.

    The convolution adds to these blocks in place. Where they are read later, they would have to be copied.
    """
    out = node.outputs[0]
    addition = only_reader(out, "Add")
    if addition is None:
        return None, None
    other = addition.inputs[0] if addition.inputs[1] is out else addition.inputs[1]
    if other is None or not layout.has(other) or dims_of(other) != dims_of(out) or other.is_graph_output():
        return None, None
    return (addition, other) if layout.last_reader(other) is addition else (None, None)


def _of_statistics(ops: Ops, node: ir.Node, given: list[ir.Value]) -> tuple[ir.Value, ir.Value]:
    """Return what a normalisation by given statistics multiplies by and then adds."""
    scale, shift, centre, variance = given
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if not (epsilon == 0 and _holds(variance, 1)):
        scale = ops.Div(scale, ops.Sqrt(ops.Add(variance, ops.constant(epsilon, scale.dtype))))
    return scale, shift if _holds(centre, 0) else ops.Sub(shift, ops.Mul(centre, scale))


def _holds(value: ir.Value, number: float) -> bool:
    """Return whether a value is a constant, all of whose elements are one number."""
    return value.const_value is not None and bool((value.const_value.numpy() == number).all())


def _reduce(ops: Ops, layout: Layout, node: ir.Node) -> None:
    """Reduce over height and width, and over the batch where that is asked for too."""
    x, over = node.inputs[0], reduced_axes(node)
    dims = None if x is None else dims_of(x)
    if x is None or dims is None or over is None or not layout.has(x):
        return
    _, channels, height, width = dims
    if not (isinstance(height, int) and isinstance(width, int)):
        return
    behind = only_reader(node.outputs[0], node.op_type) if over == [2, 3] else None
    if behind is not None and reduced_axes(behind) != [0]:
        behind = None
    last = node if behind is None else behind
    reduce = getattr(ops, node.op_type)
    block = layout.target.block
    blocks, whole = layout.into(x), int(channels) // block  # type: ignore[arg-type]
    batch = behind is not None or over == [0, 2, 3]
    if batch:
        # One image, the sum of all, is soon reduced.
        blocks = reduce(ops.Reshape(blocks, [0, int(channels) * height * width]), [0], keepdims=1)  # type: ignore[arg-type]
    elif over != [2, 3]:
        return
    # Columns first: neighbours in memory belong to different sums.
    rows = reduce(ops.Reshape(blocks, [0, whole, height, width * block]), [2], keepdims=0)
    result = reduce(ops.Reshape(rows, [0, whole, width, block]), [2], keepdims=0)
    out = last.outputs[0]
    # All that is left is a vector for each sample, or one.
    result = ops.Reshape(result, [-1 if d is None or isinstance(d, str) else d for d in dims_of(out) or ()])
    put_in_place(ops.graph, out, result, [last] if behind is None else [last, node])
