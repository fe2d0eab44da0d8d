"""What passes over a finished graph share: whose only reader a value is, and putting another value in its place."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir


def only_reader(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the node of one of these kinds that is a value's one and only reader."""
    if len(value.uses()) != 1 or value.is_graph_output():
        return None
    reader = next(iter(value.consumers()))
    return reader if reader.op_type in op_types and not reader.domain else None


def put_in_place(graph: ir.Graph, old: ir.Value, new: ir.Value, gone: Sequence[ir.Node]) -> None:
    """Let `new` stand for `old`, under its name and as the graph's output too; remove the nodes `gone`, last first."""
    name, old.name = old.name, None
    new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(gone, safe=True)
