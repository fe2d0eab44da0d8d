"""What the README shows is what happens."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from nnspec.cli import COMMANDS, main
from nnspec.compile import check_file
from nnspec.diagnostics import render
from nnspec.source import Source

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the contents of the code blocks in a language."""
    return [m[2] for m in re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if m[1] == language]


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.fixture
def beside_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write to in which `examples` is found."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_network_is_the_example():
    (text,) = blocks("nn")
    assert text == (ROOT / "examples" / "digits.nn").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 15


def test_the_summary_is_what_is_printed(beside_examples, capsys):
    assert command(capsys, "summary", "examples/digits.nn") in blocks("")


def test_the_diagnostic_is_what_is_printed():
    text = "network Tiny {\n  input image: [1, 4, 4]\n  a = image -> conv(8, 5x5)\n  output a\n}\n"
    assert render(check_file(Source("tiny.nn", text))) + "\n" in blocks("")


def test_the_python_runs(beside_examples, capsys):
    pieces = blocks("python")
    assert len(pieces) == 3
    for piece in pieces:
        exec(compile(piece, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "56714"
    assert lines[1] == "['logits', 'grad/image']"
    figures = json.loads(lines[2].replace("'", '"'))
    assert figures["accuracy"] > 0.5


def test_the_json_has_the_keys_that_are_printed(beside_examples, capsys):
    summary, check = map(json.loads, blocks("json"))
    found = json.loads(command(capsys, "summary", "examples/digits.nn", "--format", "json"))
    assert found.keys() == summary.keys()
    assert found["layers"][0] == summary["layers"][0]
    assert {**found, "layers": []} == {**summary, "layers": []}
    Path("tiny.nn").write_text("network Tiny {\n  input image: [1, 4, 4]\n  a = image -> conv(8, 5x5)\n  output a\n}\n")
    assert main(["check", "tiny.nn", "--format", "json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    printed["diagnostics"][0]["labels"] = printed["diagnostics"][0]["labels"][:1]
    assert printed == check


def test_the_commands_are_there():
    shown = set(re.findall(r"^nnspec (\w+)", "\n".join(blocks("")), re.MULTILINE)) | {"summary"}
    assert shown == set(COMMANDS)


def test_the_links_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "grammar/README.md", "runtime/README.md"):
        page = ROOT / name
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)\)", text):
            assert target.startswith("https://") or os.path.exists(page.parent / target), f"{name}: {target}"


def test_the_data_are_those_described():
    with np.load(ROOT / "examples" / "data" / "digits-train.npz") as data:
        assert len(data["label"]) == 1438
        assert "1,438 real handwritten digits" in TEXT
