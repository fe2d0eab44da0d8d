"""Take out of a backward loop what does not wait for its carried gradients: factors such as s (1 - s) of a gate.

They depend on what the forward loop stored, so one pass over all steps computes them before the loop begins, and the
loop itself is left with a few nodes for each gate. Products are reordered, d a b into d (a b), to leave more outside.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from nnspec.autodiff.rules.steps import Stack, Steps
from nnspec.autodiff.terms import Emit, Term
from nnspec.ops import Ops, dims_of

_POINTWISE = frozenset(
    """Add Sub Mul Div Neg Reciprocal Sqrt Exp Log Tanh Sigmoid Relu Sign Abs Softplus Erf Sin Cos Pow Min Max Where
    Cast Greater GreaterOrEqual Less LessOrEqual Equal Not And Or""".split()  # noqa: SIM905
)
"""Operators that give the same when they are applied to all steps at once."""

Read = Callable[[Term, int, int, ir.Value], ir.Value]
"""Makes a stacked value an input of the loop's body: the value, its axis, the direction of reading, what it is like."""


def hoist(
    inner: Ops, outer: Emit, steps: Steps, read: Read, keep: list[ir.Value], move: bool
) -> dict[ir.Value, ir.Value]:
    """Take factors out of the body that `inner` builds; return what now stands for those values of `keep` that moved.

    `keep` are the body's results. Without `move` products are only reordered, so that numbers come out the same.
    """
    return _Hoist(inner, outer, steps, read, keep).run(move)


class _Hoist:
    def __init__(self, inner: Ops, outer: Emit, steps: Steps, read: Read, keep: list[ir.Value]) -> None:
        self.inner, self.outer, self.steps, self.read = inner, outer, steps, read
        self.keep = set(keep)
        self.known: dict[ir.Value, bool] = {}
        """Of values of the body that was asked for: whether all steps of it can be had before the loop."""
        self.stacks: dict[ir.Value, Stack] = {}
        self.renamed: dict[ir.Value, ir.Value] = {}
        """Results of the body that another value stands for."""

    def run(self, move: bool) -> dict[ir.Value, ir.Value]:
        for node in list(self.inner.graph):
            self._gather(node)
        self.inner.prune(0, keep=list(self.keep))
        if not move:
            return self.renamed
        moved: dict[ir.Value, ir.Value] = {}
        for node in list(self.inner.graph):
            if self._made(node):
                continue
            for i, value in enumerate(node.inputs):
                if value is not None and self._computed(value):
                    if value not in moved:
                        moved[value] = self._bring(value)
                    node.replace_input_with(i, moved[value])
        for value in self.keep:
            if self._computed(value) and value not in moved:
                moved[value] = self._bring(value)
        self.inner.prune(0, keep=[moved.get(v, v) for v in self.keep])
        return self.renamed | {v: m for v, m in moved.items() if v in self.keep}

    # --- what is known before the loop ------------------------------------------------------------------------------

    def _made(self, node: ir.Node) -> bool:
        """Return whether a node of the backward body computes something known."""
        return any(self._is_known(out) for out in node.outputs)

    def _computed(self, value: ir.Value) -> bool:
        """Return whether a value is known and a node of the backward body's own computes it."""
        return value.graph is self.inner.graph and value.producer() is not None and self._is_known(value)

    def _is_known(self, value: ir.Value) -> bool:
        if value not in self.known:
            self.known[value] = self._find(value)
        return self.known[value]

    def _find(self, value: ir.Value) -> bool:
        if self._fixed(value) or dims_of(value) is None:
            return False
        if self.steps.owns(value):
            return True
        node = value.producer()
        if node is None or value.graph is not self.inner.graph or node.domain or value.dtype is None:
            return False
        given = [v for v in node.inputs if v is not None]
        if node.op_type == "Concat":
            return all(self._is_known(v) for v in given)
        if node.op_type not in _POINTWISE or not all(self._is_known(v) or self._fixed(v) for v in given):
            return False
        # With the steps as a further axis in front, operands still meet as before only if they have as many axes.
        ranks = {self._rank(v) for v in given if self._is_known(v)}
        return len(ranks) == 1 and all(self._rank(v) <= max(ranks) for v in given)

    def _fixed(self, value: ir.Value) -> bool:
        """Return whether a value is the same in each step: a constant, or something from outside of both loops."""
        if value.const_value is not None and not value.is_graph_input():
            return True
        return not self.steps.owns(value) and value.graph is not self.inner.graph and dims_of(value) is not None

    def _rank(self, value: ir.Value) -> int:
        dims = dims_of(value)
        return 99 if dims is None else len(dims)

    # --- products ---------------------------------------------------------------------------------------------------

    def _gather(self, node: ir.Node) -> None:
        """Turn (d a) b into d (a b) where a and b are known, and join [d a, d b] into [d, d] [a, b]."""
        if node.op_type == "Mul" and not node.domain:
            parts = self._parted(node.outputs[0])
            while parts is not None:
                rest, factor = parts
                inside = self._parted(rest) if self._alone(rest) else None
                if inside is None or not self._meet(inside[1], factor):
                    return
                both = self.inner.Mul(inside[1], factor)
                node.replace_input_with(0, inside[0])
                node.replace_input_with(1, both)
                parts = inside[0], both
        elif node.op_type == "Concat" and not node.domain:
            self._join(node)

    def _parted(self, value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Return a product as what waits for the loop and what is known."""
        node = value.producer()
        if node is None or node.op_type != "Mul" or node.domain or value.graph is not self.inner.graph:
            return None
        a, b = node.inputs
        assert a is not None
        assert b is not None
        for rest, factor in ((a, b), (b, a)):
            if self._is_known(factor) and not self._is_known(rest) and not self._fixed(rest):
                return rest, factor
        return None

    def _alone(self, value: ir.Value) -> bool:
        return len(value.uses()) == 1 and value not in self.keep

    def _meet(self, a: ir.Value, b: ir.Value) -> bool:
        return self._rank(a) == self._rank(b)

    def _alike(self, a: ir.Value, b: ir.Value) -> bool:
        """Return whether two values have the same dims for certain."""
        dims = dims_of(a)
        return dims is not None and None not in dims and dims == dims_of(b)

    def _join(self, node: ir.Node) -> None:
        parts = []
        for value in node.inputs:
            found = self._parted(value) if value is not None and self._alone(value) else None
            if found is None or not self._alike(*found):
                return
            parts.append(found)
        axis = node.attributes["axis"].as_int()
        out = node.outputs[0]
        rests = self.inner.Concat(*(rest for rest, _ in parts), axis=axis)
        factors = self.inner.Concat(*(factor for _, factor in parts), axis=axis)
        product = self.inner.Mul(rests, factors)
        ir.convenience.replace_all_uses_with(out, product)
        if out in self.keep:
            self.keep.remove(out)
            self.keep.add(product)
            self.renamed[out] = product

    # --- bringing it in ---------------------------------------------------------------------------------------------

    def _bring(self, value: ir.Value) -> ir.Value:
        stack = self._stack(value)
        return self.read(stack.term, stack.axis, 1 - stack.direction, value)

    def _stack(self, value: ir.Value) -> Stack:
        """Return a known value of all steps, computed outside."""
        if value not in self.stacks:
            self.stacks[value] = self._compute(value)
        return self.stacks[value]

    def _compute(self, value: ir.Value) -> Stack:
        if self.steps.owns(value):
            return self.steps.stack(value, self.outer)
        node = value.producer()
        assert node is not None
        stacks = [self._stack(v) for v in node.inputs if v is not None and self._is_known(v)]
        inputs = [None if v is None else self._operand(v) for v in node.inputs]
        attributes: dict[str, object] = {a.name: a for a in node.attributes.values()}
        if node.op_type == "Concat":
            axis = node.attributes["axis"].as_int()
            attributes["axis"] = axis + 1 if axis >= 0 else axis
        made = self.outer.ops.emit(node.op_type, inputs, attributes)
        return Stack(self.outer.term(made), 0, stacks[0].direction)

    def _operand(self, value: ir.Value) -> ir.Value:
        if self._is_known(value):
            return self._stack(value).term.value
        tensor = value.const_value
        inside = self.steps.owns(value) or value.graph is self.inner.graph
        return self.outer.ops.constant(tensor.numpy()) if inside and tensor is not None else value
