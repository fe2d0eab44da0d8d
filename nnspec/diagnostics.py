"""Diagnostics as data: a code, one message, labelled spans and help; rendering is apart from them."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from unicodedata import combining, east_asian_width

from nnspec.source import Span


class Severity(StrEnum):
    """How bad it is: an error stops the compiler, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Code(StrEnum):
    """Every diagnostic that nnspec can give, by its stable name."""

    SYNTAX = "syntax"
    UNKNOWN_NAME = "unknown-name"
    UNKNOWN_ARGUMENT = "unknown-argument"
    UNKNOWN_SETTING = "unknown-setting"
    UNKNOWN_ATTRIBUTE = "unknown-attribute"
    MISSING_ARGUMENT = "missing-argument"
    SURPLUS_ARGUMENT = "surplus-argument"
    DUPLICATE_ARGUMENT = "duplicate-argument"
    DUPLICATE_NAME = "duplicate-name"
    MISSING_SETTING = "missing-setting"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    SHAPE_MISMATCH = "shape-mismatch"
    DIVISION = "division"
    ARITHMETIC = "arithmetic"
    REBINDING = "rebinding"
    UNUSED = "unused"
    CYCLE = "cycle"
    IMPORT = "import"
    TOO_LARGE = "too-large"
    NO_OUTPUT = "no-output"
    NO_RETURN = "no-return"
    NO_NETWORK = "no-network"
    AMBIGUOUS = "ambiguous"
    MISPLACED = "misplaced"
    MISSING_NEXT = "missing-next"
    STATE = "state"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Label:
    """A span and what to say beneath it (may be empty)."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `labels[0]` is where to look first, the others are context.

    `chain` lists the calls, outermost first, that led into the block where it was found.
    """

    code: Code
    message: str
    labels: tuple[Label, ...]
    help: str = ""
    severity: Severity = Severity.ERROR
    chain: tuple[Label, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the diagnostic as plain data: positions are from 1, `end` is exclusive."""

        def place(label: Label) -> dict[str, Any]:
            line, column = label.span.source.position(label.span.start)
            end_line, end_column = label.span.source.position(label.span.end)
            return {
                "file": label.span.source.path,
                "line": line,
                "column": column,
                "end_line": end_line,
                "end_column": end_column,
                "text": label.text,
            }

        return {
            "severity": str(self.severity),
            "code": str(self.code),
            "message": self.message,
            "labels": [place(label) for label in self.labels],
            "help": self.help,
            "chain": [place(label) for label in self.chain],
        }


class NnspecError(Exception):
    """Base of every error that nnspec raises for bad input.

    ```
    NnspecError
    +-- SpecError        what a .nn file says: carries diagnostics with spans
    +-- GradientError    a graph that cannot be differentiated
    ```
    """


class SpecError(NnspecError):
    """A .nn file that does not compile; `diagnostics` holds every independent finding."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics[0].message if self.diagnostics else "invalid specification")

    def __str__(self) -> str:
        return render(self.diagnostics)


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name most like `name`, or None where none is close."""
    known = {k.lower(): k for k in allowed}
    name = name.lower()
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.65):
        return known[close[0]]
    starts = [k for k in known if min(len(k), len(name)) >= 3 and (name.startswith(k) or k.startswith(name))]
    return known[max(starts, key=len)] if starts else None


def suggest(name: str, allowed: Iterable[str], *, what: str = "names", limit: int = 40) -> str:
    """Return a help sentence for an unknown name: the nearest one, then the allowed ones."""
    known = sorted(set(allowed))
    best = nearest(name, known)
    head = f"did you mean `{best}`? " if best else ""
    if not known:
        return head.strip()
    shown = ", ".join(known[:limit]) + (", ..." if len(known) > limit else "")
    return f"{head}{what}: {shown}"


_COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "frame": "\x1b[1;34m", "bold": "\x1b[1m"}


HELP_WIDTH = 110
"""Columns of a help text, behind its indentation."""


def render(diagnostics: Sequence[Diagnostic], *, color: bool = False) -> str:
    """Return the diagnostics as text for people: source lines, underlines, help."""
    return "\n\n".join(_render_one(d, color) for d in diagnostics)


def _render_one(d: Diagnostic, color: bool) -> str:
    def paint(text: str, style: str) -> str:
        return f"{_COLOURS[style]}{text}\x1b[0m" if color and text else text

    head = paint(f"{d.severity}[{d.code}]", str(d.severity)) + paint(f": {d.message}", "bold")
    if not d.labels:
        return head + (f"\n  = help: {d.help}" if d.help else "")
    primary = d.labels[0]
    places = [(label, label.span.source.position(label.span.start)) for label in d.labels]
    chain = [(label, label.span.source.position(label.span.start)) for label in d.chain]
    width = len(str(max(line for _, (line, _) in places)))
    bar = paint("|", "frame")
    lines = [head]
    files: list[str] = []
    for label, _ in places:
        if label.span.source.path not in files:
            files.append(label.span.source.path)
    for path in files:
        here = [(label, at) for label, at in places if label.span.source.path == path]
        line, column = here[0][1]
        arrow = "-->" if path == primary.span.source.path else ":::"
        lines.append(f"{' ' * width}{paint(arrow, 'frame')} {path}:{line}:{column}")
        lines.append(f"{' ' * width} {bar}")
        previous: int | None = None
        for label, (line, column) in sorted(here, key=lambda p: (p[1][0], p[0] is primary, p[1][1])):
            text = label.span.source.line(line)
            if line != previous:
                if previous is not None and line > previous + 1:
                    lines.append(f"{paint('...', 'frame')}")
                lines.append(f"{paint(str(line).rjust(width), 'frame')} {bar} {_printable(text)}")
            previous = line
            indent = _columns(text[: column - 1])
            length = max(1, _columns(text[column - 1 : column - 1 + label.span.end - label.span.start]))
            mark, style = ("^", str(d.severity)) if label is primary else ("-", "frame")
            under = paint(mark * length, style)
            note = f" {label.text}" if label.text else ""
            lines.append(f"{' ' * width} {bar} {' ' * indent}{under}{note}")
    if d.help or chain:
        lines.append(f"{' ' * width} {bar}")
    for i, (label, (line, column)) in enumerate(chain):
        if len(chain) > 8 and i == 4:
            lines.append(f"{' ' * width} = ... {len(chain) - 7} more calls")
        if len(chain) <= 8 or not 4 <= i < len(chain) - 3:
            lines.append(f"{' ' * width} = in {label.text}, called at {label.span.source.path}:{line}:{column}")
    if d.help:
        first, *others = textwrap.wrap(d.help, HELP_WIDTH, break_long_words=False, break_on_hyphens=False)
        lines.append(f"{' ' * width} = help: {first}")
        lines += [f"{' ' * width}         {line}" for line in others]
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Return a source line as a terminal may show it: tabs as one blank, control characters and surrogates replaced."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def _columns(text: str) -> int:
    """Return how many columns of a terminal the text takes: East Asian letters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
