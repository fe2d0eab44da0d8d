"""Text to tokens, as nn.lark defines them; what is no token is mended where one can guess what was meant."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from nnspec_grammar import Tables, tables

from nnspec.diagnostics import Diagnostic
from nnspec.source import Source
from nnspec.syntax.mend import mend

BLANKS = frozenset({"BLANK", "COMMENT"})
MAX_DIAGNOSTICS = 50
"""How many errors of one text are worth reading."""
RESERVED = frozenset(
    {"and", "as", "else", "false", "for", "freeze", "if", "in", "next", "not", "or", "recompute", "return", "true"}
)


class Token(NamedTuple):
    """A terminal of the grammar and where it stands; keywords are NAME until the parser knows their place."""

    kind: str
    start: int
    end: int
    text: str


class Lexicon(NamedTuple):
    """The grammar's tables with their regular expressions compiled."""

    tables: Tables
    tokens: re.Pattern[str]
    words: dict[str, tuple[str, re.Pattern[str]]]


@cache
def lexicon() -> Lexicon:
    """Return the lexicon of nn.lark; it is read once."""
    data = tables()
    # ODD comes first because `=>` would otherwise be two tokens; JUNK is what no terminal matches.
    patterns = [("ODD", "=>"), *data["tokens"], ("JUNK", r"(?s:.)")]
    master = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in patterns))
    following = {text: re.compile(text) for _, text in data["words"].values()}
    return Lexicon(data, master, {word: (name, following[text]) for word, (name, text) in data["words"].items()})


def scan(source: Source, *, keep_comments: bool = False) -> tuple[list[Token], list[Diagnostic]]:
    """Return the tokens of a source and what was wrong with its characters, up to MAX_DIAGNOSTICS findings.

    Blanks are left out, and comments too unless `keep_comments`.
    """
    text = source.text
    match = lexicon().tokens.match
    skipped = {"BLANK"} if keep_comments else BLANKS
    tokens: list[Token] = []
    diagnostics: list[Diagnostic] = []
    at = 1 if text.startswith("\ufeff") else 0
    while at < len(text) and len(diagnostics) < MAX_DIAGNOSTICS:
        found = match(text, at)
        assert found is not None  # JUNK matches any character
        kind = found.lastgroup or ""
        end = found.end()
        if kind == "JUNK" or kind == "ODD":
            repair = mend(source, at)
            diagnostics.append(repair.diagnostic)
            start, end = repair.start, repair.end
            while tokens and tokens[-1].end > start:
                tokens.pop()  # the beginning of a word that goes on with a foreign letter
            if repair.kind:
                tokens.append(Token(repair.kind, start, end, repair.text))
        elif kind not in skipped:
            tokens.append(Token(kind, at, end, found.group()))
        at = end
    return tokens, diagnostics
