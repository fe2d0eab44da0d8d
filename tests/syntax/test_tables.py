"""The shipped tables are what lark makes of nn.lark, and our driver reads them as lark does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import nnspec_grammar
import pytest
from lark import Lark, Transformer, UnexpectedInput
from nnspec_grammar.build import GrammarConflictError, build_tables, compile_grammar, serialize

from nnspec.source import Source
from nnspec.syntax.build import Builder
from nnspec.syntax.dump import dump
from nnspec.syntax.parse import parse
from nnspec.syntax.tokens import RESERVED, Token, lexicon
from tests.syntax.expectations import BAD, CORPUS, cases, errors, read


def test_the_tables_are_fresh() -> None:
    shipped = (nnspec_grammar._HERE / "nn.json").read_text(encoding="utf-8")
    assert shipped == serialize(build_tables()), "nn.lark has changed: run python -m nnspec_grammar.build"


def test_a_conflict_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ambiguous = nnspec_grammar.grammar().replace("?type: disjunction", "?type: disjunction | disjunction type")
    monkeypatch.setattr("nnspec_grammar.build.grammar", lambda: ambiguous)
    with pytest.raises(GrammarConflictError, match="conflict"):
        compile_grammar()


def test_every_rule_has_its_action() -> None:
    actions = {name for _, _, name, _ in lexicon().tables["rules"]} - {"", "="}
    assert actions == set(Builder(Source("", "")).actions)


def test_reserved_words_are_the_words_without_a_place_of_their_own() -> None:
    words = set(lexicon().words)
    assert words >= RESERVED
    soft = words - RESERVED
    assert soft == {
        "block", "cell", "const", "given", "import", "input", "masked", "metric", "network", "on", "output", "param",
        "shared", "state", "target", "train",
    }  # fmt: skip


@pytest.fixture(scope="module")
def lark() -> Lark:
    return compile_grammar()


class _LarkTree(Transformer[Any, Any]):
    """Our actions, called by lark; spans are beside the point here."""

    def __init__(self, source: Source) -> None:
        super().__init__(visit_tokens=True)
        self.builder = Builder(source)

    def __default__(self, data: Any, children: list[Any], meta: Any) -> Any:
        return self.builder.actions[str(data)](children, 0, 0)

    def __default_token__(self, token: Any) -> Token:
        return Token(token.type, token.start_pos, token.end_pos, str(token))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_lark_itself_gives_the_same_trees(lark: Lark, path: Any) -> None:
    for case in cases(path):
        source = Source(case.title, case.text)
        theirs = _LarkTree(source).transform(lark.parse(case.text, start="file"))
        assert theirs == parse(source), case.title
        assert dump(theirs) == dump(parse(source)), case.title


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_what_lark_refuses_is_refused(lark: Lark, path: Any) -> None:
    source = read(path)
    try:
        lark.parse(source.text, start="file")
    except UnexpectedInput:
        assert errors(source)


def test_parsing_imports_no_lark() -> None:
    program = (
        "import sys; sys.path[:0] = ['.', 'grammar']\n"
        "from nnspec.source import Source; from nnspec.syntax.parse import parse\n"
        "parse(Source('a.nn', 'const a = 1'))\n"
        "assert not {'lark', 'onnx', 'pydantic', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    root = nnspec_grammar._HERE.parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
