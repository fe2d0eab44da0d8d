"""Leave out of a finished graph what it does not need: dead nodes, duplicates, identities, moves that are undone."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from nnspec.autodiff.algebra import producer, viewed
from nnspec.ops import IR_VERSION


def simplify(graph: ir.Graph) -> None:
    """Simplify a graph in place; inputs and outputs keep their names."""
    model = ir.Model(graph, ir_version=IR_VERSION)
    names = [v.name for v in graph.outputs]
    # Dead code first: what is not there need not be compared.
    RemoveUnusedNodesPass()(model)
    _skip_identities(graph)
    _join_moves(graph)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
    assert [v.name for v in graph.outputs] == names


def _skip_identities(graph: ir.Graph) -> None:
    """Take out identities inside the graph; those that give an output stay, for two outputs may be one value."""
    for node in list(graph):
        if node.op_type != "Identity" or node.domain:
            continue
        source, out = node.inputs[0], node.outputs[0]
        if source is None or out in graph.outputs:
            continue
        ir.convenience.replace_all_uses_with(out, source)
        graph.remove(node, safe=True)


def _join_moves(graph: ir.Graph) -> None:
    """Let a transposition of a transposition, and a view of a view, start from what the first one moves."""
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if source is None or node.domain:
            continue
        if node.op_type == "Reshape" and _whole(node):
            node.replace_input_with(0, viewed(source))
        elif node.op_type == "Transpose" and (first := producer(source, "Transpose")) is not None:
            inner, outer = (n.attributes.get_ints("perm") for n in (first, node))
            if inner is not None and outer is not None:
                node.replace_input_with(0, first.inputs[0])
                node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])


def _whole(reshape: ir.Node) -> bool:
    """Return whether a view's dims are all its own: none is taken over from what it views."""
    dims = reshape.inputs[1]
    if dims is None or dims.const_value is None:
        return False
    return bool(reshape.attributes.get_int("allowzero", 0)) or 0 not in dims.const_value.numpy()
