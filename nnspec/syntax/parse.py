"""Parse .nn text into its syntax tree, or say everything that is wrong with it."""

from __future__ import annotations

from nnspec.diagnostics import Diagnostic, SpecError
from nnspec.source import Source
from nnspec.syntax.build import Builder, TooDeep
from nnspec.syntax.lalr import UnexpectedToken, run
from nnspec.syntax.recover import find_errors
from nnspec.syntax.tokens import MAX_DIAGNOSTICS, scan
from nnspec.syntax.tree import File


def parse(source: Source) -> File:
    """Return the syntax tree of a source.

    Raises SpecError with every independent syntax error of the text, in the order of the text.
    """
    tokens, diagnostics = scan(source)
    if len(diagnostics) >= MAX_DIAGNOSTICS:
        raise SpecError(diagnostics)
    builder = Builder(source)
    try:
        file: File = run(tokens, source.text, "file", builder.actions)
        diagnostics += builder.diagnostics
    except UnexpectedToken:
        diagnostics = find_errors(source, tokens, diagnostics)
    except TooDeep as error:
        diagnostics.append(error.diagnostic)
    if diagnostics:
        raise SpecError(sorted(diagnostics, key=_place)[:MAX_DIAGNOSTICS])
    return file


def _place(diagnostic: Diagnostic) -> int:
    return diagnostic.labels[0].span.start
