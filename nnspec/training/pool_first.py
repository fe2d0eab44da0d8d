"""Pooling before rectifying: max(relu(x)) = relu(max(x)), and the latter rectifies less.

The gradients agree too. Where the maximum is positive, the same elements attain it before and after relu; where it is
not, relu lets nothing through.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import TypeVar

import onnx_ir as ir

from nnspec.lower import SEGMENT
from nnspec.training.rewrite import only_reader

_V = TypeVar("_V")

_MAXIMA = ("MaxPool", "GlobalMaxPool", "ReduceMax")


def pool_first(graph: ir.Graph, kept: Collection[ir.Value]) -> None:
    """Exchange each Relu with the maximum that is its only reader; values in `kept` stay what they are.

    Both have to be in one segment of what is recomputed, or in none.
    """
    for relu in graph:
        if relu.op_type != "Relu" or relu.domain or relu.outputs[0] in kept:
            continue
        maximum = only_reader(relu.outputs[0], *_MAXIMA)
        if maximum is None or len(maximum.outputs) != 1:
            continue
        if maximum.metadata_props.get(SEGMENT) == relu.metadata_props.get(SEGMENT):
            _exchange(relu, maximum)


def _exchange(first: ir.Node, second: ir.Node) -> None:
    """Let the first of two nodes in a row do what the second did, and the other way round."""
    between, last = first.outputs[0], second.outputs[0]
    others = second.inputs[1:]
    second.resize_inputs(1)
    first.resize_inputs(1 + len(others))
    for i, value in enumerate(others, 1):
        first.replace_input_with(i, value)
    first.op_type, second.op_type = second.op_type, first.op_type
    first.name, second.name = second.name, first.name
    between.shape, between.name = last.shape, f"{last.name}/before_relu"
    _swap(first.attributes, second.attributes)
    _swap(first.metadata_props, second.metadata_props)


def _swap(one: MutableMapping[str, _V], other: MutableMapping[str, _V]) -> None:
    ours, theirs = dict(one), dict(other)
    for mapping, content in ((one, theirs), (other, ours)):
        mapping.clear()
        mapping.update(content)
