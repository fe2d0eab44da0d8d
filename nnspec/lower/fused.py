"""ONNX's fused recurrent operators, for inference: ONNX Runtime has fast kernels for them.

Cells are recognised by what they compute (see `nnspec.lower.canonical`), not by their names. ONNX's equations stand in
its operators' documentation; its gates are in the order i, o, f, c for LSTM and z, r, h for GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from nnspec.layers.recurrent import Recurrence
from nnspec.lower.canonical import Atom, Expr, Monomial, Opaque, canonical, kinds, only, order
from nnspec.lower.levels import Level, levels_of
from nnspec.ops import dims_of

if TYPE_CHECKING:
    from nnspec.lower.recurrence import Loop

Columns = tuple[str, int, int]
"""A source and the range of its rows that a product reads."""


@dataclass
class Gate:
    """An affine function of data and state: weights by what they multiply, and biases, each with a factor."""

    data: dict[Columns, list[tuple[Atom, float]]] = field(default_factory=dict)
    state: dict[Columns, list[tuple[Atom, float]]] = field(default_factory=dict)
    bias: list[tuple[Atom | None, float]] = field(default_factory=list)
    """None stands for ones."""
    recurrent_bias: list[tuple[Atom | None, float]] = field(default_factory=list)
    """Biases that GRU's reset gate acts on."""
    peephole: tuple[Atom, float] | None = None

    def scaled(self, factor: float) -> Gate:
        """Return the gate times a number."""

        def of(parts: dict[Columns, list[tuple[Atom, float]]]) -> dict[Columns, list[tuple[Atom, float]]]:
            return {k: [(a, c * factor) for a, c in v] for k, v in parts.items()}

        return Gate(of(self.data), of(self.state), [(a, c * factor) for a, c in self.bias])


@dataclass
class Fused:
    """A recurrence as one of ONNX's operators: its gates in ONNX's order."""

    kind: str
    layer: Recurrence
    gates: list[Gate]
    hidden: str
    """The state that is the operator's output."""
    memory: str | None = None
    attributes: dict[str, object] = field(default_factory=dict)

    @property
    def sources(self) -> set[str]:
        """The body's values that the operator reads, of the step's data."""
        return {name for gate in self.gates for name, _, _ in gate.data}

    def emit(self, loop: Loop, wanted: Sequence[str]) -> tuple[list[ir.Value], list[ir.Value]]:
        """Append the operator; return the final states and, for each wanted value, the hidden state's sequence."""
        op = loop.op
        states = {s.name: s for s in self.layer.states}
        units = states[self.hidden].type.shape[0]
        assert isinstance(units, int)
        names = sorted(self.sources)
        widths = {name: self._size(loop, name) for name in names}
        x = [loop.stacked(loop.folded[name], loop.types[name]) for name in names]
        weights = [self._matrix(loop, [g.data for g in self.gates], name, widths[name], units) for name in names]
        recurrent = self._matrix(loop, [g.state for g in self.gates], self.hidden, units, units)
        lengths = None if loop.lengths is None else op.Cast(loop.lengths, to=int(ir.DataType.INT32))
        order = [self.hidden] if self.memory is None else [self.hidden, self.memory]
        starts = [None if loop.begins_at_zero(states[n]) else op.Unsqueeze(loop.start(states[n]), [0]) for n in order]
        peepholes = self._peepholes(loop, units)
        if peepholes is not None:
            starts = [*starts, *[None] * (2 - len(starts)), peepholes]
        made = op.emit(
            self.kind,
            [
                x[0] if len(x) == 1 else op.Concat(*x, axis=2),
                op.Unsqueeze(weights[0] if len(weights) == 1 else op.Concat(*weights, axis=1), [0]),
                op.Unsqueeze(recurrent, [0]),
                self._biases(loop, units),
                lengths,
                *starts,
            ],
            {"hidden_size": units, "direction": "reverse" if self.layer.reverse else "forward", **self.attributes},
            outputs=1 + len(order),
        )
        finals = {name: op.Squeeze(value, [0]) for name, value in zip(order, made[1:], strict=True)}
        sequence = [op.Squeeze(made[0], [1])] if wanted else []
        return [finals[s.name] for s in self.layer.states], sequence * len(wanted)

    def _size(self, loop: Loop, name: str) -> int:
        size = loop.types[name].shape[0]
        assert isinstance(size, int)
        return size

    def _matrix(
        self,
        loop: Loop,
        gates: Sequence[dict[Columns, list[tuple[Atom, float]]]],
        source: str,
        width: int,
        units: int,
    ) -> ir.Value:
        """Return the gates' weights for one source, [gates units, width]."""
        op = loop.op
        rows = []
        for gate in gates:
            parts: list[ir.Value] = []
            at = 0
            for (_, begin, end), terms in sorted((k, v) for k, v in gate.items() if k[0] == source):
                if begin > at:
                    parts.append(_zeros(loop, units, begin - at))
                blocks = [self._block(loop, a, c, end - begin) for a, c in terms]
                parts.append(blocks[0] if len(blocks) == 1 else _sum(loop, blocks))
                at = end
            if at < width:
                parts.append(_zeros(loop, units, width - at))
            rows.append(parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1))
        return rows[0] if len(rows) == 1 else op.Concat(*rows, axis=0)

    def _block(self, loop: Loop, a: Atom, factor: float, width: int) -> ir.Value:
        op, weight = loop.op, loop.w[a.name]
        if dims_of(weight) != (a.end, a.column + width) or a.begin or a.column:
            weight = op.Slice(weight, [a.begin, a.column], [a.end, a.column + width], [0, 1])
        return weight if factor == 1.0 else op.Mul(weight, factor)

    def _vector(self, loop: Loop, terms: Sequence[tuple[Atom | None, float]], units: int) -> ir.Value:
        """Return a sum of biases, zeros for none."""
        op = loop.op
        values = []
        for a, factor in terms:
            if a is None:
                values.append(op.constant(np.full(units, factor, np.float32)))
                continue
            value = loop.w[a.name]
            if dims_of(value) != (a.end,) or a.begin:
                value = op.Slice(value, [a.begin], [a.end], [0])
            values.append(value if factor == 1.0 else op.Mul(value, factor))
        return _sum(loop, values) if values else op.constant(np.zeros(units, np.float32))

    def _biases(self, loop: Loop, units: int) -> ir.Value | None:
        if not any(g.bias or g.recurrent_bias for g in self.gates):
            return None
        parts = [self._vector(loop, g.bias, units) for g in self.gates]
        if any(g.recurrent_bias for g in self.gates):
            parts += [self._vector(loop, g.recurrent_bias, units) for g in self.gates]
        else:
            parts.append(loop.op.constant(np.zeros(units * len(self.gates), np.float32)))
        return loop.op.Unsqueeze(loop.op.Concat(*parts, axis=0), [0])  # type: ignore[no-any-return]

    def _peepholes(self, loop: Loop, units: int) -> ir.Value | None:
        """Return LSTM's `P`, in the order i, o, f."""
        found = [g.peephole for g in self.gates[:3]]
        if self.kind != "LSTM" or not any(found):
            return None
        parts = [self._vector(loop, [] if p is None else [p], units) for p in found]
        return loop.op.Unsqueeze(loop.op.Concat(*parts, axis=0), [0])  # type: ignore[no-any-return]


def _zeros(loop: Loop, rows: int, columns: int) -> ir.Value:
    return loop.op.constant(np.zeros((rows, columns), np.float32))


def _sum(loop: Loop, values: Sequence[ir.Value]) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = loop.op.Add(total, value)
    return total


# --- recognition ------------------------------------------------------------------------------------------------------


def recognise(layer: Recurrence) -> Fused | None:
    """Return a recurrence as one of ONNX's operators; None where it is none of them."""
    form = canonical(layer)
    for match in (_lstm, _gru, _rnn):
        try:
            fused = match(layer, form)
            _check_reads(layer, form, fused)
        except Opaque:
            continue
        return fused
    return None


def _check_reads(layer: Recurrence, form: Callable[[str], Expr], fused: Fused) -> None:
    """Raise Opaque where something other than the new hidden state is needed behind the loop."""
    levels = levels_of(layer)
    read = {o.value for o in layer.body.outputs}
    read |= {v for n in layer.body.nodes if levels[n.output()] is Level.AFTER for v in n.inputs}
    state = next(s for s in layer.states if s.name == fused.hidden)
    if not fused.sources or any(not g.state for g in fused.gates if fused.kind == "RNN"):
        raise Opaque
    for name in read:
        if levels[name] is Level.STATE and name != state.next and form(name) != form(state.next):
            raise Opaque


def _affine(e: Expr, hidden: str, *, rest: dict[Monomial, float] | None = None) -> Gate:
    """Return an affine function as a gate; other terms go to `rest`, or make it Opaque."""
    gate = Gate()
    for monomial, coefficient in sorted(e, key=lambda term: [order(a)[:-1] for a in term[0]]):
        if not monomial:
            gate.bias.append((None, coefficient))
            continue
        first = monomial[0]
        if len(monomial) == 1 and first.kind == "weight":
            gate.bias.append((first, coefficient))
        elif len(monomial) == 1 and first.kind == "product" and _source(first, hidden) is not None:
            source = _source(first, hidden)
            assert source is not None
            parts = gate.state if source.kind == "state" else gate.data
            parts.setdefault((source.name, source.begin, source.end), []).append((first, coefficient))
        elif rest is not None:
            rest[monomial] = coefficient
        else:
            raise Opaque
    for parts in (gate.data, gate.state):
        ordered = sorted(parts)
        if any(a[0] == b[0] and b[1] < a[2] for a, b in pairwise(ordered)):
            raise Opaque
    return gate


def _source(product: Atom, hidden: str) -> Atom | None:
    """Return the data or the hidden state that a product reads, None where it reads something else."""
    assert product.argument is not None
    try:
        source = only(product.argument)
    except Opaque:
        return None
    return source if source.kind == "data" or (source.kind == "state" and source.name == hidden) else None


def _factor(monomial: Monomial, kind: str) -> Atom:
    found = [a for a in monomial if a.kind == kind]
    if len(found) != 1:
        raise Opaque
    return found[0]


def _argument(a: Atom) -> Expr:
    assert a.argument is not None
    return a.argument


def _rnn(layer: Recurrence, form: Callable[[str], Expr]) -> Fused:
    """h' = f(W x + R h + b)."""
    if len(layer.states) != 1:
        raise Opaque
    (state,) = layer.states
    result = only(form(state.next))
    names = {"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid"}
    if result.kind not in names:
        raise Opaque
    gate = _affine(_argument(result), state.name)
    return Fused("RNN", layer, [gate], state.name, attributes={"activations": [names[result.kind]]})


def _lstm(layer: Recurrence, form: Callable[[str], Expr]) -> Fused:
    """c' = f c + i g and h' = o tanh(c')."""
    if len(layer.states) != 2:
        raise Opaque
    for hidden, memory in (layer.states, layer.states[::-1]):
        try:
            after, new = form(hidden.next), form(memory.next)
            (read,) = (m for m, c in after if c == 1.0)
            if len(after) != 1 or kinds(read) != ["sigmoid", "tanh"] or _argument(_factor(read, "tanh")) != new:
                continue
            if len(new) != 2 or any(c != 1.0 for _, c in new):
                continue
            kept = next((m for m, _ in new if kinds(m) == ["sigmoid", "state"]), ())
            written = next((m for m, _ in new if kinds(m) == ["sigmoid", "tanh"]), ())
            if not kept or not written or _factor(kept, "state").name != memory.name:
                continue
            before = next(iter(form(memory.name)))[0]
            gates = [
                _peeping(_argument(_factor(written, "sigmoid")), hidden.name, frozenset({(before, 1.0)})),
                _peeping(_argument(_factor(read, "sigmoid")), hidden.name, new),
                _peeping(_argument(_factor(kept, "sigmoid")), hidden.name, frozenset({(before, 1.0)})),
                _affine(_argument(_factor(written, "tanh")), hidden.name),
            ]
        except (Opaque, ValueError):
            continue
        return Fused("LSTM", layer, gates, hidden.name, memory.name)
    raise Opaque


def _peeping(e: Expr, hidden: str, seen: Expr) -> Gate:
    """Return a gate that may see the memory through a weight for each unit."""
    rest: dict[Monomial, float] = {}
    gate = _affine(e, hidden, rest=rest)
    if not rest:
        return gate
    weights = {a for monomial in rest for a in monomial if a.kind == "weight"}
    for weight in weights:
        if any(weight not in monomial for monomial in rest):
            continue
        seen_through = frozenset((tuple(a for a in m if a != weight), c) for m, c in rest.items())
        if seen_through == seen:
            gate.peephole = (weight, 1.0)
            return gate
    raise Opaque


def _gru(layer: Recurrence, form: Callable[[str], Expr]) -> Fused:
    """h' = (1 - z) n + z h, or with z and 1 - z exchanged; n = tanh(W x + r (R h + b)) or tanh(W x + R (r h))."""
    if len(layer.states) != 1:
        raise Opaque
    (state,) = layer.states
    terms = {tuple(kinds(m)): (m, c) for m, c in form(state.next)}
    if len(terms) != 3 or ("sigmoid", "state") not in terms or ("sigmoid", "tanh") not in terms:
        raise Opaque
    (kept, p), (replaced, q) = terms["sigmoid", "state"], terms["sigmoid", "tanh"]
    update, new = _factor(kept, "sigmoid"), _factor(replaced, "tanh")
    alone = terms.get(("tanh",)) or terms.get(("state",))
    if update not in replaced or alone is None or alone[1] != 1.0 or (p, q) not in ((1.0, -1.0), (-1.0, 1.0)):
        raise Opaque
    if alone[0][0] != (new if p == 1.0 else _factor(kept, "state")):
        raise Opaque
    z = _affine(_argument(update), state.name).scaled(p)
    rest: dict[Monomial, float] = {}
    n = _affine(_argument(new), state.name, rest=rest)
    if n.state:
        raise Opaque
    reset, after = _reset(rest, state.name, n)
    r = _affine(_argument(reset), state.name)
    return Fused("GRU", layer, [z, r, n], state.name, attributes={"linear_before_reset": int(after)})


def _reset(rest: dict[Monomial, float], hidden: str, n: Gate) -> tuple[Atom, bool]:
    """Put the recurrent part of GRU's new state into `n`; return the reset gate, and whether it acts on the product."""
    gates: set[Atom] = set()
    after = False
    for monomial, coefficient in rest.items():
        if len(monomial) == 2:
            reset = _factor(monomial, "sigmoid")
            other = monomial[0] if monomial[1] == reset else monomial[1]
            after = True
            if other.kind == "weight":
                n.recurrent_bias.append((other, coefficient))
            elif other.kind == "product" and (source := _source(other, hidden)) is not None and source.kind == "state":
                n.state.setdefault((source.name, source.begin, source.end), []).append((other, coefficient))
            else:
                raise Opaque
        else:
            (product,) = monomial
            if product.kind != "product" or product.argument is None or len(product.argument) != 1:
                raise Opaque
            ((inner, factor),) = product.argument
            if kinds(inner) != ["sigmoid", "state"] or factor != 1.0:
                raise Opaque
            reset, source = _factor(inner, "sigmoid"), _factor(inner, "state")
            n.state.setdefault((source.name, source.begin, source.end), []).append((product, coefficient))
        gates.add(reset)
    mixed = after and any(len(m) == 1 for m in rest)
    if len(gates) != 1 or mixed:
        raise Opaque
    return gates.pop(), after
