"""Backpropagation through time: the gradient of Scan is a Scan whose body is the gradient of the body.

It walks the steps backwards and carries the gradients of the states. What the body's rules need of a forward step, the
forward Scan is made to emit as further stacked outputs, so memory grows linearly with the number of steps; a Scan
whose node carries the metadata `nnspec.recompute` stores its states alone and computes the rest again. Values from
outside the body, such as weights, get their gradient added up from step to step, except where it is a matrix product
or a plain sum: then the steps only emit their part, and one product outside of the loop covers all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.broadcast import Grad
from nnspec.autodiff.driver import captured, influenced, sweep
from nnspec.autodiff.registry import flow
from nnspec.autodiff.rules.hoist import hoist
from nnspec.autodiff.rules.stacked import SUMMABLE, Product, product
from nnspec.autodiff.rules.steps import Steps
from nnspec.autodiff.terms import Emit, NodeView, Term
from nnspec.lower import RECOMPUTE
from nnspec.ops import dims_of


def scan(n: NodeView) -> list[tuple[ir.Value, Term]]:
    """Return the gradients of initial states, scanned inputs and values from outside."""
    return _Backward(n).run()


@dataclass(slots=True)
class _Carried:
    """A state of the backward loop: what it starts from, and its values before and after a step."""

    start: Term
    before: ir.Value
    after: ir.Value


class _Backward:
    """The backward loop of one Scan under construction."""

    def __init__(self, n: NodeView) -> None:
        self.n = n
        self.steps = Steps(n.node)
        self.outer = n.op
        self.inner = n.op.ops.subgraph([], "backward")
        self.bop = Emit(self.inner)
        self.reads: list[tuple[Term, int, int, ir.Value]] = []
        """Stacked value, its axis and direction as the backward loop reads it, the body's input."""
        self.emits: dict[tuple[ir.Value, int, int], int] = {}
        """Which values the body emits, along which axis and in which direction."""
        self.products: list[Product] = []
        self.replaced: dict[ir.Value, ir.Value] = {}
        self.outside: set[ir.Value] = set()

    def run(self) -> list[tuple[ir.Value, Term]]:
        n, steps = self.n, self.steps
        active, self.outside = self._active()
        seeds: dict[ir.Value, list[Grad]] = {}
        states: dict[int, ir.Value] = {}
        for i, value in enumerate(steps.body.inputs[: steps.states]):
            if value in active:
                states[i] = self._input(f"d{i}", value)
                seeds.setdefault(steps.body.outputs[i], []).append(self._seed(states[i]))
        for k in range(steps.states, len(n.dys)):
            dy = n.dys[k]
            if dy is not None:
                out = steps.body.outputs[k]
                axis, direction = steps.written(k)
                seeds.setdefault(out, []).append(self._seed(self._read(dy, axis, 1 - direction, out)))
        found = sweep(self.bop, steps.body, seeds, [*active, *self.outside], self._defer)
        carried = {i: self._carry_state(i, before, found) for i, before in states.items()}
        sums = {v: self._carry_sum(v, found[v]) for v in self.outside if v in found}
        sequences = {
            j: self._emit(self._filled(found, value), axis, 1 - direction)
            for j, value, axis, direction in steps.scanned()
            if n.wanted[j] and value in found
        }
        finals, stacks = self._close([*carried.values(), *sums.values()])
        results: list[tuple[ir.Value, Term]] = []
        for i, final in zip(carried, finals, strict=False):
            if n.wanted[i]:
                results.append((n.x[i].value, final))
        results += zip(sums, finals[len(carried) :], strict=True)
        results += [(n.x[j].value, stacks[k]) for j, k in sequences.items()]
        for wanted in self.products:
            assert wanted.slot is not None
            results.append((wanted.value, product(wanted, stacks[wanted.slot])))
        return results

    def _active(self) -> tuple[set[ir.Value], set[ir.Value]]:
        """Return which inputs of the body, and which values from outside, get a gradient."""
        n, body = self.n, self.steps.body
        outside = {v for v in captured(n.node) if v in n.active}
        active = {value for value, wanted in zip(body.inputs, n.wanted, strict=True) if wanted}
        while True:
            _, reached = influenced(body, active | outside)
            more = {body.inputs[i] for i in range(self.steps.states) if body.outputs[i] in reached} - active
            if not more:
                return active, outside
            active |= more

    # --- the body's inputs and outputs ------------------------------------------------------------------------------

    def _input(self, name: str, like: ir.Value) -> ir.Value:
        assert like.dtype is not None
        return self.inner.input(f"{name}_{len(self.inner.graph.inputs)}", like.dtype, dims_of(like))

    def _read(self, stacked: Term, axis: int, direction: int, like: ir.Value) -> ir.Value:
        value = self._input("in", like)
        self.reads.append((stacked, axis, direction, value))
        return value

    def _seed(self, value: ir.Value) -> Grad:
        return Grad(Term(value, self.bop), True)

    def _emit(self, value: Term, axis: int, direction: int) -> int:
        return self.emits.setdefault((value.value, axis, direction), len(self.emits))

    def _filled(self, found: dict[ir.Value, Grad], value: ir.Value) -> Term:
        return found[value].filled(Term(value, self.bop))

    def _carry_state(self, i: int, before: ir.Value, found: dict[ir.Value, Grad]) -> _Carried:
        value, dy = self.steps.body.inputs[i], self.n.dys[i]
        start = self.n.x[i].zeros() if dy is None else dy
        after = self._filled(found, value) if value in found else Term(before, self.bop).zeros()
        return _Carried(start, before, after.value)

    def _carry_sum(self, value: ir.Value, grad: Grad) -> _Carried:
        before = self._input("sum", value)
        after = Term(before, self.bop) + grad.filled(Term(value, self.bop))
        return _Carried(Term(value, self.outer).zeros(), before, after.value)

    def _defer(self, node: ir.Node, i: int, dy: Grad) -> bool:
        """Take over the gradient of a value from outside where one operation can do it for all steps."""
        value = node.inputs[i]
        if value not in self.outside or node.op_type not in SUMMABLE or node.domain:
            return False
        other = None
        if node.op_type in ("MatMul", "Gemm") and i < 2:
            factor = node.inputs[1 - i]
            if factor is None or not self.steps.owns(factor) or len(dims_of(value) or ()) != 2:
                return False
            other = self.steps.stack(factor, self.outer)
        direction = 0 if other is None else other.direction
        filled = dy.filled(Term(node.outputs[0], self.bop))
        slot = self._emit(filled, 0, 1 - direction)
        assert value is not None
        self.products.append(Product(node, i, value, Term(value, self.outer), other, slot))
        return True

    # --- putting it together ----------------------------------------------------------------------------------------

    def _close(self, carried: list[_Carried]) -> tuple[list[Term], list[Term]]:
        """Append the backward Scan; return its final states and its stacked outputs."""
        results = [c.after for c in carried] + [value for value, _, _ in self.emits]
        self.inner.prune(0, keep=results)
        if self.steps.one_way:
            move = RECOMPUTE not in self.n.node.metadata_props
            self.replaced |= hoist(self.inner, self.outer, self.steps, self._read, results, move)
            results = [self.replaced.get(v, v) for v in results]
        self._import(results)
        results = [self.replaced.get(v, v) for v in results]
        made: list[ir.Value] = []
        for value in results:
            own = value.producer() is not None and value.graph is self.inner.graph and value not in made
            made.append(value if own else self.inner.Identity(value))
        if not self.reads:
            # A Scan counts its steps by what it reads.
            first = self.steps.stack_of_input(self.steps.states, self.outer)
            self._read(first.term, first.axis, first.direction, self.steps.body.inputs[self.steps.states])
        graph = self.inner.graph
        graph.inputs[:] = [c.before for c in carried] + [value for _, _, _, value in self.reads]
        graph.outputs.extend(made)
        graph.sort()
        found = self.outer.ops.emit(
            "Scan",
            [c.start.value for c in carried] + [term.value for term, _, _, _ in self.reads],
            {
                "body": graph,
                "num_scan_inputs": len(self.reads),
                "scan_input_axes": [axis for _, axis, _, _ in self.reads],
                "scan_input_directions": [direction for _, _, direction, _ in self.reads],
                "scan_output_axes": [axis for _, axis, _ in self.emits],
                "scan_output_directions": [direction for _, _, direction in self.emits],
            },
            outputs=len(made),
        )
        terms = [Term(v, self.outer) for v in ([found] if len(made) == 1 else found)]
        return terms[: len(carried)], terms[len(carried) :]

    def _import(self, results: list[ir.Value]) -> None:
        """Replace every value of the forward body that the backward body uses by one of its own."""
        for value in results:
            if self.steps.owns(value):
                self._provide(value)
        for node in list(ir.traversal.RecursiveGraphIterator(self.inner.graph)):
            for i, used in enumerate(node.inputs):
                if used is not None and self.steps.owns(used):
                    node.replace_input_with(i, self._provide(used))

    def _provide(self, value: ir.Value) -> ir.Value:
        """Return what stands for a value of the forward body: a constant, a copy of its node, or what was stored."""
        if value not in self.replaced:
            tensor = value.const_value
            if tensor is not None and not value.is_graph_input():
                self.replaced[value] = self.inner.constant(tensor.numpy())
            elif RECOMPUTE in self.n.node.metadata_props and self.steps.repeatable(value):
                self._repeat(value)
            else:
                stack = self.steps.stack(value, self.outer)
                self.replaced[value] = self._read(stack.term, stack.axis, 1 - stack.direction, value)
        return self.replaced[value]

    def _repeat(self, value: ir.Value) -> None:
        node = value.producer()
        assert node is not None
        inputs = [self._provide(v) if v is not None and self.steps.owns(v) else v for v in node.inputs]
        copies = self.inner.emit(
            node.op_type,
            inputs,
            {a.name: a for a in node.attributes.values()},
            outputs=len(node.outputs),
            domain=node.domain,
        )
        for old, new in zip(node.outputs, [copies] if len(node.outputs) == 1 else copies, strict=True):
            new.type, new.shape = old.type, old.shape
            self.replaced[old] = new


flow("Scan", scan)
