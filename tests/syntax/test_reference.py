"""The language reference is true: its examples parse, its words are the grammar's, its error is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnspec.diagnostics import render
from nnspec.source import Source
from nnspec.syntax.format import format_source
from nnspec.syntax.parse import parse
from nnspec.syntax.tokens import RESERVED, lexicon
from tests.syntax.expectations import errors

REFERENCE = (Path(__file__).parents[2] / "grammar" / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```nn\n(.*?)```", REFERENCE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_examples_parse_and_are_well_formatted(text: str) -> None:
    if "..." in text:
        text = text.replace("(...)", "").replace("...", "")
    elif text.startswith(("stride", "for")):
        text = "network A {\n" + "".join(f"  {line}\n" for line in text.rstrip("\n").split("\n")) + "}\n"
    assert parse(Source("", text)).items
    if "{  }" not in text:
        assert format_source(Source("", text)) == text


STATEMENTS = REFERENCE.split("## Networks")[1].split("## Expressions")[0]


@pytest.mark.parametrize("line", re.findall(r"^\| `(.*?)` \|", STATEMENTS, re.MULTILINE))
def test_the_statements_of_the_table_parse(line: str) -> None:
    parse(Source("", "network A {" + line.replace("...", "") + "}"))


def test_the_lists_of_words_are_the_grammar() -> None:
    words = re.search(r"\*\*Reserved\*\*(.*?)They may(.*?)everywhere else(.*?)So a metric", REFERENCE, re.DOTALL)
    assert words
    assert set(re.findall(r"`([a-z]+)`", words[1])) == RESERVED
    assert set(re.findall(r"`([a-z]+)`", words[3])) == set(lexicon().words) - RESERVED


def test_the_error_is_what_is_printed() -> None:
    shown = re.search(r"```\n(error\[.*?)```", REFERENCE, re.DOTALL)
    assert shown
    source = Source("tiny.nn", "network A {\n  input x: [1, 8, 8]\n  y = x -> conv(64 3x3)\n  output y\n}\n")
    assert render(errors(source)) + "\n" == shown[1]
