"""Files: what a .nn file declares, what it imports, and the standard library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nnspec.diagnostics import Code, Diagnostic, Label, SpecError, suggest
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.report import Report
from nnspec.elaborate.values import BlockFactory
from nnspec.source import Source
from nnspec.syntax import tree
from nnspec.syntax.parse import parse

MAX_IMPORTS = 1000


class Module:
    """A file with its imports resolved: networks, train blocks, and the environment of its names."""

    def __init__(self, source: Source, file: tree.File) -> None:
        self.source = source
        self.file = file
        self.environment = Environment()
        self.networks: dict[str, tree.Network] = {}
        self.trains: list[tree.Train] = []


class Library:
    """The standard library: cells and blocks written in .nn, parsed when one is first named."""

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}

    def names(self) -> Iterator[str]:
        """Return the names of all standard cells and blocks."""
        yield from _library_index()

    def find(self, name: str) -> Any:
        """Return a standard cell or block, or None."""
        path = _library_index().get(name)
        if path is None:
            return None
        if path not in self._modules:
            text = (files("nnspec_grammar") / "std" / path).read_text(encoding="utf-8")
            report = Report()
            self._modules[path] = load(Source(f"std/{path}", text), report, None)
            if report.failed:
                raise SpecError(report.diagnostics)
        binding = self._modules[path].environment.find(name)
        return binding.value if binding else None


@lru_cache(maxsize=1)
def _library_index() -> dict[str, str]:
    """Return the file of each standard cell and block."""
    index: dict[str, str] = {}
    for entry in sorted((files("nnspec_grammar") / "std").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".nn"):
            for match in re.finditer(r"^(?:cell|block) +(\w+)", entry.read_text(encoding="utf-8"), re.MULTILINE):
                index[match[1]] = entry.name
    return index


def load(source: Source, report: Report, root: Path | None) -> Module:
    """Parse a file and what it imports; `root` is the folder that imports must stay in, None for no imports."""
    return _Loader(report).load(source, Path(source.path) if root is not None else None, root)


class _Loader:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.loading: list[Path] = []
        self.done: dict[Path, Module] = {}

    def load(self, source: Source, path: Path | None, root: Path | None) -> Module:
        try:
            file = parse(source)
        except SpecError as error:
            for diagnostic in error.diagnostics:
                self.report.add(diagnostic)
            return Module(source, tree.File((), span=_whole(source)))
        module = Module(source, file)
        names: dict[str, tree.Ident] = {}
        if path is not None:
            self.loading.append(path.resolve())
        for item in file.items:
            match item:
                case tree.Import():
                    self._import(module, item, path, root, names)
                case tree.Network():
                    if self._declare(item.name, names):
                        module.networks[item.name.name] = item
                case tree.Block() | tree.Cell():
                    if self._declare(item.name, names):
                        module.environment.bind(item.name.name, BlockFactory(item, module.environment), item.name.span)
                case tree.Const():
                    if self._declare(item.name, names):
                        self._const(module, item)
                case tree.Train():
                    module.trains.append(item)
        if path is not None:
            self.loading.pop()
        return module

    def _declare(self, ident: tree.Ident, names: dict[str, tree.Ident]) -> bool:
        first = names.setdefault(ident.name, ident)
        if first is ident:
            return True
        self.report.add(
            Diagnostic(
                Code.DUPLICATE_NAME,
                f"`{ident.name}` is declared twice",
                (Label(ident.span), Label(first.span, "declared here first")),
            )
        )
        return False

    def _const(self, module: Module, item: tree.Const) -> None:
        from nnspec.elaborate.body import Body
        from nnspec.elaborate.builder import Builder, Scope

        body = Body(self.report, Builder(self.report), module.environment, Scope(), Library())
        with self.report.until_abort():
            body.bind(item.name, body.guard(body.evaluate, item.value), "")

    def _import(
        self, module: Module, item: tree.Import, path: Path | None, root: Path | None, names: dict[str, tree.Ident]
    ) -> None:
        def problem(code: Code, message: str, help: str = "") -> None:
            self.report.add(Diagnostic(code, message, (Label(item.path.span),), help))

        if path is None or root is None:
            problem(Code.IMPORT, "a text without a file cannot import")
            return
        wanted = item.path.value
        if "\x00" in wanted or not wanted:
            problem(Code.IMPORT, "this is not a path")
            return
        base = path.resolve().parent
        try:
            target = (base / wanted).resolve()
        except (OSError, RuntimeError):
            problem(Code.IMPORT, f"{wanted} cannot be followed: its links run in a circle")
            return
        if Path(wanted).is_absolute() or not target.is_relative_to(base):
            inside = not Path(wanted).is_absolute() and ".." not in Path(wanted).parts
            problem(
                Code.IMPORT,
                "an import must stay inside the folder of the importing file",
                f"{wanted} is a link that leads outside" if inside else "paths are relative to the importing file",
            )
            return
        if target in self.loading:
            chain = " -> ".join(p.name for p in [*self.loading[self.loading.index(target) :], target])
            problem(Code.CYCLE, f"the imports run in a circle: {chain}")
            return
        if len(self.done) >= MAX_IMPORTS:
            problem(Code.TOO_LARGE, f"more than {MAX_IMPORTS} files are imported")
            return
        if target not in self.done:
            try:
                text = target.read_text(encoding="utf-8-sig")
            except FileNotFoundError:
                near = [p.name for p in target.parent.glob("*.nn") if p != path.resolve()]
                help = suggest(target.name, near, what="beside it", limit=8)
                problem(Code.IMPORT, f"there is no file {wanted}", help)
                return
            except (OSError, UnicodeDecodeError) as error:
                reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
                problem(Code.IMPORT, f"{wanted} cannot be read: {reason}")
                return
            shown = str(Path(module.source.path).parent / wanted)
            self.done[target] = self.load(Source(shown, text), target, root)
        for name, binding in self.done[target].environment.bindings.items():
            known = module.environment.bindings.get(name)
            if known is not None and known.span is binding.span:
                continue  # the same declaration, by another way
            ident = tree.Ident(name, span=item.path.span)
            if self._declare(ident, names):
                module.environment.bind(name, binding.value, binding.span)


def _whole(source: Source) -> Any:
    from nnspec.source import Span

    return Span(source, 0, len(source.text))
