"""Leave out of a finished graph what it does not need: dead nodes, duplicates, identities."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass

from nnspec.ops import IR_VERSION


def simplify(graph: ir.Graph) -> None:
    """Simplify a graph in place; inputs and outputs keep their names."""
    model = ir.Model(graph, ir_version=IR_VERSION)
    names = [v.name for v in graph.outputs]
    # Dead code first: what is not there need not be compared.
    RemoveUnusedNodesPass()(model)
    _skip_identities(graph)
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
