"""Leave out of a finished graph what it does not need: dead nodes, duplicates, identities."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, IdentityEliminationPass, RemoveUnusedNodesPass

from nnspec.ops import IR_VERSION


def simplify(graph: ir.Graph) -> None:
    """Simplify a graph in place; inputs and outputs keep their names."""
    model = ir.Model(graph, ir_version=IR_VERSION)
    # Dead code first: what is not there need not be compared.
    RemoveUnusedNodesPass()(model)
    IdentityEliminationPass()(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)
