"""Matrix products in a recurrence: what can be had before the loop is, and sums start from it.

`(x, h) -> concat -> dense` becomes x's share for all steps at once and a product with h in the loop that adds to it;
`dense(x) + dense(h)` becomes one product in the loop that starts from x's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from nnspec.ir import Node, TensorType
from nnspec.layers.dense import Dense
from nnspec.layers.math import Add
from nnspec.layers.shape import Concat
from nnspec.lower.levels import Level, outputs_of
from nnspec.ops import Ops

if TYPE_CHECKING:
    from nnspec.lower.recurrence import Loop


@dataclass
class _Product:
    """A dense layer in the loop: the columns of its weight that each part meets, and what the sum starts from."""

    dense: Node
    late: list[tuple[str, ir.Value]]
    start: str | ir.Value | None = None
    """A value of the loop by name, or one from outside of it."""


@dataclass
class Products:
    """The nodes of a loop, its dense layers taken apart."""

    loop: Loop
    inside: Sequence[Node]
    nodes: list[Node] = field(default_factory=list)
    """What is left to lower in the loop."""
    folded: dict[str, ir.Value] = field(default_factory=dict)
    """What was computed for all steps at once, [T batch, units], by the name under which the loop reads it."""
    _products: dict[str, _Product] = field(default_factory=dict)
    """By the node that gives the sum: the dense layer, or the addition that took it in."""

    def __post_init__(self) -> None:
        layer = self.loop.layer
        self._makers = {name: n for n in layer.body.nodes for name in outputs_of(n)}
        uses = [v for n in layer.body.nodes for v in n.inputs]
        uses += [o.value for o in layer.body.outputs] + [s.next for s in layer.states]
        self._uses = {name: uses.count(name) for name in uses}
        absorbed: set[str] = set()
        for node in self.inside:
            if (taken := self._addition(node)) is not None:
                absorbed.add(taken)
        for node in self.inside:
            if isinstance(node.layer, Dense) and node.output() not in absorbed:
                self._dense(node)
        idle = self._idle()
        self.nodes = [n for n in self.inside if n.output() not in absorbed and n.name not in idle]

    def emit(self, node: Node, op: Ops, values: dict[str, ir.Value]) -> bool:
        """Lower a node that gives a product; return whether it was one."""
        product = self._products.get(node.name)
        if product is None:
            return False
        total = values[product.start] if isinstance(product.start, str) else product.start
        for name, weight in product.late:
            total = op.Gemm(values[name], weight, total, transB=1)
        assert total is not None
        values[node.output()] = total
        return True

    def reads(self) -> dict[str, TensorType]:
        """Return what the loop reads step by step, by name."""
        levels, types = self.loop.levels, self.loop.types
        found: dict[str, TensorType] = {}
        for node in self.nodes:
            product = self._products.get(node.name)
            if product is None:
                found |= {v: types[v] for v in node.inputs if levels[v] is Level.DATA}
            elif isinstance(product.start, str) and product.start in self.folded:
                found[product.start] = node.outputs[0]
        return found

    # --- planning ---------------------------------------------------------------------------------------------------

    def _addition(self, node: Node) -> str | None:
        """Let a sum start from its other operand; return the value of the dense layer that it takes in."""
        if not isinstance(node.layer, Add) or len(node.inputs) != 2 or node.layer.number is not None:
            return None
        types, levels = self.loop.types, self.loop.levels
        left, right = node.inputs
        for value, other in ((right, left), (left, right)):
            dense = self._makers.get(value)
            if dense is None or not isinstance(dense.layer, Dense) or levels[value] is not Level.STATE:
                continue
            same = types[value] == types[other] == node.outputs[0] and types[value].batch and types[value].rank == 1
            if not same or self._uses[value] != 1 or levels[other] not in (Level.DATA, Level.STATE):
                continue
            if levels[other] is Level.STATE and "bias" in dense.weights:
                continue
            late, share = self._parts(dense)
            if not late:
                continue
            if levels[other] is Level.DATA:
                early = self.loop.folded[other]
                share = early if share is None else self.loop.op.Add(early, share)
                self._products[node.name] = self._product(dense, late, share)
                return value
            if share is None:
                self._products[node.name] = _Product(dense, late, other)
                return value
        return None

    def _dense(self, node: Node) -> None:
        type_ = self.loop.types[node.inputs[0]]
        if type_.rank != 1 or not type_.batch:
            return
        late, share = self._parts(node)
        if share is not None and late:
            self._products[node.name] = self._product(node, late, share)

    def _product(self, dense: Node, late: list[tuple[str, ir.Value]], share: ir.Value) -> _Product:
        if "bias" in dense.weights:
            share = self.loop.op.Add(share, self.loop.w[dense.weights["bias"]])
        name = f"{dense.name}/share"
        self.folded[name] = share
        return _Product(dense, late, name)

    def _parts(self, dense: Node) -> tuple[list[tuple[str, ir.Value]], ir.Value | None]:
        """Return a dense layer's parts that the loop multiplies, with their weights, and the sum over all others."""
        loop, op = self.loop, self.loop.op
        weight = loop.w[dense.weights["weight"]]
        whole = dense.inputs[0]
        joined = self._makers.get(whole)
        if joined is None or not isinstance(joined.layer, Concat) or loop.levels[whole] is not Level.STATE:
            return [(whole, weight)], None
        early = [v for v in joined.inputs if loop.levels[v] is Level.DATA]
        if not early:
            return [(whole, weight)], None
        late: list[tuple[str, ir.Value]] = []
        share: ir.Value | None = None
        at = 0
        for name in joined.inputs:
            size = loop.types[name].shape[0]
            assert isinstance(size, int)
            columns = op.Slice(weight, [at], [at + size], [1])
            at += size
            if name in early:
                share = op.Gemm(loop.folded[name], columns, *([] if share is None else [share]), transB=1)
            elif loop.types[name].batch:
                late.append((name, columns))
            else:
                return [(whole, weight)], None
        return late, share

    def _idle(self) -> set[str]:
        """Return the concats whose dense layers have been taken apart, all of them."""
        taken = [p.dense.inputs[0] for p in self._products.values() if all(n != p.dense.inputs[0] for n, _ in p.late)]
        return {
            node.name
            for node in self.inside
            if isinstance(node.layer, Concat) and taken.count(node.output()) == self._uses.get(node.output(), 0)
        }
