"""Graphs of fixed size: symbolic dims become numbers, and the shape arithmetic that they fed becomes constants."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from nnspec.lower import BATCH
from nnspec.ops import OPSET, Dims, dims_of
from nnspec.ops.blocks import number_of_blocks
from nnspec.ops.infer import factors, infer
from nnspec.ops.shapedata import fold, remember
from nnspec.recipe import Recipe
from nnspec.training.simplify import simplify


def sizes_of(recipe: Recipe, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the sizes of a step: the recipe's batch, and those given for further symbols."""
    return {BATCH: recipe.batch, **(given or {})}


def fix_sizes(model: ir.Model, sizes: Mapping[str, int]) -> ir.Model:
    """Return a copy of a model in which the named sizes are numbers; shapes are inferred anew from the inputs on."""
    fixed = model.clone()
    _fix(fixed.graph, sizes)
    simplify(fixed.graph)
    return fixed


def open_symbols(graph: ir.Graph) -> list[str]:
    """Return the symbols that are left in the shapes of a graph's inputs, each once."""
    dims = [d for value in graph.inputs for d in dims_of(value) or ()]
    return list(dict.fromkeys(d for d in dims if isinstance(d, str)))


def _fix(graph: ir.Graph, sizes: Mapping[str, int]) -> None:
    for value in graph.inputs:
        _substitute(value, sizes)
    for node in list(graph):
        attributes = list(node.attributes.values())
        for attribute in attributes:
            if attribute.type == ir.AttributeType.GRAPH:
                _fix(attribute.as_graph(), sizes)
        if node.op_type == "Constant":
            continue
        if node.domain:
            for out in node.outputs:
                _substitute(out, sizes)
            continue
        data = fold(node.op_type, node.inputs, attributes)
        out = node.outputs[0]
        if data is not None and data.static and not out.is_graph_output():
            _to_constant(graph, node, np.array(data.array(), np.int64))
            continue
        found = infer(node.op_type, list(node.inputs), attributes, len(node.outputs), OPSET)
        for result, kind in zip(node.outputs, found, strict=True):
            _substitute(result, sizes)
            if kind is not None and kind[1] is not None:
                known = dims_of(result) or (None,) * len(kind[1])
                # The inference of one node may not see what is known already, such as the length of a scan.
                dims = [d if isinstance(d, int) else k for k, d in zip(known, kind[1], strict=True)]
                result.dtype, result.shape = kind[0], ir.Shape(dims)
        if data is not None:
            remember(out, data)


def _substitute(value: ir.Value, sizes: Mapping[str, int]) -> None:
    dims = dims_at(value, sizes)
    if dims is not None:
        value.shape = ir.Shape(dims)


def dims_at(value: ir.Value | None, sizes: Mapping[str, int]) -> Dims | None:
    """Return the dims of a value where symbols have these sizes, or None where not even the rank is known."""
    dims = None if value is None else dims_of(value)
    return None if dims is None else tuple(number(d, sizes) if isinstance(d, str) else d for d in dims)


def number(dim: str, sizes: Mapping[str, int]) -> int | str:
    """Return a symbol, or a product such as `batch*T`, as a number where all of it is known."""
    count, symbols = factors([dim])
    found = [sizes[s] if s in sizes else number_of_blocks(s, sizes) for s in symbols]
    known = [n for n in found if n is not None]
    return count * math.prod(known) if len(known) == len(found) else dim


def _to_constant(graph: ir.Graph, node: ir.Node, array: np.ndarray) -> None:
    tensor = ir.Tensor(array)
    constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], num_outputs=1)
    new, old = constant.outputs[0], node.outputs[0]
    new.dtype, new.shape, new.const_value, new.name = tensor.dtype, ir.Shape(array.shape), tensor, old.name
    graph.insert_before(node, constant)
    ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)
