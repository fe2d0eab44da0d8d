"""Characters that begin no token: say what is wrong and which token was probably meant, so that parsing can go on."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from nnspec.diagnostics import Code, Diagnostic, Label
from nnspec.source import Source, Span


class Repair(NamedTuple):
    """The token to go on with in place of `start <= i < end`; an empty kind means none."""

    diagnostic: Diagnostic
    start: int
    end: int
    kind: str = ""
    text: str = ""


# What other languages, editors and papers write: the token meant, and how .nn writes it.
_FOREIGN = {
    "=>": ("_ARROW", "->", "layers are joined by `->`"),
    "|>": ("_ARROW", "->", "layers are joined by `->`"),
    "→": ("_ARROW", "->", "layers are joined by `->`"),
    "⇒": ("_ARROW", "->", "layers are joined by `->`"),
    "&&": ("NAME", "and", "write `and`"),
    "||": ("NAME", "or", "write `or`"),
    "&": ("NAME", "and", "write `and`"),
    "|": ("NAME", "or", "write `or`"),
    "!": ("NAME", "not", "write `not`"),
    "^": ("POW", "**", "the power is `**`"),
    "×": ("MUL", "*", "write `3x3` for a size and `*` for a product"),
    "·": ("MUL", "*", "the product is `*`, the matrix product `@`"),
    "∗": ("MUL", "*", "the product is `*`"),
    "÷": ("MUL", "/", "the quotient is `/`"),
    "−": ("ADD", "-", "write the minus of the keyboard, `-`"),
    "–": ("ADD", "-", "write the minus of the keyboard, `-`"),
    "—": ("ADD", "-", "write the minus of the keyboard, `-`"),
    "≤": ("COMPARE", "<=", "write `<=`"),
    "≥": ("COMPARE", ">=", "write `>=`"),
    "≠": ("COMPARE", "!=", "write `!=`"),
    ";": ("", "", "statements need no `;`: leave it out"),
}
_FOREIGN_SIGN = re.compile("|".join(re.escape(sign) for sign in sorted(_FOREIGN, key=len, reverse=True)))
_NUMBER = re.compile(r"[0-9][A-Za-z0-9_.]*")
_QUOTED = re.compile(r"'[^'\n]*'|[“”„][^“”„\"\n]*[“”\"]|‘[^‘’\n]*’")
_OPEN_QUOTE = re.compile(r"[\"'“”„‘’][^\n]*")
_WORD = re.compile(r"\w+")
_JUNK = re.compile(r"[^\w\s#\"'()\[\]{},.:=+\-*/%@<>;&|!^]+|\s+|[\x1c-\x1f\x85]+|.", re.DOTALL)


def mend(source: Source, at: int) -> Repair:
    """Return what is wrong with the characters at `at`, which begin no token, and the token that was meant."""
    text = source.text
    if sign := _FOREIGN_SIGN.match(text, at):
        kind, replacement, help_ = _FOREIGN[sign.group()]
        message = f"`{sign.group()}` is not part of the language"
        return _repair(source, at, sign.end(), message, help_, kind, replacement)
    if number := _NUMBER.match(text, at):
        return _mend_number(source, at, number.group())
    if quoted := _QUOTED.match(text, at):
        inner = quoted.group()[1:-1]
        message = "a string stands in double quotes"
        return _repair(source, at, quoted.end(), message, f'write `"{inner}"`', "STRING", '""')
    if quote := _OPEN_QUOTE.match(text, at):
        end = at + len(quote.group().split("#")[0].rstrip(" \t\r)]},")) if quote.group()[0] == '"' else at + 1
        end = max(end, at + 1)
        message = "this string does not end on its line"
        return _repair(source, at, end, message, 'close it with `"`', "STRING", '""')
    if _WORD.match(text, at):
        start = at
        while start > 0 and _WORD.match(text[start - 1]):
            start -= 1
        word = _WORD.match(text, start)
        end = word.end() if word else at + 1
        help_ = "names are made of the letters a-z and A-Z, digits and `_`"
        return _repair(source, start, end, f"`{_shown(text[start:end])}` is not a name", help_, "NAME", "_")
    junk = _JUNK.match(text, at)
    end = junk.end() if junk else at + 1
    message = f"`{_shown(text[at:end])}` is not part of the language"
    return _repair(source, at, end, message, "leave it out")


def _mend_number(source: Source, at: int, word: str) -> Repair:
    """Explain a digit sequence that runs into letters or dots."""
    size = bool(re.fullmatch(r"[0-9]+(x[0-9]*)+|[0-9]+[xX][0-9xX]*", word))
    if size:
        digits = re.findall(r"[0-9]+", word)
        dims = "x".join(digits if len(digits) > 1 else digits * 2)
        return _repair(source, at, at + len(word), f"`{word}` is not a size", f"write `{dims}`", "SIZE", dims)
    if re.fullmatch(r"[0-9]+(_[0-9]+)+", word):
        plain = word.replace("_", "")
        return _repair(source, at, at + len(word), f"`{word}` is not a number", f"write `{plain}`", "NUMBER", plain)
    if dotted := re.fullmatch(r"([0-9]+)\.(?:[eE][0-9]+)?", word):
        help_ = f"write `{dotted[1]}.0` or `{dotted[1]}`"
        return _repair(source, at, at + len(word), f"`{word}` is not a number", help_, "NUMBER", "1")
    if re.match(r"[0-9.]+[eE][0-9.]*$|[0-9]+\.[0-9.]*$", word):
        help_ = "a number is written as `3`, `0.5` or `1e-3`"
        return _repair(source, at, at + len(word), f"`{word}` is not a number", help_, "NUMBER", "1")
    help_ = "a name does not start with a digit, and a product needs its `*`"
    return _repair(source, at, at + len(word), f"`{word}` is neither a number nor a name", help_, "NUMBER", "1")


def _repair(source: Source, start: int, end: int, message: str, help_: str, kind: str = "", text: str = "") -> Repair:
    label = Label(Span(source, start, end))
    return Repair(Diagnostic(Code.SYNTAX, message, (label,), help_), start, end, kind, text)


def _shown(text: str) -> str:
    """Return a short printable form of any characters: letters as they are, others by number and name."""
    if text.isprintable() and not text.isspace():
        return text if len(text) <= 20 else text[:20] + "..."
    first = text[0]
    name = unicodedata.name(first, "").lower()
    return f"U+{ord(first):04X}" + (f" {name}" if name else "")
