"""Read the corpus and the bad specs; `python -m tests.syntax.expectations` writes their expectations anew.

Read the diff afterwards: what it writes is what the compiler does, right or wrong.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from nnspec.diagnostics import Diagnostic, SpecError, render
from nnspec.source import Source
from nnspec.syntax.dump import dump
from nnspec.syntax.parse import parse

TESTS = Path(__file__).parent.parent
CORPUS = sorted((TESTS / "corpus").glob("*.txt"))
BAD = sorted((TESTS / "diagnostics" / "syntax").glob("*.nn"))


class Case(NamedTuple):
    """A title, a source and the tree that is expected of it."""

    title: str
    text: str
    tree: str


def cases(path: Path) -> list[Case]:
    """Return the cases of a corpus file: `=== title`, the source, `---`, the tree."""
    case = re.compile(r"^=== (.*)\n((?:.*\n)*?)---\n((?:(?!===).*\n)*)", re.MULTILINE)
    found = case.findall(path.read_text(encoding="utf-8"))
    return [Case(title, text.removesuffix("\n"), tree.strip("\n")) for title, text, tree in found]


def read(path: Path) -> Source:
    """Return a bad spec, which may hold what is no Unicode text, under its file name alone."""
    return Source(path.name, path.read_bytes().decode("utf-8", "surrogatepass"))


def marked(source: Source) -> list[tuple[int, str]]:
    """Return the lines and codes that the `# error: [code]` comments of a bad spec promise."""
    promises = []
    for number, line in enumerate(source.text.split("\n"), 1):
        comment = re.search(r"# error:((?: \[[a-z-]+\])+)$", line)
        if comment:
            promises += [(number, code) for code in re.findall(r"\[([a-z-]+)\]", comment[1])]
    return promises


def errors(source: Source) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of a source, none where it parses."""
    try:
        parse(source)
    except SpecError as error:
        return error.diagnostics
    return ()


def main() -> None:
    """Write the trees of the corpus and the renderings of the bad specs."""
    for path in CORPUS:
        blocks = []
        for case in cases(path):
            tree = dump(parse(Source(case.title, case.text)))
            blocks.append(f"=== {case.title}\n{case.text}\n---\n{tree}")
        path.write_text("\n".join(blocks), encoding="utf-8")
    for path in BAD:
        path.with_suffix(".txt").write_text(render(errors(read(path))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
