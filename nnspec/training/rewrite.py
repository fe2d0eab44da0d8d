"""What passes over a finished graph share: who alone reads a value, what is reduced, one value in another's place.

And one value after another, where the order matters and no data says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from nnspec.ops import Ops, dims_of


def only_reader(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the node of one of these kinds that is a value's one and only reader."""
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    reader = next(iter(value.consumers()))
    return reader if reader.op_type in op_types and not reader.domain else None


def reduced_axes(node: ir.Node) -> list[int] | None:
    """Return the axes that a reduction names, from the front and in order; None where they are unknown."""
    x, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    dims = None if x is None else dims_of(x)
    if dims is None or axes is None or axes.const_value is None:
        return None
    return sorted(int(a) % len(dims) for a in axes.const_value.numpy().reshape(-1))


def put_in_place(graph: ir.Graph, old: ir.Value, new: ir.Value, gone: Sequence[ir.Node]) -> None:
    """Let `new` stand for `old`: its name, type and shape, and as the graph's output; remove `gone`, last first."""
    new.type, new.shape = old.type, old.shape
    name, old.name = old.name, None
    new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(gone, safe=True)


def after(ops: Ops, value: ir.Value, others: Sequence[ir.Value]) -> ir.Value:
    """Return a view of a value that can be read only once the others have been computed.

    ONNX has no edges but those of data: the view's shape is joined with empty parts of what it waits for.
    """
    empty = [ops.Reshape(ops.Slice(v, [0], [0], [0]), ops.constant([0]), allowzero=1) for v in others]
    same = ops.constant([0] * len(dims_of(value) or ()))
    waits = [e if e.dtype == ir.DataType.INT64 else ops.Cast(e, to=int(ir.DataType.INT64)) for e in empty]
    view: ir.Value = ops.Reshape(value, ops.Concat(same, *waits, axis=0))
    view.type, view.shape = value.type, value.shape
    return view
