"""The formatter of .nn files: one style, every comment kept, the tree unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from nnspec.source import Source
from nnspec.syntax import tree
from nnspec.syntax.layout import Piece, lay_out
from nnspec.syntax.parse import parse
from nnspec.syntax.split import starts_line
from nnspec.syntax.tokens import Token, scan

_INDENT = 2


@dataclass
class _Line:
    """A statement, the head of a body, a closing brace or a comment of its own; it may be printed on several lines."""

    depth: int
    blank_before: bool
    pieces: list[Piece] = field(default_factory=list)
    comment: str = ""
    opens: bool = False
    closes: bool = False
    comment_column: int = 0


def format_source(source: Source) -> str:
    """Return the source in the standard style; formatting the result again changes nothing.

    One statement on a line, indented by two; a pipe stays broken where the author broke it; at most one blank line
    between statements; lines of at most 120 columns where the text can be broken.
    Raises SpecError where the source does not parse.
    """
    marks = _Marks(parse(source))
    rows: list[str] = []
    columns: list[int] = []  # where the author wrote the comment that ends each row; 0 for no such comment
    previous: _Line | None = None
    for line in _split(source, marks):
        if line.blank_before and previous is not None and not previous.opens and not line.closes:
            rows.append("")
        indent = _INDENT * line.depth
        rows += lay_out(line.pieces, indent) if line.pieces else [" " * indent + line.comment]
        columns += [0] * (len(rows) - len(columns))
        if line.pieces and line.pieces[-1].trailing:
            columns[-1] = line.comment_column
        previous = line
    _align(rows, columns)
    return "".join(row + "\n" for row in rows)


def _align(rows: list[str], columns: list[int]) -> None:
    """Align the comments that end neighbouring rows where the author had aligned them."""
    for _, group in groupby(range(len(rows)), key=lambda i: columns[i]):
        run = list(group)
        if len(run) < 2 or columns[run[0]] == 0:
            continue
        starts = {i: _comment_start(rows[i]) for i in run}
        widest = max(starts.values())
        for i, start in starts.items():
            rows[i] = rows[i][:start] + " " * (widest - start) + rows[i][start:]


def _comment_start(row: str) -> int:
    tokens, _ = scan(Source("", row), keep_comments=True)
    return tokens[-1].start


class _Marks:
    """Where the tree says that statements begin and bodies end."""

    def __init__(self, file: tree.File) -> None:
        self.starts: set[int] = set()
        self.closers: set[int] = set()
        for item in file.items:
            self._mark(item)

    def _mark(self, node: tree.Item | tree.Statement) -> None:
        self.starts.add(node.span.start)
        if isinstance(node, tree.Network | tree.Block | tree.Cell | tree.Train | tree.For):
            self.closers.add(node.span.end - 1)
            for statement in node.body:
                self._mark(statement)


def _split(source: Source, marks: _Marks) -> list[_Line]:
    tokens, _ = scan(source, keep_comments=True)
    openers = _partners(tokens, marks.closers)
    following: int | None = None  # where the next token that is no comment starts
    next_starts: list[int | None] = []
    for token in reversed(tokens):
        next_starts.append(following)
        following = following if token.kind == "COMMENT" else token.start
    next_starts.reverse()

    lines: list[_Line] = []
    depth, end = 0, 0
    pending: list[str] = []
    for token, next_start in zip(tokens, next_starts, strict=True):
        blank = source.text.count("\n", end, token.start) > 1
        breaks = "\n" in source.text[end : token.start]
        end = token.end
        if token.kind == "COMMENT":
            text = token.text.rstrip()
            if not starts_line(source, token) and lines and lines[-1].pieces:
                lines[-1].pieces[-1].trailing = text
                lines[-1].comment_column = source.position(token.start)[1]
            elif next_start is None or next_start in marks.starts or next_start in marks.closers:
                lines.append(_Line(depth, blank, comment=text))
            else:
                pending.append(text)
            continue
        if token.start in marks.closers:
            depth -= 1
            lines.append(_Line(depth, blank, closes=True))
        elif token.start in marks.starts:
            lines.append(_Line(depth, blank))
        lines[-1].pieces.append(Piece(token, breaks, leading=pending, body=token.start in openers))
        pending = []
        if token.start in openers:
            lines[-1].opens = True
            depth += 1
    return lines


def _partners(tokens: list[Token], closers: set[int]) -> set[int]:
    """Return where the braces open that close at `closers`."""
    stack: list[int] = []
    found: set[int] = set()
    for token in tokens:
        if token.kind == "LBRACE":
            stack.append(token.start)
        elif token.kind == "RBRACE":
            opener = stack.pop()
            if token.start in closers:
                found.add(opener)
    return found
