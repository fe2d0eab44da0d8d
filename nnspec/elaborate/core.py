"""What evaluating needs at every level: errors that do not hide the next, and what is read off as used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields as parts_of
from typing import Any

from nnspec.elaborate.apply import Applier
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.report import Abort, Fail, Poisoned, Report
from nnspec.elaborate.values import (
    POISON,
    Poison,
    Tensor,
)
from nnspec.source import Span
from nnspec.syntax import tree


class Core(Applier):
    """Evaluates in one body, a network's, a block's or a cell's; the levels above say how."""

    def __init__(self, report: Report, builder: Builder, environment: Environment, scope: Scope, library: Any) -> None:
        super().__init__(report, builder, scope)
        self.environment = environment
        self.library = library
        self.next_states: dict[str, Any] | None = None
        self.training = False

    def guard(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run work; record its error and return POISON, so that the rest can be looked at too."""
        try:
            return work(*arguments)
        except Fail as failure:
            self.report.add(failure.diagnostic)
            if isinstance(failure, Abort):
                raise
        except Poisoned:
            pass
        return POISON

    def touch(self, *parts: tree.Tree) -> None:
        """Count the names in what is not evaluated as used: another call may evaluate it."""
        todo: list[Any] = list(parts)
        while todo:
            part = todo.pop()
            if isinstance(part, tuple):
                todo.extend(part)
            elif isinstance(part, tree.Name):
                if (binding := self.environment.find(part.name)) is not None:
                    binding.used = True
            elif isinstance(part, tree.Tree):
                todo.extend(getattr(part, f.name) for f in parts_of(part))

    def evaluate(self, expression: tree.Expr) -> Any:
        """Return an expression's value; raise Fail or Poisoned."""
        value = self._dispatch(expression)
        if isinstance(value, Poison):
            raise Poisoned
        return value

    def all(self, expressions: Sequence[tree.Expr]) -> list[Any]:
        """Evaluate several expressions and report all their errors."""
        values = [self.guard(self.evaluate, e) for e in expressions]
        if any(isinstance(v, Poison) for v in values):
            raise Poisoned
        return values

    def _dispatch(self, e: tree.Expr) -> Any:
        raise NotImplementedError

    def lookup(self, e: tree.Name) -> Any:
        """Return what a name means here; see `nnspec.elaborate.expressions`."""
        raise NotImplementedError

    def lookup_layer(self, e: tree.Name) -> Any:
        """Return what a name means where a layer is wanted."""
        raise NotImplementedError

    def tensor(self, value: Any, span: Span) -> Tensor:
        """Return a value as a tensor; see `nnspec.elaborate.operators`."""
        raise NotImplementedError
