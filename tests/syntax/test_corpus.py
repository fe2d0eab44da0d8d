"""Every construct of the language parses to the tree that the corpus gives for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnspec.source import Source
from nnspec.syntax import tree
from nnspec.syntax.dump import dump
from nnspec.syntax.parse import parse
from tests.syntax.expectations import CORPUS, Case, cases

ALL = [pytest.param(case, id=f"{path.stem}: {case.title}") for path in CORPUS for case in cases(path)]


@pytest.mark.parametrize("case", ALL)
def test_tree(case: Case) -> None:
    assert dump(parse(Source(case.title, case.text))).rstrip("\n") == case.tree


def _nodes(node: object) -> Iterator[tree.Tree]:
    if isinstance(node, tree.Tree):
        yield node
        for field in dataclasses.fields(node):
            yield from _nodes(getattr(node, field.name))
    elif isinstance(node, tuple):
        for part in node:
            yield from _nodes(part)


@pytest.mark.parametrize("case", ALL)
def test_spans_enclose_their_parts(case: Case) -> None:
    for node in _nodes(parse(Source(case.title, case.text))):
        for field in dataclasses.fields(node):
            for part in _nodes(getattr(node, field.name)):
                assert node.span.start <= part.span.start <= part.span.end <= node.span.end
                assert part.span.source is node.span.source


@pytest.mark.parametrize("case", ALL)
def test_the_text_of_an_expression_parses_to_that_expression(case: Case) -> None:
    for node in _nodes(parse(Source(case.title, case.text))):
        if isinstance(node, tree.Expr):
            (alone,) = parse(Source("", f"const x = ({node.span.text})")).items
            assert isinstance(alone, tree.Const)
            assert alone.value == node


def test_every_kind_of_node_has_a_case() -> None:
    concrete = {
        kind
        for kind in vars(tree).values()
        if isinstance(kind, type) and issubclass(kind, tree.Tree)
    } - {tree.Tree, tree.Expr, tree.Statement, tree.Item}  # fmt: skip
    seen = {type(node) for path in CORPUS for case in cases(path) for node in _nodes(parse(Source("", case.text)))}
    assert seen == concrete


def test_the_files_hold_nothing_but_cases() -> None:
    for path in CORPUS:
        written = path.read_text(encoding="utf-8")
        assert len(cases(path)) == sum(line.startswith("=== ") for line in written.split("\n")), Path(path).name
