"""Names in scope: what they mean, where they were bound, and whether anybody used them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nnspec.source import Span


@dataclass(slots=True)
class Binding:
    """A name's value; `what` says what it is in an unused-warning, empty where unused names are fine."""

    value: Any
    span: Span | None
    what: str = ""
    used: bool = False


class Environment:
    """A level of names in front of another one."""

    def __init__(self, parent: Environment | None = None) -> None:
        self.parent = parent
        self.bindings: dict[str, Binding] = {}

    def find(self, name: str) -> Binding | None:
        """Return the innermost binding of a name."""
        level: Environment | None = self
        while level is not None:
            if name in level.bindings:
                return level.bindings[name]
            level = level.parent
        return None

    def bind(self, name: str, value: Any, span: Span | None = None, what: str = "") -> None:
        """Bind a name here, in place of what it meant here before."""
        self.bindings[name] = Binding(value, span, what)

    def names(self) -> Iterator[str]:
        """Return every name in scope."""
        level: Environment | None = self
        while level is not None:
            yield from level.bindings
            level = level.parent
