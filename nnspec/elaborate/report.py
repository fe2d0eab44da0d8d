"""Where findings are gathered, so that one mistake does not hide the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nnspec.diagnostics import Code, Diagnostic, Label, Severity
from nnspec.source import Span


class Fail(Exception):
    """An error that ends the evaluation of a statement; the others go on."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


class Abort(Fail):
    """An error after which to go on would only take long: nothing else is looked at."""


class Poisoned(Exception):
    """Something here depends on what went wrong before: nothing more to say."""


class Report:
    """The findings so far, each once, and the chain of calls that leads to where the elaborator is."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.chain: list[Label] = []
        self.listed = False
        """Whether an error has shown the list of all layers: it is long, and once is enough."""
        self.work = 0
        """Statements run and templates applied so far."""
        self.aborted = False
        self.broken: set[str] = set()
        """Blocks that use themselves without end."""
        self._seen: set[tuple[str, str, int, int]] = set()

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(d.severity is Severity.ERROR for d in self.diagnostics)

    def add(self, diagnostic: Diagnostic) -> None:
        """Record a finding unless the same one stands here already."""
        span = diagnostic.labels[0].span
        key = (str(diagnostic.code), span.source.path, span.start, span.end)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(diagnostic)

    def warn(self, code: Code, message: str, span: Span, text: str = "", help: str = "") -> None:
        """Record a warning: it holds wherever the block is called from."""
        self.add(Diagnostic(code, message, (Label(span, text),), help, Severity.WARNING))

    def fail(
        self, code: Code, message: str, span: Span, text: str = "", help: str = "", others: Iterable[Label] = ()
    ) -> Fail:
        """Return an error to raise."""
        chain = tuple(call for call in self.chain if call.span is not span)
        return Fail(Diagnostic(code, message, (Label(span, text), *others), help, Severity.ERROR, chain))

    @contextmanager
    def until_abort(self) -> Iterator[None]:
        """Record an Abort that ends what is done meanwhile."""
        try:
            yield
        except Abort as failure:
            self.aborted = True
            self.add(failure.diagnostic)

    def abort(self, code: Code, message: str, span: Span, text: str = "", help: str = "") -> Abort:
        """Return an error to raise that ends the whole elaboration."""
        return Abort(self.fail(code, message, span, text, help).diagnostic)
