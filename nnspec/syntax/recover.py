"""Find every independent syntax error: mend the brackets, take the text apart, and parse each statement alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from nnspec.diagnostics import Diagnostic
from nnspec.source import Source
from nnspec.syntax.brackets import balance
from nnspec.syntax.build import Builder, TooDeep
from nnspec.syntax.explain import explain
from nnspec.syntax.lalr import UnexpectedToken, run
from nnspec.syntax.split import item_like, matching, outermost, split_items, split_statements
from nnspec.syntax.tokens import MAX_DIAGNOSTICS, Token


def find_errors(source: Source, tokens: Sequence[Token], lexical: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return the errors of tokens that do not parse, those of their characters (`lexical`) included."""
    try:
        mended, brackets = balance(source, tokens)
    except TooDeep as error:
        return [*lexical, error.diagnostic]
    known = [*lexical, *brackets]
    search = _Search(source, mended, known)
    for item in split_items(source, mended):
        if len(known) + len(search.diagnostics) < MAX_DIAGNOSTICS:
            search.item(item)
    if not known and not search.diagnostics:
        search.attempt(tokens, "file")  # the guessed pieces parse: the error lies between them
    return [*known, *search.diagnostics]


class _Search:
    def __init__(self, source: Source, tokens: Sequence[Token], known: Sequence[Diagnostic]) -> None:
        self.source = source
        self.starts = [token.start for token in tokens]
        self.mended = sorted(label.span.start for diagnostic in known for label in diagnostic.labels)
        self.diagnostics: list[Diagnostic] = []

    def item(self, tokens: Sequence[Token]) -> None:
        brace = self._body_brace(tokens) if item_like(tokens[0].text) else None
        if brace is None:
            self.attempt(tokens, "file")
            return
        end = self._head_and_body(tokens, brace, "file")
        if end + 1 < len(tokens):
            self.item(tokens[end + 1 :])

    def _statement(self, tokens: Sequence[Token]) -> None:
        brace = self._body_brace(tokens) if tokens[0].text == "for" else None
        if brace is None:
            self.attempt(tokens, "statement")
            return
        end = self._head_and_body(tokens, brace, "statement")
        self._body(tokens[end + 1 :])

    def _head_and_body(self, tokens: Sequence[Token], brace: int, start: str) -> int:
        end = matching(tokens, brace)
        opener = tokens[brace]
        self.attempt([*tokens[: brace + 1], Token("RBRACE", opener.end, opener.end, "")], start)
        self._body(tokens[brace + 1 : end])
        return end

    def _body(self, tokens: Sequence[Token]) -> None:
        for statement in split_statements(self.source, tokens):
            if len(self.diagnostics) < MAX_DIAGNOSTICS:
                self._statement(statement)

    def _body_brace(self, tokens: Sequence[Token]) -> int | None:
        """Return the index of a body's opening brace: the first that belongs to no `if`."""
        for at in outermost(tokens):
            if tokens[at].kind != "LBRACE":
                continue
            end = matching(tokens, at)
            if tokens[at - 1].text != "else" and (end + 1 == len(tokens) or tokens[end + 1].text != "else"):
                return at
        return None

    def attempt(self, tokens: Sequence[Token], start: str) -> None:
        """Parse a piece and keep its error, unless something in it was mended: then the error may be the mending's."""
        builder = Builder(self.source)
        found: list[Diagnostic] = []
        try:
            run(tokens, self.source.text, start, builder.actions)
        except UnexpectedToken as error:
            found.append(explain(self.source, tokens, error, start))
        except TooDeep as error:
            found.append(error.diagnostic)
        if not found:
            self.diagnostics += builder.diagnostics
        elif not self._was_mended(tokens):
            self.diagnostics += found

    def _was_mended(self, tokens: Sequence[Token]) -> bool:
        """Return whether something was mended between the piece's start and the next token after it."""
        following = bisect_right(self.starts, tokens[-1].start)
        end = self.starts[following] if following < len(self.starts) else len(self.source.text) + 1
        first = bisect_left(self.mended, tokens[0].start)
        return first < len(self.mended) and self.mended[first] < max(end, tokens[-1].end)
