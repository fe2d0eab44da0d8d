"""Parse .nn text into its syntax tree, or say everything that is wrong with it."""

from __future__ import annotations

from nnspec.diagnostics import Code, Diagnostic, Label, SpecError
from nnspec.source import Source, Span
from nnspec.syntax.build import Builder, TooDeep
from nnspec.syntax.lalr import UnexpectedToken, run
from nnspec.syntax.tokens import scan
from nnspec.syntax.tree import File


def parse(source: Source) -> File:
    """Return the syntax tree of a source.

    Raises SpecError with every independent syntax error of the text, in the order of the text.
    """
    tokens, diagnostics = scan(source)
    builder = Builder(source)
    try:
        file: File = run(tokens, source.text, "file", builder.actions)
    except UnexpectedToken as error:
        label = Label(Span(source, error.token.start, error.token.end))
        raise SpecError([*diagnostics, Diagnostic(Code.SYNTAX, "unexpected text", (label,), str(error.expected))]) from None
    except TooDeep as error:
        raise SpecError([error.diagnostic]) from None
    diagnostics += builder.diagnostics
    if diagnostics:
        raise SpecError(diagnostics)
    return file
