"""What passes over a finished graph share: who alone reads a value, what is reduced, one value in another's place."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from nnspec.ops import dims_of


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
