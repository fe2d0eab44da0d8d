"""Each bad spec gives the diagnostics that its comments promise, rendered as stored beside it.

`# error: [code]` or `# warning: [code]` at the end of a line says what is found there. `--update-golden` writes the
renderings anew: read the diff, a rendering is right only if it helps at two in the morning.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from nnspec.compile import check_file
from nnspec.diagnostics import Code, Diagnostic, Severity, render

HERE = Path(__file__).parent
SPECS = sorted(p.name for p in HERE.glob("*.nn"))


def promised(names: list[str]) -> Counter[tuple[str, int, str, str]]:
    """Return (file, line, severity, code) of every promise in the comments of files."""
    found: Counter[tuple[str, int, str, str]] = Counter()
    for name in names:
        for number, line in enumerate((HERE / name).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if comment := re.search(r"# (error|warning):((?: \[[a-z-]+\])+)$", line):
                found.update((name, number, comment[1], code) for code in re.findall(r"\[([a-z-]+)\]", comment[2]))
    return found


def place(d: Diagnostic) -> tuple[str, int, str, str]:
    span = d.labels[0].span
    return span.source.path, span.line, str(d.severity), str(d.code)


@pytest.mark.parametrize("name", SPECS)
def test_spec(name: str, monkeypatch: pytest.MonkeyPatch, update_golden: bool) -> None:
    monkeypatch.chdir(HERE)
    found = check_file(name)
    files = list(dict.fromkeys([name, *(label.span.source.path for d in found for label in d.labels)]))
    assert Counter(map(place, found)) == promised(files)
    text = render(found) + "\n"
    stored = HERE / name.replace(".nn", ".txt")
    if update_golden:
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SPECS)
def test_spans_lie_within_their_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    for d in check_file(name):
        for label in d.labels:
            assert 0 <= label.span.start < label.span.end <= len(label.span.source.text)
        assert d.message
        assert "\n" not in d.message
        data = d.as_json()
        assert data["severity"] in list(Severity)
        assert all(entry["line"] >= 1 and entry["column"] >= 1 for entry in data["labels"])


APART = {Code.NO_NETWORK, Code.AMBIGUOUS}
"""Codes of what is asked on the command line rather than written in a file: see test_selection.py."""


def test_every_code_has_a_case() -> None:
    specs = [*SPECS, *(str(p.relative_to(HERE)) for p in HERE.glob("*/*.nn"))]
    shown = {code for _, _, _, code in promised(specs)}
    assert {str(c) for c in Code} - shown == {str(c) for c in APART}
