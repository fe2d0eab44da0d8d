"""The forward Scan as its gradient sees it: what each step read, made and left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.terms import Emit, Term
from nnspec.ops import dims_of

_IMPURE = frozenset({"Dropout", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})


@dataclass(frozen=True, slots=True)
class Stack:
    """The values of all steps: along `axis`, from the first step to the last or, with direction 1, the reverse."""

    term: Term
    axis: int
    direction: int


class Steps:
    """One Scan node and its body."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.body: ir.Graph = node.attributes["body"].as_graph()
        self.scans = node.attributes["num_scan_inputs"].as_int()
        self.states = len(node.inputs) - self.scans
        self._stacks: dict[ir.Value, Stack] = {}

    def owns(self, value: ir.Value) -> bool:
        """Return whether a value is computed anew in each step, or is a constant of the body."""
        return value.graph is self.body

    def scanned(self) -> Iterator[tuple[int, ir.Value, int, int]]:
        """Yield for each scanned input its number, the body's value, its axis and direction."""
        for j in range(self.states, len(self.node.inputs)):
            yield j, self.body.inputs[j], *self._read(j)

    def _read(self, j: int) -> tuple[int, int]:
        rank = len(dims_of(self.body.inputs[j]) or ()) + 1
        return self._at("scan_input_axes", j - self.states) % rank, self._at("scan_input_directions", j - self.states)

    @property
    def one_way(self) -> bool:
        """Return whether all that the loop reads and writes runs in one direction."""
        read = {direction for _, _, _, direction in self.scanned()}
        return len(read | {self.written(k)[1] for k in range(self.states, len(self.node.outputs))}) == 1

    def written(self, k: int) -> tuple[int, int]:
        """Return along which axis and in which direction output `k` is stacked."""
        rank = len(dims_of(self.node.outputs[k]) or ()) or len(dims_of(self.body.outputs[k]) or ()) + 1
        return self._at("scan_output_axes", k - self.states) % rank, self._at("scan_output_directions", k - self.states)

    def _at(self, name: str, i: int) -> int:
        found = self.node.attributes.get(name)
        return 0 if found is None else int(found.as_ints()[i])

    def repeatable(self, value: ir.Value) -> bool:
        """Return whether computing a value again gives the same."""
        node = value.producer()
        if node is None or node.op_type in _IMPURE:
            return False
        return not any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())

    def stack_of_input(self, j: int, op: Emit) -> Stack:
        """Return the stacked values of a scanned input."""
        source = self.node.inputs[j]
        assert source is not None
        return Stack(Term(source, op), *self._read(j))

    def stack(self, value: ir.Value, op: Emit) -> Stack:
        """Return a value of all steps, stacked along axis 0; the forward Scan is made to emit it if it does not yet."""
        found = self._stacks.get(value) or self._existing(value, op) or self._add(value, op)
        if found.axis != 0:
            order = [found.axis, *(i for i in range(found.term.rank) if i != found.axis)]
            found = Stack(found.term.transpose(order), 0, found.direction)
        self._stacks[value] = found
        return found

    def _existing(self, value: ir.Value, op: Emit) -> Stack | None:
        inputs = list(self.body.inputs)
        if value in inputs and inputs.index(value) >= self.states:
            return self.stack_of_input(inputs.index(value), op)
        wanted = _root(value)
        for k in range(self.states, len(self.body.outputs)):
            if _root(self.body.outputs[k]) is wanted:
                return Stack(Term(self.node.outputs[k], op), *self.written(k))
        return self._shifted(inputs.index(value), op) if value in inputs else None

    def _shifted(self, i: int, op: Emit) -> Stack | None:
        """Return a state before each step, where its values after each step are stacked already."""
        after = _root(self.body.outputs[i])
        for k in range(self.states, len(self.body.outputs)):
            if _root(self.body.outputs[k]) is after and self.written(k)[0] == 0:
                direction = self.written(k)[1]
                stacked, source = Term(self.node.outputs[k], op), self.node.inputs[i]
                assert source is not None
                first = Term(source, op).unsqueeze([0])
                parts = [first, stacked.slice(0, 0, -1)] if direction == 0 else [stacked.slice(0, 1, 2**31 - 1), first]
                joined = op.Concat(*parts, axis=0)
                joined.value.shape = stacked.value.shape
                return Stack(joined, 0, direction)
        return None

    def _add(self, value: ir.Value, op: Emit) -> Stack:
        """Make the forward Scan emit a value."""
        out = value
        if value.producer() is None or value in list(self.body.outputs):
            copy = ir.Node("", "Identity", [value], num_outputs=1, name=f"{value.name}/kept")
            out = copy.outputs[0]
            out.name, out.type, out.shape = f"{value.name}/kept", value.type, value.shape
            self.body.append(copy)
        self.body.outputs.append(out)
        count = len(self.node.outputs)
        direction = self._read(self.states)[1]
        for name, value_of in (("scan_output_axes", 0), ("scan_output_directions", direction)):
            given = self.node.attributes.get(name)
            if given is not None or value_of:
                before = [0] * (count - self.states) if given is None else given.as_ints()
                self.node.attributes[name] = ir.AttrInt64s(name, [*before, value_of])
        self.node.resize_outputs(count + 1)
        stacked = self.node.outputs[count]
        stacked.name, stacked.type = f"{value.name}/steps", value.type
        dims = dims_of(value)
        stacked.shape = None if dims is None else ir.Shape([self._length(), *dims])
        return Stack(Term(stacked, op), 0, direction)

    def _length(self) -> int | str | None:
        for j, _, axis, _ in self.scanned():
            source = self.node.inputs[j]
            dims = None if source is None else dims_of(source)
            if dims is not None and dims[axis] is not None:
                return dims[axis]
        return None


def _root(value: ir.Value) -> ir.Value:
    """Return the value of which this is a copy."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value
