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
    """The token at `index` cannot stand where it does."""

    def __init__(self, index: int, token: Token) -> None:
        super().__init__(index, token)
        self.index = index
        self.token = token


class _Machine(NamedTuple):
    lexicon: Lexicon
    rows: list[dict[str, int]]
    rules: list[tuple[str, int, str, list[int | None]]]
    units: list[str]  # the symbol of a rule that only passes its one symbol on, else ""


@cache
def _machine() -> _Machine:
    words = lexicon()
    data = words.tables
    units = [symbol if size == 1 and name == "=" else "" for symbol, size, name, _ in data["rules"]]
    return _Machine(words, [data["rows"][i] for i in data["states"]], data["rules"], units)


def run(
    tokens: Sequence[Token], text: str, start: str, actions: Mapping[str, Action], kinds: list[str] | None = None
) -> Any:
    """Return what `actions` make of the tokens, read as the start symbol `start`.

    The terminals that the words turned out to be are appended to `kinds`. Raises UnexpectedToken.
    """
    machine = _machine()
    _, rows, rules, units = machine
    words = machine.lexicon.words
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
                raise UnexpectedToken(index, token)
            if action >= 0:
                states.append(action)
                values.append(token)
                starts.append(token.start)
                ends.append(token.end)
                break
            if units[~action]:  # most reductions climb the ladder of precedence: nothing changes but the state
                states[-1] = state = rows[states[-2]][units[~action]]
                if state == final and kind == END:
                    return values[0]
                row = rows[state]
                continue
            symbol, size, name, parts = rules[~action]
            begin = starts[-size] if size else token.start
            finish = ends[-1] if size else token.start
            popped = values[-size:] if size else []
            if size:
                del states[-size:], values[-size:], starts[-size:], ends[-size:]
            values.append(_reduce(name, popped, parts, actions, begin, finish))
            starts.append(begin)
            ends.append(finish)
            state = rows[states[-1]][symbol]
            states.append(state)
            if state == final and kind == END:
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
    if name == "=":
        return children[0]
    return actions[name](children, start, end) if name else children


def expected_after(tokens: Sequence[Token], text: str, start: str) -> frozenset[str]:
    """Return the terminals that could follow the tokens, which begin a correct text of the start symbol."""
    machine = _machine()
    final = machine.lexicon.tables["end"][start]
    states = [machine.lexicon.tables["start"][start]]
    for token in tokens:
        row = machine.rows[states[-1]]
        kind = token.kind
        if kind == "NAME" and token.text in machine.lexicon.words:
            word, following = machine.lexicon.words[token.text]
            if word in row and following.match(text, token.end):
                kind = word
        _step(machine, states, kind, final)
    # A table entry alone may be a reduction that leads nowhere, so each is tried.
    kinds = [kind for kind in machine.rows[states[-1]] if kind.isupper() or kind == END]
    return frozenset(kind for kind in kinds if _step(machine, states[-_WINDOW:], kind, final))


_WINDOW = 200
"""How many states a trial copies: more than any sensible text has pending at one place."""


def _step(machine: _Machine, states: list[int], kind: str, final: int) -> bool:
    """Move the stack of states over one terminal; return whether the terminal can stand there."""
    while True:
        action = machine.rows[states[-1]].get(kind)
        if action is None:
            return False
        if action >= 0:
            states.append(action)
            return True
        symbol, size, _, _ = machine.rules[~action]
        if size >= len(states):
            return True  # the window is too short to tell
        if size:
            del states[-size:]
        states.append(machine.rows[states[-1]][symbol])
        if states[-1] == final and kind == END:
            return True
