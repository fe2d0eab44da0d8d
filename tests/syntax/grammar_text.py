"""Hypothesis strategies for .nn text: random programs made along the grammar, and spoilt ones."""

from __future__ import annotations

from hypothesis import strategies as st

from nnspec.syntax.tokens import RESERVED
from tests.syntax.expectations import CORPUS, cases

WORDS = ["a", "x", "conv", "step", "on", "given", "masked", "input", "state", "target", "network", "const", "x3", "_"]
GAPS = st.sampled_from([" ", " ", " ", "\n", "  ", " # note\n", "\n\n\n", "\t", "\n# of its own\n", "\r\n"])

names = st.sampled_from(WORDS)
words = names | st.sampled_from(sorted(RESERVED))
atoms = st.sampled_from(["0", "3", "0.5", "1e-3", "3x3", "7x7x7", '"s#\\n"', "true", "false", "[]", "next h"]) | names


def _joined(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Write the parts one after the other with any gap that keeps them apart."""
    pieces: list[st.SearchStrategy[str]] = []
    for part in parts:
        pieces += [st.just(part) if isinstance(part, str) else part, GAPS]
    return st.tuples(*pieces[:-1]).map("".join)


def _listed(part: st.SearchStrategy[str], least: int = 0, most: int = 4) -> st.SearchStrategy[str]:
    items = st.lists(part, min_size=least, max_size=most)
    return st.tuples(items, GAPS, st.booleans()).map(
        lambda drawn: f",{drawn[1]}".join(drawn[0]) + ("," if drawn[2] and drawn[0] else "")
    )


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "@", "and", "or", "->", "->", "->"])
    argument = inner | _joined(words, "=", inner)
    bracketed = _joined("(", inner, ")")
    return st.one_of(
        _joined(inner, operators, inner),
        _joined(bracketed, "**", bracketed),
        _joined("(", bracketed, st.sampled_from(["<", "==", ">="]), bracketed, ")"),
        bracketed,
        _joined("(", inner, ",", _listed(inner, 0, 2), ")"),
        _joined("[", _listed(inner), "]"),
        _joined(names, "(", _listed(argument), ")"),
        _joined(names, ".", words),
        _joined(names, "[", _listed(inner, 1, 2), "]"),
        _joined(st.sampled_from(["-", "+"]), bracketed),
        _joined("(", "not", bracketed, ")"),
        _joined("(", st.sampled_from(["", "freeze"]), bracketed, "as", names, ")"),
        _joined("if", inner, "{", inner, "}", "else", "{", inner, "}"),
        _joined("if", inner, "{", inner, "}", "else", "if", inner, "{", inner, "}", "else", "{", inner, "}"),
    )


expressions = st.recursive(atoms, _extend, max_leaves=12)
types = st.sampled_from(["int", "[1, 28, 28]", "int[T]", "x.shape", "[T,\n 2 * W]"])
simple = st.one_of(
    _joined(names, "=", expressions),
    _joined(names, ",", names, "=", expressions),
    _joined(st.sampled_from(["shared", "const", "metric", "next", "output"]), names, "=", expressions),
    _joined("output", names),
    _joined(st.sampled_from(["input", "target"]), names, ":", types, st.sampled_from(["", "masked"])),
    _joined(st.sampled_from(["param", "state"]), names, ":", types),
    _joined(st.sampled_from(["param", "state"]), names, ":", types, "=", expressions),
    _joined("return", expressions),
    _joined("return", expressions, ",", expressions),
)
comments = st.sampled_from(["", "", "\n# a comment\n", " # after it\n", "\n\n"])


def _sequence(statement: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    lines = st.lists(st.tuples(statement, comments, GAPS).map("".join), max_size=4)
    return st.tuples(st.just("{"), GAPS, lines.map("".join), st.just("}")).map("".join)


loops = st.recursive(
    simple,
    lambda inner: _joined("for", names, "in", expressions, _sequence(inner))
    | _joined("for", names, ",", names, "in", expressions, _sequence(inner)),
    max_leaves=4,
)
bodies = _sequence(loops)
parameters = st.just("") | _joined("(", _listed(names | _joined(names, "=", expressions)), ")")
data = names | _joined("(", _listed(names, 1, 3), ")")
items = st.one_of(
    _joined("import", st.just('"blocks.nn"')),
    _joined("const", names, "=", expressions),
    _joined("network", names, parameters, bodies),
    _joined("block", names, parameters, "on", data, bodies),
    _joined("cell", names, parameters, "on", data, st.just("") | _joined("given", data), bodies),
    _joined("train", names, st.just("") | _joined("as", names), bodies),
)
programs = st.lists(st.tuples(items, comments, GAPS).map("".join), max_size=4).map("".join)

VALID = [case.text for path in CORPUS for case in cases(path)]
SCRAPS = [*"(){}[],.:=+-*/%@<>;'\"#xé\0\n ", "->", "=>", "3x", "network", "for", "if", "else", "in", "\ud800", "\u2028"]


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    """A valid text with a few pieces removed, doubled or put in."""
    text = draw(st.sampled_from(VALID) | programs)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        change = draw(st.sampled_from(["", text[at : at + length] * 2]) | st.sampled_from(SCRAPS))
        text = text[:at] + change + text[at + length :]
    return text
