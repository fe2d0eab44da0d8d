"""Lay the tokens of one statement out on lines: spaces, line breaks and indentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nnspec.syntax.tokens import RESERVED, Token

WIDTH = 120
_INDENT = 2
_OPENERS = frozenset({"LPAR", "LSQB", "LBRACE"})
_CLOSERS = frozenset({"RPAR", "RSQB", "RBRACE"})
_OPERANDS = frozenset({"NUMBER", "SIZE", "STRING"}) | _CLOSERS


@dataclass
class Piece:
    """A token of a statement with the comments around it.

    `breaks`: the author began a line with it. `leading`: comments on lines of their own before it. `trailing`: a
    comment after it on its line. `body`: the brace that opens a body, which is no bracket of the statement.
    """

    token: Token
    breaks: bool
    leading: list[str] = field(default_factory=list)
    trailing: str = ""
    body: bool = False


def lay_out(pieces: Sequence[Piece], indent: int) -> list[str]:
    """Return the lines of a statement at an indentation.

    The author's line breaks stay before `->`, `+` and `-`, after commas in brackets, and inside brackets; comments
    break lines where they stand; a line that is too long is broken: pipes first, then sums, then brackets.
    """
    return _Layout(pieces, indent).lines()


@dataclass
class _Placed:
    """A token on its line."""

    line: int
    column: int
    end: int


class _Layout:
    def __init__(self, pieces: Sequence[Piece], indent: int) -> None:
        self.pieces = pieces
        self.indent = indent
        self.kinds = [piece.token.kind for piece in pieces]
        self.parents: list[int] = []  # the bracket that each token stands in; a closing one stands in its own
        self.closer: dict[int, int] = {}
        self.depths: list[int] = []
        stack: list[int] = []
        for i, piece in enumerate(pieces):
            bracket = piece.token.kind in _OPENERS and not piece.body
            self.parents.append(stack[-1] if stack else -1)
            self.depths.append(len(stack))
            if bracket:
                stack.append(i)
            elif piece.token.kind in _CLOSERS and stack:
                self.closer[stack.pop()] = i
        self.words = self._find_words()
        self.signs = [kind == "ADD" and not self._operand(i - 1) for i, kind in enumerate(self.kinds)]
        self.breaks = [self._keeps_break(i) for i in range(len(pieces))]
        self._open_broken_brackets()

    def _find_words(self) -> list[bool]:
        """Which names are words of the grammar here: those that no bracket after them makes a call."""
        words = []
        for i, piece in enumerate(self.pieces):
            text = piece.token.text
            after_dot = i > 0 and self.kinds[i - 1] == "DOT"
            named = i + 1 < len(self.pieces) and self.kinds[i + 1] == "EQUAL"
            reserved = text in RESERVED - {"true", "false"} and not after_dot and not named
            headed = self.pieces[0].token.text in ("block", "cell") and self.pieces[-1].body
            data = headed and text in ("on", "given") and i > 1 and self.depths[i] == 0
            words.append(piece.token.kind == "NAME" and (reserved or data))
        return words

    def _operand(self, i: int) -> bool:
        if i < 0:
            return False
        return self.kinds[i] in _OPERANDS or (self.kinds[i] == "NAME" and not self.words[i])

    def _keeps_break(self, i: int) -> bool:
        piece = self.pieces[i]
        if i == 0:
            return False
        if piece.leading or self.pieces[i - 1].trailing:
            return True
        before = self.kinds[i - 1]
        inside = self.parents[i] >= 0
        edge = self.parents[i] == i - 1 or self.closer.get(self.parents[i]) == i
        joint = piece.token.kind == "_ARROW" or self._sum(i)
        return piece.breaks and (joint or (inside and (before == "COMMA" or edge)))

    def _sum(self, i: int) -> bool:
        """Whether a token is the `+` or `-` between two terms."""
        return self.kinds[i] == "ADD" and not self.signs[i]

    def _open_broken_brackets(self) -> None:
        """A bracket with a line break of its own stands alone at the end of a line, and so does its partner."""
        for i, broken in enumerate(self.breaks):
            opener = self.parents[i]
            if broken and opener >= 0:
                self.breaks[opener + 1] = True
                self.breaks[self.closer[opener]] = True

    def lines(self) -> list[str]:
        while True:
            lines, placed = self._render()
            if not self._shorten(placed):
                return lines

    def _dropped(self, i: int) -> bool:
        """A comma before a closing bracket goes, unless the bracket is broken or makes a tuple of one."""
        if self.kinds[i] != "COMMA" or i + 1 >= len(self.pieces) or self.closer.get(self.parents[i]) != i + 1:
            return False
        opener = self.parents[i]
        called = self._operand(opener - 1)
        commas = sum(1 for j in range(opener, i) if self.kinds[j] == "COMMA" and self.parents[j] == opener)
        if self.kinds[opener] == "LPAR" and not called and commas == 0:
            return False
        return not self.breaks[i + 1] and not self.pieces[i].trailing and not self.pieces[i].leading

    def _gap(self, i: int) -> str:
        """Return the space before a token that goes on a line."""
        kind, before = self.kinds[i], self.kinds[i - 1]
        if kind == "DOT":
            return " " if before in ("NUMBER", "SIZE") else ""  # `3.x` would be no number
        if kind in ("COMMA", "RPAR", "RSQB", "COLON") or before in ("LPAR", "LSQB", "DOT"):
            return ""
        if kind in ("LPAR", "LSQB") and self._operand(i - 1):
            return ""
        return "" if self.signs[i - 1] else " "

    def _indent_of(self, i: int, line_indents: dict[int, int]) -> int:
        opener = self.parents[i]
        base = line_indents[opener] if opener >= 0 else self.indent
        if i == 0 or self.closer.get(opener) == i:
            return base
        if opener >= 0:
            base += _INDENT
            if opener == i - 1 or (self.kinds[i - 1] == "COMMA"):
                return base
        return base + _INDENT

    def _render(self) -> tuple[list[str], list[_Placed]]:
        lines: list[str] = []
        placed: list[_Placed] = []
        line_indents: dict[int, int] = {}  # the indentation of the line on which each bracket opens
        current, current_indent = "", self.indent
        for i, piece in enumerate(self.pieces):
            if i == 0 or self.breaks[i]:
                if i > 0:
                    lines.append(current)
                current_indent = self._indent_of(i, line_indents)
                lines += [" " * current_indent + comment for comment in piece.leading]
                current = " " * current_indent
            elif not self._dropped(i):
                current += self._gap(i)
            column = len(current)
            current += "" if self._dropped(i) else piece.token.text
            placed.append(_Placed(len(lines), column, len(current)))
            line_indents[i] = current_indent
            if piece.trailing:
                current += "  " + piece.trailing
        return [*lines, current], placed

    def _shorten(self, placed: list[_Placed]) -> bool:
        """Break each line that is too long, once; return whether one could be broken."""
        shortened = False
        first = 0
        while first < len(placed):
            last = first
            while last + 1 < len(placed) and placed[last + 1].line == placed[first].line:
                last += 1
            if placed[last].end > WIDTH:
                shortened = self._break_line(placed, first, last) or shortened
            first = last + 1
        self._open_broken_brackets()
        return shortened

    def _break_line(self, placed: list[_Placed], first: int, last: int) -> bool:
        for depth in range(min(self.depths[first : last + 1]), max(self.depths[first : last + 1]) + 1):
            here = [i for i in range(first + 1, last + 1) if self.depths[i] == depth]
            arrows = [i for i in here if self.kinds[i] == "_ARROW"]
            if arrows:
                whole = not any(
                    self.breaks[i] and self.kinds[i] == "_ARROW" and self.parents[i] == self.parents[arrows[0]]
                    for i in range(len(self.pieces))
                )
                self._break_at(arrows if whole else self._fill(placed, arrows, last))
                return True
            sums = [i for i in here if self._sum(i)]
            if sums:
                self._break_at(self._fill(placed, sums, last))
                return True
            items = [i for i in here if self.kinds[i - 1] == "COMMA" and self.parents[i] >= 0]
            items = [i for i in items if self.breaks[self.parents[i] + 1] and self.closer[self.parents[i]] != i]
            if items:
                self._break_at(self._fill(placed, items, last))
                return True
            brackets = [i for i in [first, *here] if i in self.closer and self.depths[i] == depth]
            brackets = [i for i in brackets if self.closer[i] > i + 1 and not self.breaks[i + 1]]
            if brackets:
                widest = max(brackets, key=lambda i: placed[self.closer[i]].column - placed[i].column)
                self._break_at([widest + 1, self.closer[widest]])
                return True
        return False

    def _break_at(self, where: Sequence[int]) -> None:
        for i in where:
            self.breaks[i] = True

    def _fill(self, placed: list[_Placed], candidates: list[int], last: int) -> list[int]:
        """Return the fewest of the candidates, in order, that keep the lines within the width."""
        chosen: list[int] = []
        indent = self.indent + _INDENT
        shift, previous = 0, -1
        for i, candidate in enumerate(candidates):
            end = candidates[i + 1] - 1 if i + 1 < len(candidates) else last
            if placed[end].end - shift > WIDTH:
                chosen.append(candidate)
                shift = placed[candidate].column - indent
                previous = candidate
        return chosen if previous >= 0 else candidates[:1]
