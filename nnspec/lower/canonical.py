"""A cell's step in canonical form: each vector as polynomials over products with weights, states and activations.

Cells that compute the same get the same form, whether they join data and state for one matrix or keep two, split one
product into gates or make each gate by itself. Only what one-dimensional cells are made of is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nnspec.ir import Node
from nnspec.layers.activation import Relu, Sigmoid, Tanh
from nnspec.layers.dense import Dense, Param
from nnspec.layers.math import Add, Mul, Neg, Sub
from nnspec.layers.recurrent import Recurrence
from nnspec.layers.shape import Concat, Slice, Split
from nnspec.lower.levels import Level, levels_of

LARGEST = 64
"""Sums of more products than this are not worth looking into."""


@dataclass(frozen=True)
class Atom:
    """A factor: rows `begin` to `end` of a source.

    Sources are a data value (`data`), a `state`, a `weight` of one axis, a product of a weight's columns from `column`
    on with a vector (`product`), and an activation of a vector (by its keyword).
    """

    kind: str
    name: str
    begin: int
    end: int
    argument: Expr | None = None
    column: int = 0


Monomial = tuple[Atom, ...]
Expr = frozenset[tuple[Monomial, float]]
"""A sum of products, each with its coefficient."""
Vector = tuple[tuple[int, Expr], ...]
"""Pieces of a vector, each with its size."""


class Opaque(Exception):
    """A step that has no canonical form."""


def canonical(layer: Recurrence) -> Callable[[str], Expr]:
    """Return the function from a value's name to its form; it raises Opaque where there is none."""
    form = _Form(layer)

    def whole(name: str) -> Expr:
        pieces = form.vector(name)
        if len(pieces) != 1:
            raise Opaque
        return pieces[0][1]

    return whole


class _Form:
    def __init__(self, layer: Recurrence) -> None:
        self.types = layer.body.types()
        self.levels = levels_of(layer)
        self.makers = {n.output(i): n for n in layer.body.nodes for i in range(len(n.outputs))}
        self.states = {s.name for s in layer.states}
        self.known: dict[str, Vector] = {}

    def vector(self, name: str) -> Vector:
        """Return a value of one axis in pieces."""
        if name not in self.known:
            type_ = self.types[name]
            if type_.rank != 1 or not isinstance(type_.shape[0], int) or type_.dtype != "float32":
                raise Opaque
            self.known[name] = self._vector(name, type_.shape[0])
        return self.known[name]

    def _vector(self, name: str, size: int) -> Vector:
        level, node = self.levels[name], self.makers.get(name)
        if name in self.states:
            return ((size, atom("state", name, size)),)
        if level is Level.GIVEN:
            raise Opaque
        if level is Level.DATA and (node is None or not self._linear(node)):
            return ((size, atom("data", name, size)),)
        if node is None:
            raise Opaque
        layer = node.layer
        if isinstance(layer, Param):
            return ((size, atom("weight", node.weights[""], size)),)
        if isinstance(layer, Dense):
            return ((size, self._product(node, size)),)
        if isinstance(layer, Concat):
            return tuple(piece for v in node.inputs for piece in self.vector(v))
        if isinstance(layer, Split):
            sizes = [t.shape[0] for t in node.outputs]
            index = next(i for i in range(len(sizes)) if node.output(i) == name)
            begin = sum(s for s in sizes[:index] if isinstance(s, int))
            return part(self.vector(node.inputs[0]), begin, begin + size)
        if isinstance(layer, Slice) and layer.step == 1:
            whole = self.types[node.inputs[0]].shape[0]
            assert isinstance(whole, int)
            begin = slice(layer.begin, layer.end).indices(whole)[0]
            return part(self.vector(node.inputs[0]), begin, begin + size)
        if isinstance(layer, Sigmoid | Tanh | Relu):
            return tuple((n, atom(layer.keyword, "", n, e)) for n, e in self.vector(node.inputs[0]))
        if isinstance(layer, Neg):
            return tuple((n, scaled(e, -1.0)) for n, e in self.vector(node.inputs[0]))
        if isinstance(layer, Add | Sub | Mul):
            return self._arithmetic(node, layer)
        raise Opaque

    def _linear(self, node: Node) -> bool:
        """Return whether a value of the data alone is looked into; all others are data as they are."""
        layer = node.layer
        plain = isinstance(layer, Dense | Concat | Split | Add | Sub | Neg) or (
            isinstance(layer, Slice) and layer.step == 1
        )
        plain = plain or (isinstance(layer, Mul) and layer.number is not None)
        return plain and all(self.types[v].rank == 1 for v in node.inputs)

    def _product(self, node: Node, size: int) -> Expr:
        total: Expr = frozenset()
        column = 0
        for n, piece in self.vector(node.inputs[0]):
            total = plus(total, frozenset({((Atom("product", node.weights["weight"], 0, size, piece, column),), 1.0)}))
            column += n
        if "bias" in node.weights:
            total = plus(total, atom("weight", node.weights["bias"], size))
        return total

    def _arithmetic(self, node: Node, layer: Add | Sub | Mul) -> Vector:
        operands = [self.vector(v) for v in node.inputs]
        cuts = sorted({0, *(end for v in operands for end in _ends(v))})
        if any(_ends(v)[-1] != cuts[-1] for v in operands):
            raise Opaque
        pieces = []
        for begin, end in pairwise(cuts):
            terms = [part(v, begin, end)[0][1] for v in operands]
            if layer.number is not None:
                number = frozenset({((), float(layer.number))})
                terms = [number, *terms] if layer.number_first else [*terms, number]
            total = terms[0]
            for term in terms[1:]:
                if isinstance(layer, Mul):
                    total = times(total, term)
                else:
                    total = plus(total, term if isinstance(layer, Add) else scaled(term, -1.0))
            pieces.append((end - begin, total))
        return tuple(pieces)


def order(a: Atom) -> tuple[str, str, int, int, int]:
    """Return what factors are sorted by; the hash tells those apart that differ in their argument alone."""
    return a.kind, a.name, a.begin, a.column, hash(a)


def atom(kind: str, name: str, size: int, argument: Expr | None = None) -> Expr:
    """Return a single factor as an expression."""
    return frozenset({((Atom(kind, name, 0, size, argument),), 1.0)})


def plus(a: Expr, b: Expr) -> Expr:
    """Return the sum of two expressions."""
    total = dict(a)
    for monomial, coefficient in b:
        total[monomial] = total.get(monomial, 0.0) + coefficient
    return _expression(total)


def times(a: Expr, b: Expr) -> Expr:
    """Return the product of two expressions."""
    total: dict[Monomial, float] = {}
    for left, p in a:
        for right, q in b:
            monomial = tuple(sorted((*left, *right), key=order))
            total[monomial] = total.get(monomial, 0.0) + p * q
    return _expression(total)


def scaled(a: Expr, factor: float) -> Expr:
    """Return an expression times a number."""
    return frozenset((monomial, coefficient * factor) for monomial, coefficient in a)


def part(vector: Vector, begin: int, end: int) -> Vector:
    """Return a range of a vector's rows."""
    pieces = []
    at = 0
    for size, e in vector:
        low, high = max(begin, at), min(end, at + size)
        if low < high:
            pieces.append((high - low, e if high - low == size else _rows(e, low - at, high - at)))
        at += size
    return tuple(pieces)


def _rows(e: Expr, begin: int, end: int) -> Expr:
    def cut(a: Atom) -> Atom:
        if a.kind in ("data", "state", "weight", "product"):
            return Atom(a.kind, a.name, a.begin + begin, a.begin + end, a.argument, a.column)
        assert a.argument is not None
        return Atom(a.kind, a.name, 0, end - begin, _rows(a.argument, begin, end))

    return frozenset((tuple(sorted(map(cut, monomial), key=order)), coefficient) for monomial, coefficient in e)


def _ends(vector: Vector) -> list[int]:
    ends, at = [], 0
    for size, _ in vector:
        at += size
        ends.append(at)
    return ends


def _expression(terms: dict[Monomial, float]) -> Expr:
    if len(terms) > LARGEST:
        raise Opaque
    return frozenset((m, c) for m, c in terms.items() if c != 0.0)


def only(e: Expr) -> Atom:
    """Return the factor that an expression consists of; Opaque where it is more than one."""
    if len(e) != 1:
        raise Opaque
    ((monomial, coefficient),) = e
    if len(monomial) != 1 or coefficient != 1.0:
        raise Opaque
    return monomial[0]


def kinds(monomial: Sequence[Atom]) -> list[str]:
    """Return the kinds of a product's factors, in alphabetical order."""
    return sorted(a.kind for a in monomial)
