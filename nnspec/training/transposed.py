"""Transpose the left operand of large products before them, where ONNX Runtime would do so over and over.

Its Gemm brings a transposed left operand into order anew for each panel of the result's columns. A Transpose right in
front would become part of the product again; seen as a tensor of three axes, it stays a node of its own.
"""

from __future__ import annotations

import onnx_ir as ir

from nnspec.ops import Ops, dims_of

_ROWS, _COLUMNS = 512, 768
"""Rows and columns of the result from which it pays, measured in ONNX Runtime 1.31 on two Zen 3 cores (AVX2)."""
_PART = 4
"""What the rows are split by, so that there is a third axis."""


def transpose_before(graph: ir.Graph) -> None:
    """Take the transposition out of the graph's large float32 products; in place."""
    found = [node for node in graph if _gains(node)]
    if not found:
        return
    ops = Ops(graph)
    for node in found:
        left = node.inputs[0]
        assert left is not None
        _, rows = dims_of(left) or ()
        split = ops.Reshape(left, [0, int(rows) // _PART, _PART])  # type: ignore[arg-type]
        turned = ops.Reshape(ops.Transpose(split, perm=[1, 2, 0]), [rows, -1])
        node.replace_input_with(0, turned)
        del node.attributes["transA"]
    graph.sort()


def _gains(node: ir.Node) -> bool:
    if node.op_type != "Gemm" or node.domain or not node.attributes.get_int("transA", 0):
        return False
    dims = dims_of(node.outputs[0])
    if node.outputs[0].dtype != ir.DataType.FLOAT or dims is None:
        return False
    rows, columns = dims
    return isinstance(rows, int) and isinstance(columns, int) and (
        rows >= _ROWS and columns >= _COLUMNS and rows % _PART == 0
    )
