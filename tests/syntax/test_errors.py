"""Bad specs: each error stands where its file says, reads as stored, and all of a file come at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nnspec.diagnostics import Code, SpecError, render
from nnspec.source import Source
from nnspec.syntax import explain, mend
from nnspec.syntax.parse import parse
from nnspec.syntax.tokens import MAX_DIAGNOSTICS
from tests.syntax.expectations import BAD, errors, marked, read


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_errors_stand_where_the_file_says(path: Path) -> None:
    source = read(path)
    assert [(d.labels[0].span.line, str(d.code)) for d in errors(source)] == marked(source)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_rendering(path: Path) -> None:
    assert render(errors(read(path))) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_explanation_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[str] = Counter()

    def counted(rule):  # type: ignore[no-untyped-def]
        def call(scene):  # type: ignore[no-untyped-def]
            finding = rule(scene)
            used[rule.__name__] += finding is not None
            return finding

        return call

    names = [rule.__name__ for rule in explain._RULES]
    monkeypatch.setattr(explain, "_RULES", tuple(counted(rule) for rule in explain._RULES))
    for path in BAD:
        errors(read(path))
    errors(Source("", "network A { x = f(a b"))
    assert [name for name in names if not used[name]] == []


@pytest.mark.parametrize(("sign", "meant"), [(sign, text) for sign, (_, text, _) in mend._FOREIGN.items()])
def test_a_foreign_sign_is_one_error_and_parsing_goes_on(sign: str, meant: str) -> None:
    operand = "" if sign == "!" else "a"
    source = Source("", f"network A {{\n  x = {operand} {sign} {'' if sign == ';' else 'b'}\n  y = = 3\n}}")
    first, second = errors(source)
    assert first.labels[0].span.text == sign
    assert meant in first.help
    assert second.labels[0].span.line == 3


def test_independent_errors_come_at_once_in_the_order_of_the_text() -> None:
    found = errors(Source("", "const a = 3x\nnetwork A {\n  x = f(1 2)\n  y = g(\n}\nblock b on { }\nconst c = 'c'"))
    assert [d.labels[0].span.line for d in found] == [1, 3, 4, 6, 7]


def test_an_error_does_not_hide_the_rest_of_the_statement_from_the_reserved_words() -> None:
    (first, second) = errors(Source("", "network A {\n  if = 3\n  x = for\n}"))
    assert [first.labels[0].span.text, second.labels[0].span.text] == ["if", "for"]


def test_columns_of_wide_letters() -> None:
    (found,) = errors(Source("a.nn", 'const a = "日本" §'))
    assert render([found]).split("\n")[4] == "  |                  ^"


def test_control_characters_are_not_printed() -> None:
    shown = render(errors(Source("a.nn", 'const a = "\x1b[31m\t\0" §')))
    assert "\x1b" not in shown
    assert "\0" not in shown
    assert "\t" not in shown


def test_windows_line_ends_and_a_byte_order_mark_are_no_errors() -> None:
    assert parse(Source("", "\ufeffconst a = 1\r\n# b\r\nconst c = 2\r\n")) == parse(
        Source("", "const a = 1\nconst c = 2")
    )


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000_000,
        ")" * 1_000_000,
        "network A { x = " + "-" * 300_000,
        "a " * 300_000,
        "network A {" + "a = " * 100_000 + "}",
        "const a = " + "9" * 1_000_000,
        '"' * 300_000,
        "'" * 300_000,
        "$ " * 300_000,
        "\0" * 1_000_000,
        "network A {" + "for i in l {" * 30_000,
        "network A {\n" + "x = = 3\n" * 20_000 + "}",
        "network A { " + "a, " * 50_000 + "= 3 }",
        "const a = " + "if a { b } else " * 30_000 + "{ c }",
        "network A { input" + " # x y = z\n" * 100_000 + "}",
        "a\u0301" * 100_000,
    ],
    ids=lambda text: text[:24],
)
def test_large_nonsense_gives_few_errors(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(Source("", text))
    assert 1 <= len(caught.value.diagnostics) <= MAX_DIAGNOSTICS


def test_depth_is_limited_but_a_pipe_is_not() -> None:
    parse(Source("", "const a = x" + " -> f" * 5_000))
    for text in ["-" * 200 + "x", "(" * 200 + "x" + ")" * 200, "x" + ".y" * 200, "x" + " ** x" * 200, "x" + "()" * 200]:
        (found,) = errors(Source("", f"const a = {text}"))
        assert found.code == Code.TOO_LARGE
