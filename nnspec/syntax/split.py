"""Guess where items and statements begin, in text that does not parse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise

from nnspec.source import Source
from nnspec.syntax.tokens import RESERVED, Token

ITEMS = frozenset({"network", "block", "cell", "train", "import", "const"})
_WITH_BODY = ("network", "block", "cell", "train")
DECLARATIONS = frozenset({"const", "shared", "input", "output", "param", "state", "target", "metric", "next"})
_OPEN = frozenset({"LPAR", "LSQB", "LBRACE"})
_CLOSE = frozenset({"RPAR", "RSQB", "RBRACE"})
_CONTINUES = frozenset({"and", "or", "as", "else", "in", "masked"})
_TARGETS = 20  # how many names in `a, b, ... = value` to look through
_NEVER_A_VALUE = RESERVED - {"true", "false"}


def starts_line(source: Source, token: Token) -> bool:
    """Return whether only blanks stand before the token on its line."""
    at = token.start - 1
    while at >= 0 and source.text[at] in " \t\r\f":
        at -= 1
    return at < 0 or source.text[at] == "\n"


def ends_value(token: Token) -> bool:
    """Return whether an expression may end with the token."""
    if token.kind == "NAME":
        return token.text not in _NEVER_A_VALUE
    return token.kind in ("NUMBER", "SIZE", "STRING") or token.kind in _CLOSE


def starts_value(token: Token) -> bool:
    """Return whether an expression may start with the token (a sign apart, which may also join two)."""
    if token.kind == "NAME":
        return token.text not in {"and", "or", "as", "else", "in", "for", "return"}
    return token.kind in ("NUMBER", "SIZE", "STRING", "LPAR", "LSQB")


def starts_item(tokens: Sequence[Token], at: int) -> bool:
    """Return whether an item of a file seems to begin at a token; `const` also stands in bodies and does not count."""
    if tokens[at].text not in ITEMS or tokens[at].text == "const" or at + 1 >= len(tokens):
        return False
    following = tokens[at + 1]
    if tokens[at].text == "import":
        return following.kind == "STRING"
    if following.kind != "NAME" or at + 2 >= len(tokens):
        return False
    return tokens[at + 2].kind in ("LPAR", "LBRACE", "COLON") or tokens[at + 2].text in ("on", "as")


def starts_statement(tokens: Sequence[Token], at: int) -> bool:
    """Return whether a statement seems to begin at a token that follows a complete one."""
    token = tokens[at]
    following = tokens[at + 1] if at + 1 < len(tokens) else None
    if token.kind != "NAME":
        return False
    if token.text in ("for", "return"):
        return True
    if following is None:
        return False
    if token.text in DECLARATIONS and following.kind == "NAME" and following.text not in RESERVED:
        return token.text != "next" or (at + 2 < len(tokens) and tokens[at + 2].kind == "EQUAL")
    for name in range(at, min(at + 2 * _TARGETS, len(tokens) - 1), 2):
        if tokens[name].kind != "NAME" or tokens[name + 1].kind != "COMMA":
            return tokens[name].kind == "NAME" and tokens[name + 1].kind == "EQUAL"
    return False


def matching(tokens: Sequence[Token], opener: int) -> int:
    """Return the index of the bracket that closes `opener`; the brackets are balanced."""
    depth = 0
    for at in range(opener, len(tokens)):
        depth += (tokens[at].kind in _OPEN) - (tokens[at].kind in _CLOSE)
        if depth == 0:
            return at
    return len(tokens) - 1


def outermost(tokens: Sequence[Token]) -> Iterator[int]:
    """Yield the indices of the tokens outside of brackets, and of the outermost opening ones."""
    depth = 0
    for at, token in enumerate(tokens):
        if token.kind in _CLOSE:
            depth -= 1
        elif depth == 0:
            yield at
        if token.kind in _OPEN:
            depth += 1


def split_items(source: Source, tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Return the tokens of each item; what is no item is cut where a line begins at the margin."""
    cuts = [0]
    for at in outermost(tokens):
        if at > cuts[-1] + (tokens[cuts[-1]].text in ITEMS) and _begins_item(source, tokens, at, cuts[-1]):
            cuts.append(at)
    return _pieces(tokens, cuts)


def _begins_item(source: Source, tokens: Sequence[Token], at: int, current: int) -> bool:
    token = tokens[at]
    if starts_item(tokens, at):
        return True
    if token.text in ITEMS and (token.text == "const" or tokens[at - 1].kind in ("RBRACE", "STRING")):
        return True
    if token.kind == "NAME" and source.position(token.start)[1] == 1:
        complete = ends_value(tokens[at - 1]) and token.text not in _CONTINUES
        return token.text in ITEMS or (complete and tokens[current].text not in _WITH_BODY)
    shape = [following.kind for following in tokens[at : at + 3]]
    return shape in (["NAME", "NAME", "LBRACE"], ["NAME", "NAME", "LPAR"]) and item_like(token.text)


def item_like(word: str) -> bool:
    """Return whether a word is, or is a slip of, the keyword of an item with a body."""
    return bool(get_close_matches(word, _WITH_BODY, n=1, cutoff=0.7))


def split_statements(source: Source, tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Return the tokens of each statement of a body."""
    cuts = [0]
    for at in outermost(tokens):
        if at > cuts[-1] and _begins(source, tokens, at, cuts[-1]):
            cuts.append(at)
    return _pieces(tokens, cuts)


def _begins(source: Source, tokens: Sequence[Token], at: int, current: int) -> bool:
    token, before = tokens[at], tokens[at - 1]
    first = starts_line(source, token)
    if token.kind != "NAME" or not (first or ends_value(before)):
        return False
    if not starts_statement(tokens, at):
        # A line that cannot go on with the one before it: perhaps a statement that is itself wrong.
        return first and ends_value(before) and token.text not in _CONTINUES
    if before.text in DECLARATIONS and at - 1 == current:
        return False  # the name in `shared f = ...`
    targets = all(t.kind in ("NAME", "COMMA") for t in tokens[current:at])
    return not (before.kind == "COMMA" and targets)  # the second name in `a, b = ...`


def _pieces(tokens: Sequence[Token], cuts: list[int]) -> list[Sequence[Token]]:
    bounds = [*cuts, len(tokens)]
    return [tokens[a:b] for a, b in pairwise(bounds) if b > a]
