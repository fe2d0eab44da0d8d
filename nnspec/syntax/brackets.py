"""Pair brackets: report what is not closed or closes nothing, and mend it so that parsing can go on."""

from __future__ import annotations

from collections.abc import Sequence

from nnspec.diagnostics import Code, Diagnostic, Label
from nnspec.source import Source, Span
from nnspec.syntax.build import MAX_DEPTH, TooDeep, too_deep
from nnspec.syntax.split import ends_value, starts_item, starts_line, starts_statement
from nnspec.syntax.tokens import MAX_DIAGNOSTICS, Token

CLOSERS = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
_SIGN = {"LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "LBRACE": "{", "RBRACE": "}"}


def balance(source: Source, tokens: Sequence[Token]) -> tuple[list[Token], list[Diagnostic]]:
    """Return the tokens with every bracket closed, and a diagnostic for each that was added or left out.

    Raises TooDeep where brackets nest beyond the limit.
    """
    return _Balance(source, tokens).run()


class _Balance:
    def __init__(self, source: Source, tokens: Sequence[Token]) -> None:
        self.source = source
        self.tokens = tokens
        self.out: list[Token] = []
        self.stack: list[int] = []  # where in `out` the open brackets stand
        self.diagnostics: list[Diagnostic] = []
        braces = [token.kind for token in tokens if token.kind in ("LBRACE", "RBRACE")]
        self.trust_columns = braces.count("LBRACE") != braces.count("RBRACE")

    def run(self) -> tuple[list[Token], list[Diagnostic]]:
        for index, token in enumerate(self.tokens):
            if len(self.diagnostics) >= MAX_DIAGNOSTICS:
                break
            if token.kind in CLOSERS:
                self.stack.append(len(self.out))
                if len(self.stack) > MAX_DEPTH:
                    raise TooDeep(too_deep(Span(self.source, token.start, token.end)))
            elif token.kind in CLOSERS.values():
                if not self._close(index):
                    continue
            elif self.stack and self._begins_outside(index):
                self._close_all(token)
            self.out.append(token)
        self._close_all(None)
        return self.out, self.diagnostics

    def _begins_outside(self, index: int) -> bool:
        """Return whether an item begins that is not indented below the line of the outermost open bracket."""
        token = self.tokens[index]
        if not starts_line(self.source, token) or not starts_item(self.tokens, index):
            return False
        return self._indent(token) <= self._indent(self.out[self.stack[0]])

    def _close(self, index: int) -> bool:
        """Take a closing bracket's partner off the stack; return False where it has none."""
        token = self.tokens[index]
        partners = [at for at in self.stack if CLOSERS[self.out[at].kind] == token.kind]
        if not partners:
            message = f"`{token.text}` closes nothing"
            label = Label(Span(self.source, token.start, token.end))
            self.diagnostics.append(Diagnostic(Code.SYNTAX, message, (label,), "leave it out, or open it before"))
            return False
        partner = self._by_column(token, partners) if token.kind == "RBRACE" else partners[-1]
        while self.stack[-1] != partner:
            self._add_closer(self.stack.pop(), token)
        self.stack.pop()
        return True

    def _by_column(self, token: Token, partners: list[int]) -> int:
        """Where braces do not balance, believe a `}` that stands under the line of an outer `{`."""
        if not self.trust_columns or not starts_line(self.source, token):
            return partners[-1]
        column = self._indent(token)
        if self._indent(self.out[partners[-1]]) <= column:
            return partners[-1]
        return next((at for at in reversed(partners) if self._indent(self.out[at]) == column), partners[-1])

    def _indent(self, token: Token) -> int:
        text = self.source.line(self.source.position(token.start)[0])
        return len(text) - len(text.lstrip())

    def _close_all(self, before: Token | None) -> None:
        while self.stack:
            self._add_closer(self.stack.pop(), before)

    def _add_closer(self, opener_at: int, before: Token | None) -> None:
        opener = self.out[opener_at]
        where = self._end_of_body(opener_at) if opener.kind == "LBRACE" else self._end_of_statement(opener_at)
        offset = self.out[where - 1].end
        closer = CLOSERS[opener.kind]
        self.out.insert(where, Token(closer, offset, offset, ""))
        found = f" before `{before.text}`" if before is not None and where == len(self.out) - 1 else ""
        labels = (
            Label(Span(self.source, offset, offset), f"expected `{_SIGN[closer]}`{found}"),
            Label(Span(self.source, opener.start, opener.end), "opened here"),
        )
        self.diagnostics.append(Diagnostic(Code.SYNTAX, f"`{opener.text}` is never closed", labels, _help(closer)))

    def _end_of_statement(self, opener_at: int) -> int:
        """Return where in `out` the statement of an open parenthesis probably ends."""
        call = opener_at > 0 and self.out[opener_at - 1].end == self.out[opener_at].start
        for at in range(opener_at + 1, len(self.out)):
            token = self.out[at]
            if not starts_line(self.source, token):
                continue
            if call and token.kind == "_ARROW":
                return at
            if ends_value(self.out[at - 1]) and starts_statement(self.out, at):
                return at
        return len(self.out)

    def _end_of_body(self, opener_at: int) -> int:
        """Return where in `out` the text is no longer indented below the line of an open brace."""
        margin = self._indent(self.out[opener_at])
        for at in range(opener_at + 1, len(self.out)):
            token = self.out[at]
            if token.kind == "NAME" and starts_line(self.source, token) and self._indent(token) <= margin:
                return at
        return len(self.out)


def _help(closer: str) -> str:
    return f"add `{_SIGN[closer]}`"
