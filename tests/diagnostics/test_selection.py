"""What is asked for from outside and is not there: networks, train blocks, parameters, files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnspec.compile import check_file, compile_network, compile_recipe
from nnspec.diagnostics import Code, NnspecError, SpecError, render
from nnspec.elaborate import parse_setting
from nnspec.source import Source

TWO = Source(
    "two.nn",
    "network Small(n = 3) { input x: [4] output y = x -> dense(n) } network Large { input x: [4] output y = x }",
)
NONE = Source("none.nn", "const n = 3")


def code_of(error: pytest.ExceptionInfo[SpecError]) -> Code:
    (diagnostic,) = error.value.diagnostics
    return diagnostic.code


@pytest.mark.parametrize(
    ("source", "network", "code", "says"),
    [
        (TWO, None, Code.AMBIGUOUS, "several networks: Small, Large"),
        (TWO, "Smal", Code.NO_NETWORK, "did you mean `Small`"),
        (NONE, None, Code.NO_NETWORK, "none.nn declares no network"),
    ],
)
def test_network(source: Source, network: str | None, code: Code, says: str) -> None:
    with pytest.raises(SpecError) as error:
        compile_network(source, network)
    assert code_of(error) is code
    assert says in str(error.value)


def test_train_block() -> None:
    with pytest.raises(SpecError) as error:
        compile_recipe(TWO)
    assert code_of(error) is Code.NO_NETWORK
    assert "declares no train block" in str(error.value)


def test_settings() -> None:
    with pytest.raises(SpecError, match="parameters: n") as error:
        compile_network(TWO, "Small", {"m": 4})
    assert code_of(error) is Code.UNKNOWN_ARGUMENT
    assert [str(d.code) for d in check_file(TWO, {"m": 4})] == ["unknown-argument"]
    with pytest.raises(SpecError) as error:
        compile_network(Source("need.nn", "network N(n) { input x: [4] output y = x -> dense(n) }"))
    assert code_of(error) is Code.MISSING_ARGUMENT
    assert "--set n=..." in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-2.5", -2.5),
        ("[1, [2, 3]]", [1, [2, 3]]),
        ("true", True),
        ('"a b"', "a b"),
        ("2 ** 3", 8),
        ("3x3", (3, 3)),
    ],
)
def test_setting_values(text: str, value: object) -> None:
    assert parse_setting(text) == value


@pytest.mark.parametrize("text", ["", "[1", "3 const b = 4", "nope", "1 / 0", "9 ** 9 ** 9", "network N { }", "}"])
def test_bad_setting_values(text: str) -> None:
    with pytest.raises(SpecError):
        parse_setting(text)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NnspecError, match="there is no file"):
        compile_network(tmp_path / "missing.nn")
    with pytest.raises(NnspecError, match="cannot be read"):
        compile_network(tmp_path)
    (tmp_path / "latin.nn").write_bytes(b"network N { # \xe9\n}")
    with pytest.raises(NnspecError, match="not UTF-8"):
        compile_network(tmp_path / "latin.nn")


def spec(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.nn"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "main.nn"


USE = "network N { input x: [4] output y = x -> base -> one -> two }"


def test_a_declaration_may_arrive_by_two_ways(tmp_path: Path) -> None:
    path = spec(
        tmp_path,
        base="block base on x { return x -> relu }",
        one='import "base.nn" block one on x { return x -> base }',
        two='import "base.nn" block two on x { return x -> base }',
        main=f'import "one.nn" import "two.nn" {USE}',
    )
    assert compile_network(path).warnings == ()


def test_two_declarations_of_one_name_clash(tmp_path: Path) -> None:
    path = spec(
        tmp_path,
        one="block base on x { return x -> relu }",
        two="block base on x { return x -> tanh }",
        main='import "one.nn" import "two.nn" network N { input x: [4] output y = x -> base }',
    )
    assert [d.code for d in check_file(path)] == [Code.DUPLICATE_NAME]


def test_links_must_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "outside.nn").write_text("const n = 3")
    path = spec(tmp_path / "inside", main='import "link.nn" import "round.nn" network N { input x: [4] output y = x }')
    (path.parent / "link.nn").symlink_to(tmp_path / "outside.nn")
    (path.parent / "round.nn").symlink_to(path.parent / "round.nn")
    found = check_file(path)
    assert {d.code for d in found} == {Code.IMPORT}
    assert "leads outside" in render(found)
    assert len(found) == 2


def test_folders_below_may_be_imported_but_not_beside(tmp_path: Path) -> None:
    path = spec(
        tmp_path,
        deep__inner="const n = 3",
        deep__up='import "../main.nn"',
        main='import "deep/inner.nn" import "deep/up.nn" network N { input x: [4] output y = x -> dense(n) }',
    )
    (found,) = check_file(path)
    assert found.code is Code.IMPORT
    assert found.labels[0].span.source.path.endswith("deep/up.nn")


def test_a_text_without_a_file_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = check_file(Source("<text>", 'import "a.nn" network N { input x: [4] output y = x }'))
    assert found.code is Code.IMPORT
