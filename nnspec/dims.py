"""Symbolic dims: sizes such as `T` or `(H - 1)//2 + 1` that are known only when the network runs.

A `Dim` is an int, or a `Symbolic`: a polynomial with integer coefficients over symbols and floor quotients. The form is
canonical, so two dims are equal when their normal forms are; a constant is always a plain int. Every symbol stands for
a size of at least 1.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import comb
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import core_schema


class Quotient:
    """`numerator // denominator` where the division cannot be carried out on the symbols."""

    __slots__ = ("denominator", "key", "numerator")

    def __init__(self, numerator: Symbolic, denominator: int | Symbolic) -> None:
        self.numerator = numerator
        self.denominator = denominator
        self.key = f"{_bracket(numerator)}//{_bracket(denominator)}"

    def __str__(self) -> str:
        return self.key


Atom: TypeAlias = "str | Quotient"
Monomial = tuple[Atom, ...]


def _atom_key(atom: Atom) -> str:
    return atom if isinstance(atom, str) else atom.key


def _key(monomial: Monomial) -> tuple[str, ...]:
    return tuple(_atom_key(a) for a in monomial)


class Symbolic:
    """A size that is not a constant; supports `+ - * //` with ints and other sizes."""

    def __init__(self, terms: Mapping[tuple[str, ...], tuple[Monomial, int]]) -> None:
        self.terms = dict(sorted(terms.items(), key=lambda t: (-len(t[0]), t[0])))

    @staticmethod
    def symbol(name: str) -> Symbolic:
        """Return the size called `name`."""
        return Symbolic({(name,): ((name,), 1)})

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The names of the symbols that it depends on."""
        found: set[str] = set()
        for monomial, _ in self.terms.values():
            for atom in monomial:
                if isinstance(atom, str):
                    found.add(atom)
                else:
                    found |= atom.numerator.symbols
                    if isinstance(atom.denominator, Symbolic):
                        found |= atom.denominator.symbols
        return frozenset(found)

    def __str__(self) -> str:
        return _written(_folded(self.terms))

    __repr__ = __str__

    @cached_property
    def _canonical(self) -> str:
        return _written(self.terms)

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbolic) and self._canonical == other._canonical

    def __add__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Symbolic):
            return NotImplemented
        terms = dict(self.terms)
        for key, (monomial, coefficient) in _terms(other).items():
            terms[key] = (monomial, coefficient + (terms[key][1] if key in terms else 0))
        return _normal(terms)

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Symbolic):
            return NotImplemented
        terms: dict[tuple[str, ...], tuple[Monomial, int]] = {}
        for left, a in self.terms.values():
            for right, b in _terms(other).values():
                monomial = tuple(sorted(left + right, key=_atom_key))
                key = _key(monomial)
                terms[key] = (monomial, a * b + (terms[key][1] if key in terms else 0))
        return _normal(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Symbolic):
            return NotImplemented
        return self + other * -1

    def __rsub__(self, other: Dim) -> Dim:
        return self * -1 + other

    def __floordiv__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Symbolic):
            return NotImplemented
        return floor_div(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return floor_div(other, self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls)


Terms: TypeAlias = "Mapping[tuple[str, ...], tuple[Monomial, int]]"


def _written(terms: Terms) -> str:
    parts: list[str] = []
    for monomial, coefficient in terms.values():
        factors = [
            a if isinstance(a, str) else (str(a) if len(monomial) == 1 and coefficient == 1 else f"({a})")
            for a in monomial
        ]
        size = abs(coefficient)
        text = "*".join(([str(size)] if size != 1 or not factors else []) + factors)
        sign = "-" if coefficient < 0 else "+"
        parts.append(f"{sign} {text}" if parts else (f"-{text}" if coefficient < 0 else text))
    return " ".join(parts)


def _folded(terms: Terms) -> Terms:
    """Return equal terms, fewer of them where a constant can go into a quotient: (H + 1)//2 - 1 is (H - 1)//2."""
    for atom in {
        _atom_key(a): a for monomial, _ in terms.values() for a in monomial if isinstance(a, Quotient)
    }.values():
        if not isinstance(atom.denominator, int):
            continue
        for monomial, coefficient in terms.values():
            rest = list(monomial)
            if sum(a is atom or _atom_key(a) == atom.key for a in rest) != 1:
                continue
            rest = [a for a in rest if _atom_key(a) != atom.key]
            other = terms.get(_key(tuple(rest)))
            if other is None or other[1] % coefficient:
                continue
            shift = other[1] // coefficient
            shifted = _shifted(terms, atom, shift)
            if len(shifted) < len(terms):
                return _folded(shifted)
    return terms


def _shifted(terms: Terms, atom: Quotient, shift: int) -> Terms:
    """Write terms with atom + shift in place of the atom: every atom becomes (new atom - shift)."""
    assert isinstance(atom.denominator, int)
    numerator = atom.numerator + shift * atom.denominator
    assert isinstance(numerator, Symbolic)
    new = Quotient(numerator, atom.denominator)
    found: dict[tuple[str, ...], tuple[Monomial, int]] = {}

    def put(monomial: Monomial, coefficient: int) -> None:
        key = _key(monomial)
        found[key] = (monomial, coefficient + (found[key][1] if key in found else 0))

    for monomial, coefficient in terms.values():
        rest = tuple(a for a in monomial if _atom_key(a) != atom.key)
        power = len(monomial) - len(rest)
        for i in range(power + 1):
            news = tuple(sorted((*rest, *(new,) * (power - i)), key=_atom_key))
            put(news, coefficient * comb(power, i) * (-shift) ** i)
    kept = {k: t for k, t in found.items() if t[1]}
    return dict(sorted(kept.items(), key=lambda t: (-len(t[0]), t[0])))


def _terms(dim: int | Symbolic) -> Mapping[tuple[str, ...], tuple[Monomial, int]]:
    if isinstance(dim, Symbolic):
        return dim.terms
    return {(): ((), dim)} if dim else {}


def _normal(terms: Mapping[tuple[str, ...], tuple[Monomial, int]]) -> Dim:
    kept = {key: term for key, term in terms.items() if term[1]}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()][1]
    return Symbolic(kept)


def _bracket(dim: int | Symbolic) -> str:
    text = str(dim)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def floor_div(a: Dim, b: Dim) -> Dim:
    """Return floor(a / b), with the multiples of b taken out of the quotient: (2*T + 3)//2 is T + 1."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if a == b:
        return 1
    if not isinstance(b, int):
        numerator = a if isinstance(a, Symbolic) else Symbolic({(): ((), a)})
        atom = Quotient(numerator, b)
        return Symbolic({(atom.key,): ((atom,), 1)})
    assert isinstance(a, Symbolic)
    whole: dict[tuple[str, ...], tuple[Monomial, int]] = {}
    rest: dict[tuple[str, ...], tuple[Monomial, int]] = {}
    for key, (monomial, coefficient) in a.terms.items():
        q, r = divmod(coefficient, b)
        if q:
            whole[key] = (monomial, q)
        if r:
            rest[key] = (monomial, r)
    outside, inside = _normal(whole), _normal(rest)
    if isinstance(inside, int):
        return outside + inside // b
    # floor((floor(x / m) + c) / b) = floor((x + c m) / (m b)): nested quotients become one.
    offset = inside.terms.get((), ((), 0))[1]
    variable = [term for key, term in inside.terms.items() if key]
    if len(variable) == 1:
        monomial, coefficient = variable[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(inner := monomial[0], Quotient):
            m = inner.denominator
            if isinstance(m, int):
                return outside + floor_div(inner.numerator + offset * m, m * b)
    atom = Quotient(inside, b)
    return outside + Symbolic({(atom.key,): ((atom,), 1)})


def ceil_div(a: Dim, b: int) -> Dim:
    """Return ceil(a / b)."""
    return floor_div(a + (b - 1), b)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of dims; 1 where there are none."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def total(dims: Iterable[Dim]) -> Dim:
    """Return the sum of dims; 0 where there are none."""
    result: Dim = 0
    for dim in dims:
        result = result + dim
    return result


def symbols(dim: Dim) -> frozenset[str]:
    """Return the names of the symbols in a dim."""
    return dim.symbols if isinstance(dim, Symbolic) else frozenset()


def evaluate(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """Return the dim with symbols replaced by `values`; symbols not named there stay."""
    if isinstance(dim, int):
        return dim
    result: Dim = 0
    for monomial, coefficient in dim.terms.values():
        term: Dim = coefficient
        for atom in monomial:
            if isinstance(atom, str):
                term = term * values.get(atom, Symbolic.symbol(atom))
            else:
                term = term * floor_div(evaluate(atom.numerator, values), evaluate(atom.denominator, values))
        result = result + term
    return result


def parse(text: str) -> Dim:
    """Read a dim as `str` writes it; raise ValueError for anything else."""
    try:
        return _from_ast(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"not a dim: {text!r}") from error


def _from_ast(node: ast.expr) -> Dim:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return Symbolic.symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _from_ast(operand) * -1
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _from_ast(left), _from_ast(right)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return floor_div(a, b)
    raise ValueError("not a dim")


def _validate(value: Any) -> Any:
    return parse(value) if isinstance(value, str) else value


Dim = Annotated[
    int | Symbolic,
    BeforeValidator(_validate),
    PlainSerializer(lambda d: d if isinstance(d, int) else str(d), return_type=int | str),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "description": "an expression such as (H - 1)//2 + 1"}]}
    ),
]
"""An int or a symbolic size; in JSON an integer or a string expression."""
