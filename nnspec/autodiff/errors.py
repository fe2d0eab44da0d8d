"""What goes wrong in differentiation."""

from __future__ import annotations

import onnx_ir as ir

from nnspec.diagnostics import NnspecError


class GradientError(NnspecError):
    """A graph that cannot be differentiated; `op_type` and `node` say where, if at a node."""

    def __init__(self, message: str, node: ir.Node | None = None) -> None:
        self.op_type = node.op_type if node is not None else None
        self.node = node.name if node is not None else None
        where = ""
        if node is not None:
            outputs = ", ".join(str(out.name) for out in node.outputs)
            domain = f"{node.domain}." if node.domain else ""
            where = f"{domain}{node.op_type} (node {node.name or 'without a name'}, output {outputs}): "
        super().__init__(where + message)
