"""Run the grammar's LALR(1) tables over tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from nnspec.syntax.tokens import Lexicon, Token, lexicon

Action = Callable[[list[Any], int, int], Any]
"""What a reduction makes of its children, which stand at `start <= i < end` of the text."""

END = "$END"


class UnexpectedToken(Exception):
    """The token at `index` cannot stand where it does; `expected` holds the terminals that could."""

    def __init__(self, index: int, token: Token, expected: frozenset[str]) -> None:
        super().__init__(index, token, expected)
        self.index = index
        self.token = token
        self.expected = expected


class _Machine(NamedTuple):
    lexicon: Lexicon
    rows: list[dict[str, int]]
    rules: list[tuple[str, int, str, list[int | None]]]


@cache
def _machine() -> _Machine:
    words = lexicon()
    data = words.tables
    return _Machine(words, [data["rows"][i] for i in data["states"]], data["rules"])


def run(
    tokens: Sequence[Token], text: str, start: str, actions: Mapping[str, Action], kinds: list[str] | None = None
) -> Any:
    """Return what `actions` make of the tokens, read as the start symbol `start`.

    The terminals that the words turned out to be are appended to `kinds`. Raises UnexpectedToken.
    """
    machine = _machine()
    rows, rules, words = machine.rows, machine.rules, machine.lexicon.words
    final = machine.lexicon.tables["end"][start]
    states = [machine.lexicon.tables["start"][start]]
    values: list[Any] = []
    starts: list[int] = []
    ends: list[int] = []
    last = tokens[-1].end if tokens else 0
    for index, token in enumerate((*tokens, Token(END, last, last, ""))):
        kind = token.kind
        row = rows[states[-1]]
        if kind == "NAME" and token.text in words:
            word, following = words[token.text]
            if word in row and following.match(text, token.end):
                kind = word
        if kinds is not None:
            kinds.append(kind)
        while True:
            action = row.get(kind)
            if action is None:
                raise UnexpectedToken(index, token, _acceptable(machine, states))
            if action >= 0:
                states.append(action)
                values.append(token)
                starts.append(token.start)
                ends.append(token.end)
                break
            symbol, size, name, parts = rules[~action]
            begin = starts[-size] if size else token.start
            finish = ends[-1] if size else token.start
            popped = values[-size:] if size else []
            if size:
                del states[-size:], values[-size:], starts[-size:], ends[-size:]
            values.append(popped[parts[0] or 0] if name == "=" else _reduce(name, popped, parts, actions, begin, finish))
            starts.append(begin)
            ends.append(finish)
            state = rows[states[-1]][symbol]
            states.append(state)
            if kind == END and state == final:
                return values[0]
            row = rows[state]
    raise AssertionError("the end token is always accepted or refused")


def _reduce(
    name: str, popped: list[Any], parts: list[int | None], actions: Mapping[str, Action], start: int, end: int
) -> Any:
    if not name and parts and parts[0] is not None and parts[0] < 0:
        children: list[Any] = popped[~parts[0]]  # a growing list is extended in place: linear, not quadratic
        parts = parts[1:]
    else:
        children = []
    for part in parts:
        if part is None:
            children.append(None)
        elif part < 0:
            children += popped[~part]
        else:
            children.append(popped[part])
    return actions[name](children, start, end) if name else children


def _acceptable(machine: _Machine, states: list[int]) -> frozenset[str]:
    """Return the terminals that could follow; a table entry alone may be a reduction that leads nowhere."""

    def shifts(kind: str) -> bool:
        stack = list(states[-200:])  # reductions on one lookahead pop no further in a sensible text
        while True:
            action = machine.rows[stack[-1]].get(kind)
            if action is None:
                return False
            if action >= 0:
                return True
            symbol, size, _, _ = machine.rules[~action]
            if size >= len(stack):
                return True
            if size:
                del stack[-size:]
            target = machine.rows[stack[-1]].get(symbol)
            if target is None:
                return True
            stack.append(target)

    return frozenset(kind for kind in machine.rows[states[-1]] if (kind.isupper() or kind == END) and shifts(kind))
