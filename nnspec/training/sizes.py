"""Sizes read off the inputs of a graph, so that no tensor is kept for nothing but its shape.

A node that asks for the shape of an activation may run at the end of the step, and until then the activation lives.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import onnx_ir as ir

from nnspec.ops import Ops, dims_of
from nnspec.ops.infer import Dims, factors
from nnspec.training.rewrite import put_in_place


def read_sizes_off_inputs(graph: ir.Graph) -> None:
    """Let the graph's inputs answer for the shapes of tensors whose dims are numbers and those of inputs; in place."""
    found = [
        (node, dims)
        for node in graph
        if node.op_type in ("Shape", "Size") and (dims := _asked(graph, node)) is not None
    ]
    if not found:
        return
    sizes = _Sizes(graph)
    for node, dims in found:
        if all(sizes.known(d) for d in dims):
            out = node.outputs[0]
            new = sizes.vector(dims) if node.op_type == "Shape" else sizes.ops.Squeeze(sizes.product(dims), [0])
            put_in_place(graph, out, new, [node])
    graph.sort()


def _asked(graph: ir.Graph, node: ir.Node) -> Dims | None:
    """Return the dims that a node asks for, but not where it asks an input already or some are unknown."""
    value = node.inputs[0]
    dims = None if value is None or value in graph.inputs else dims_of(value)
    if dims is None or node.outputs[0].is_graph_output():
        return None
    if node.op_type == "Shape":
        dims = dims[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(dims))]
    return dims if dims and None not in dims else None


class _Sizes:
    """The sizes that a graph's inputs tell, each as int64 [1]."""

    def __init__(self, graph: ir.Graph) -> None:
        self.ops = Ops(graph)
        self._where = {
            d: (value, axis)
            for value in reversed(graph.inputs)
            for axis, d in enumerate(dims_of(value) or ())
            if isinstance(d, str)
        }
        self._read: dict[str, ir.Value] = {}

    def known(self, dim: int | str | None) -> bool:
        """Return whether the inputs tell a dim: a number, a symbol or a product of both."""
        return all(symbol in self._where for symbol in factors([dim])[1])

    def vector(self, dims: Dims) -> ir.Value:
        """Return sizes as one vector, neighbouring numbers as one constant."""
        parts: list[ir.Value | list[int]] = []
        for dim in dims:
            if not isinstance(dim, int):
                parts.append(self.product([dim]))
            elif parts and isinstance(parts[-1], list):
                parts[-1].append(dim)
            else:
                parts.append([dim])
        values = [self.ops.constant(p) if isinstance(p, list) else p for p in parts]
        return values[0] if len(values) == 1 else self.ops.Concat(*values, axis=0)

    def product(self, dims: Iterable[int | str | None]) -> ir.Value:
        """Return the product of sizes as int64 [1]."""
        count, symbols = factors(dims)
        values = [self._symbol(s) for s in symbols]
        if count != 1 or not values:
            values.append(self.ops.constant([count]))
        return functools.reduce(self.ops.Mul, values)

    def _symbol(self, name: str) -> ir.Value:
        if name not in self._read:
            value, axis = self._where[name]
            self._read[name] = self.ops.Shape(value, start=axis, end=axis + 1)
        return self._read[name]
