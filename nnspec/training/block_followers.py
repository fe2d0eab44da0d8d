"""What stands between convolutions in blocks of channels stays in blocks: activations, normalisation, means, sums.

Bringing a tensor into blocks and back is a pass over it; an operator that works element by element needs neither.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from nnspec.ops import Dims, Ops, dims_of
from nnspec.ops.blocks import DOMAIN
from nnspec.training.block_layout import Layout, moved
from nnspec.training.block_pools import pool, unpool
from nnspec.training.rewrite import only_reader, put_in_place, reduced_axes

_ELEMENTWISE = frozenset(
    """Abs Neg Exp Log Sqrt Reciprocal Tanh Sigmoid HardSigmoid Relu LeakyRelu Elu Selu Celu Gelu Softplus Softsign Mish
    HardSwish ThresholdedRelu Erf Clip Add Sub Mul Div Sum Min Max""".split()  # noqa: SIM905
)
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax"})
_OF_ZERO = frozenset("Abs Neg Sqrt Tanh Relu LeakyRelu Elu Selu Celu Gelu Softsign Mish HardSwish Erf".split())  # noqa: SIM905
"""Functions that are zero where their argument is."""


def follow(ops: Ops, layout: Layout, node: ir.Node) -> None:
    """Let a node work on the blocks of its operands, where they exist and it can; in place."""
    if node.domain:
        return
    if node.op_type == "MaxPool":
        pool(ops, layout, node)
    elif node.op_type == "MaxUnpool":
        unpool(ops, layout, node)
    elif node.op_type == "Transpose":
        x = moved(node.outputs[0], to=-1)
        if x is not None and layout.has(x):
            put_in_place(ops.graph, node.outputs[0], layout.move_last(x), [node])
    elif len(node.outputs) == 1 and node.outputs[0].dtype == ir.DataType.FLOAT:
        if node.op_type in _REDUCTIONS:
            _reduce(ops, layout, node)
        else:
            _follow_element_by_element(ops, layout, node)


def _follow_element_by_element(ops: Ops, layout: Layout, node: ir.Node) -> None:
    shape = dims_of(node.outputs[0])
    if shape is None or len(shape) not in (3, 4) or None in shape:
        return
    operands = [v for v in node.inputs if v is not None]
    large = [v for v in operands if dims_of(v) == shape]
    if not large or 2 * sum(map(layout.has, large)) < len(large):
        return
    small = [v for v in operands if dims_of(v) != shape]
    if node.op_type in ("Add", "Sum") and not small and _accumulate(layout, node):
        return
    if node.op_type in _ELEMENTWISE and all(_is_single(dims_of(v)) for v in small):
        if layout.is_whole(node.outputs[0]) or _keeps_zeros(node, small):
            given = [layout.into(v) if v in large else v for v in operands]
            blocks = ops.emit(node.op_type, given, dict(node.attributes), name=node.name)
            layout.put(node.outputs[0], blocks, [node])
    else:
        _scale_and_shift(ops, layout, node, large, small)


def _keeps_zeros(node: ir.Node, small: list[ir.Value]) -> bool:
    """Return whether the result is zero where all large operands are: what fills up a block has to stay so."""
    if node.op_type in ("Add", "Sub", "Sum", "Min", "Max"):
        return not small
    if node.op_type == "HardSigmoid":
        return node.attributes.get_float("beta", 0.5) == 0
    return node.op_type in _OF_ZERO or node.op_type == "Mul" or (node.op_type == "Div" and node.inputs[1] in small)


def _accumulate(layout: Layout, node: ir.Node) -> bool:
    """Let convolutions whose results are only added up add to each other's blocks in place; return whether they do."""
    terms = [v for v in node.inputs if v is not None]
    if not all(map(layout.has, terms)) or len({*terms}) < len(terms):
        return False
    adding = [v for v in terms if _can_add(layout, v)]
    others = [v for v in terms if v not in adding]
    if not others:
        adding, others = adding[1:], adding[:1]
    if not adding or len(others) != 1 or not layout.spent_in(node, others[0]):
        return False
    total = layout.into(others[0])
    relu = only_reader(node.outputs[0], "Relu")
    for i, term in enumerate(adding, 1):
        blocks = layout.into(term)
        convolution = blocks.producer()
        assert convolution is not None
        convolution.resize_inputs(4)
        convolution.replace_input_with(3, total)
        if relu is not None and i == len(adding):
            convolution.attributes["activation"] = ir.AttrString("activation", "Relu")
        total = blocks
    gone = [node] if relu is None else [relu, node]
    layout.put(gone[0].outputs[0], total, gone)
    return True


def _can_add(layout: Layout, term: ir.Value) -> bool:
    """Return whether blocks come from a convolution that adds nothing yet, and nothing but the sum reads them."""
    blocks = layout.into(term)
    node = blocks.producer()
    if node is None or node.op_type != "Conv" or "activation" in node.attributes or len(node.inputs) > 3:
        return False
    return len(blocks.uses()) == 1 and len(term.uses()) == 1 and not term.is_graph_output()


def _is_single(dims: Dims | None) -> bool:
    return dims is not None and all(d == 1 for d in dims)


def _scale_and_shift(ops: Ops, layout: Layout, node: ir.Node, large: list[ir.Value], small: list[ir.Value]) -> None:
    """Let a node that treats each channel in its own way be a depthwise convolution with one place."""
    found = _factors(ops, node, small) if len(large) == 1 else None
    if found is None:
        return
    scale, shift = found
    addition, other = _addition(layout, node)
    relu = only_reader((addition or node).outputs[0], "Relu")
    channels = int((dims_of(large[0]) or ())[1])  # type: ignore[arg-type]
    whole = layout.target.whole(channels)
    if whole != channels:
        scale = ops.Pad(scale, [0, whole - channels])
        shift = None if shift is None else ops.Pad(shift, [0, whole - channels])
    settings = {"group": whole, "kernel_shape": [1, 1], "activation": None if relu is None else "Relu"}
    kernel = ops.Reshape(scale, [whole, 1, 1, 1])  # in blocks it lies as it is
    given = [layout.into(large[0]), kernel, shift, None if other is None else layout.into(other)]
    blocks = ops.emit("Conv", given, settings, domain=DOMAIN, name=node.name)
    gone = [n for n in (relu, addition, node) if n is not None]
    layout.put(gone[0].outputs[0], blocks, gone)


def _factors(ops: Ops, node: ir.Node, small: list[ir.Value]) -> tuple[ir.Value, ir.Value | None] | None:
    """Return the vectors that a node multiplies each channel by and adds to it; None for any other node."""
    if node.op_type == "BatchNormalization" and not node.attributes.get_int("training_mode", 0):
        return _of_statistics(ops, node, small)
    if node.op_type not in ("Add", "Sub", "Mul") or (node.op_type == "Sub" and node.inputs[1] is not small[0]):
        return None
    channels, *space = (dims_of(node.outputs[0]) or ())[1:]
    vectors = [(channels, *(1 for _ in space)), (1, channels, *(1 for _ in space))]
    if dims_of(small[0]) not in vectors:
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
    if other is None or not layout.has(other) or dims_of(other) != dims_of(out):
        return None, None
    return (addition, other) if layout.spent_in(addition, other) else (None, None)


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
    _, channels, *sizes = dims
    if not all(isinstance(d, int) for d in sizes):
        return
    space = [*range(2, len(dims))]
    behind = only_reader(node.outputs[0], node.op_type) if over == space else None
    if behind is not None and reduced_axes(behind) != [0]:
        behind = None
    last = node if behind is None else behind
    reduce = getattr(ops, node.op_type)
    target = layout.target
    blocks, whole = layout.into(x), target.whole(int(channels))  # type: ignore[arg-type]
    if behind is not None or over == [0, *space]:
        # One image, the sum of all, is soon reduced.
        blocks = reduce(ops.Reshape(blocks, [0, whole * math.prod(sizes)]), [0], keepdims=1)  # type: ignore[arg-type]
    elif over != space:
        return
    # Columns first: neighbours in memory belong to different sums.
    for size in sizes:
        blocks = reduce(ops.Reshape(blocks, [0, whole // target.block, size, -1]), [2], keepdims=0)
    result = ops.Reshape(blocks, [-1, whole])
    if whole != channels:
        result = ops.Slice(result, [0], [channels], [1])
    out = last.outputs[0]
    # All that is left is a vector for each sample, or one.
    result = ops.Reshape(result, [-1 if d is None or isinstance(d, str) else d for d in dims_of(out) or ()])
    put_in_place(ops.graph, out, result, [last] if behind is None else [last, node])
