"""Whatever the text: a tree or a SpecError, and the formatter keeps what the text says."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nnspec.diagnostics import SpecError, render
from nnspec.source import Source
from nnspec.syntax.dump import dump
from nnspec.syntax.format import format_source
from nnspec.syntax.parse import parse
from nnspec.syntax.tokens import lexicon, scan
from tests.syntax.expectations import errors
from tests.syntax.grammar_text import programs, spoilt

ordinary = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
spellings = [*lexicon().words, *"(){}[],.:=+-*/%@<>", "->", "**", "//", "==", "a", "3", "0.5", "3x3", '"s"']


def _check(text: str) -> None:
    """Parse and, where that fails, look at every diagnostic as a user would."""
    found = errors(Source("a.nn", text))
    for diagnostic in found:
        for label in diagnostic.labels:
            assert 0 <= label.span.start <= label.span.end <= len(text)
        assert diagnostic.message
        assert diagnostic.as_json()["labels"]
    render(found).encode()
    render(found, color=True)


@ordinary
@given(st.text(st.characters(codec=None)))
def test_any_text(text: str) -> None:
    _check(text)


@ordinary
@given(st.lists(st.sampled_from(spellings), max_size=40).map(" ".join))
@example("network A { for i in if a { } else { b }")
def test_any_tokens(text: str) -> None:
    _check(text)
    _check("network A { " + text + " }")


@ordinary
@given(spoilt())
def test_spoilt_programs(text: str) -> None:
    _check(text)


def _check_format(text: str) -> None:
    source = Source("a.nn", text)
    tree = parse(source)
    once = format_source(source)
    assert parse(Source("a.nn", once)) == tree
    assert dump(parse(Source("a.nn", once))) == dump(tree)
    assert format_source(Source("a.nn", once)) == once
    assert sorted(_comments(once)) == sorted(_comments(text))
    assert "\t" not in once
    assert not any(line != line.rstrip() for line in once.split("\n"))


def _comments(text: str) -> list[str]:
    tokens, _ = scan(Source("", text), keep_comments=True)
    return [token.text.rstrip() for token in tokens if token.kind == "COMMENT"]


@ordinary
@given(programs)
def test_programs_parse_and_format(text: str) -> None:
    _check_format(text)


@ordinary
@given(spoilt())
def test_what_is_spoilt_and_still_parses_formats(text: str) -> None:
    try:
        parse(Source("a.nn", text))
    except SpecError:
        return
    _check_format(text)
