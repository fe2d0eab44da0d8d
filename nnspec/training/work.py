"""How much one training step does: what a runtime needs to know to choose threads and memory for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from nnspec.training.fixed import dims_at


def work(graph: ir.Graph, sizes: Mapping[str, int]) -> dict[str, int] | None:
    """Return multiply-adds and bytes of one run where symbols have these sizes; None where some symbol has none.

    `macs` are those of products and convolutions; `bytes` are those of all tensors made, whether they live at once or
    not. What a node makes whose size only the run tells is left out.
    """
    count = {"macs": 0, "bytes": 0}
    for node, times in _nodes(graph, sizes):
        outs = [dims_at(out, sizes) for out in node.outputs]
        if any(isinstance(d, str) for dims in outs for d in dims or ()):
            return None
        for out, dims in zip(node.outputs, outs, strict=True):
            if dims is not None and None not in dims and out.dtype is not None and node.op_type != "Constant":
                count["bytes"] += math.ceil(math.prod(dims) * out.dtype.itemsize)  # type: ignore[arg-type]
        count["macs"] += times * _macs(node, sizes)
    return count


def number_of_nodes(graph: ir.Graph) -> int:
    """Return how many nodes a graph has, those in the bodies of loops too, without constants."""
    return sum(node.op_type != "Constant" for node in ir.traversal.RecursiveGraphIterator(graph))


def _nodes(graph: ir.Graph, sizes: Mapping[str, int], times: int = 1) -> Iterator[tuple[ir.Node, int]]:
    """Yield the nodes, those of a loop's body too, with how many times each runs."""
    for node in graph:
        yield node, times
        if node.op_type == "Scan":
            scans = node.attributes["num_scan_inputs"].as_int()
            axes = node.attributes.get_ints("scan_input_axes", None)
            dims = dims_at(node.inputs[-scans], sizes) or (1,)
            steps = dims[axes[-scans] if axes else 0]
            again = steps if isinstance(steps, int) else 1
            yield from _nodes(node.attributes["body"].as_graph(), sizes, times * again)


def _macs(node: ir.Node, sizes: Mapping[str, int]) -> int:
    if node.op_type not in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
        return 0
    first, second, out = (dims_at(v, sizes) for v in (*node.inputs[:2], node.outputs[0]))
    if first is None or second is None or out is None:
        return 0
    if node.op_type == "MatMul":
        factors = (*out, first[-1])
    elif node.op_type == "Gemm":
        factors = (*out, first[0 if node.attributes.get_int("transA", 0) else 1])
    else:
        factors = (*(out if node.op_type == "Conv" else first), *second[1:])
    return math.prod(factors) if all(isinstance(f, int) for f in factors) else 0  # type: ignore[arg-type]
