"""What the language knows by name: layers, losses, settings of training, initialisers, standard cells.

All of it is read off the classes and the standard library, so that nothing is described twice.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nnspec.initializers import NAMED, Initializer
from nnspec.ir import registry


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument: what it may be, what it is where it is left out (None: it must be given), and what it means."""

    name: str
    type: str
    default: str | None
    meaning: str

    def __str__(self) -> str:
        return self.name if self.default is None else f"{self.name} = {self.default}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name of the language: `summary` is the first paragraph of `text` on one line."""

    name: str
    family: str
    arguments: tuple[Argument, ...]
    text: str

    @property
    def signature(self) -> str:
        """The name with its arguments, as a spec writes them."""
        return f"{self.name}({', '.join(map(str, self.arguments))})" if self.arguments else self.name

    @property
    def summary(self) -> str:
        return " ".join(self.text.split("\n\n", 1)[0].split())


def entries() -> list[Entry]:
    """Return everything that can be named, family by family."""
    from nnspec.recipe import registry as settings

    found = [_entry(name, cls, _heading(cls)) for name, cls in registry().items()]
    found += _cells()
    found += [_entry(name, cls, f"Setting of a train block: {cls.slot}") for name, cls in settings().items()]
    for name, initializer in NAMED.items():
        cls = type(initializer) if isinstance(initializer, Initializer) else initializer
        fixed = initializer.model_fields_set if isinstance(initializer, Initializer) else set()
        found.append(_entry(name, cls, "Initialisers: how a weight starts", hidden={"kind", *fixed}))
    return found


def _entry(name: str, cls: type[BaseModel], family: str, hidden: set[str] | None = None) -> Entry:
    schema = cls.model_json_schema()
    kinds = schema.get("properties", {})
    arguments = tuple(
        Argument(
            field, _type(kinds.get(field, {}), schema.get("$defs", {})), _default(info), _meanings(cls).get(field, "")
        )
        for field, info in cls.model_fields.items()
        if field not in (hidden or ())
    )
    return Entry(name, family, arguments, inspect.cleandoc(cls.__doc__ or ""))


def _heading(cls: type) -> str:
    """Return the first sentence of the module's docstring: the family."""
    text = sys.modules[cls.__module__].__doc__ or cls.__module__
    return text.strip().split("\n\n", 1)[0].replace("\n", " ").rstrip(".")


@cache
def _meanings(cls: type) -> dict[str, str]:
    """Return the docstrings that stand below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("nnspec."):
            found.update(_documented(base.__module__).get(base.__name__, {}))
    return found


@cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    classes = [n for n in ast.parse(inspect.getsource(sys.modules[module])).body if isinstance(n, ast.ClassDef)]
    return {c.name: dict(_fields(c)) for c in classes}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, after in zip(node.body, node.body[1:], strict=False):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


def _default(info: FieldInfo) -> str | None:
    return None if info.is_required() else literal(info.get_default(call_default_factory=True))


def literal(value: Any) -> str:
    """Write a value as a spec does."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case Initializer():
            names = [name for name, known in NAMED.items() if known == value]
            return names[0] if names else _called(value)
        case tuple() | list():
            return f"[{', '.join(map(literal, value))}]"
        case float():
            return f"{value:g}"
    return str(value)


def _called(value: Initializer) -> str:
    name = next(name for name, known in NAMED.items() if known is type(value))
    given = ((field, getattr(value, field)) for field in value.model_fields_set if field != "kind")
    return f"{name}({', '.join(f'{field} = {literal(v)}' for field, v in given)})"


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Say in words what a JSON schema admits."""
    if "discriminator" in schema:
        return "initialiser"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one, definitions) for one in schema["anyOf"] if one != {"type": "null"}))
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1].lower()
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "array":
            items = schema.get("items", {})
            return "size" if items.get("type") == "integer" else f"list of {_type(items, definitions)}"
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("integer" if kind == "integer" else "number") + _bounds(schema)
        case "string":
            return "dim" if "description" in schema else "word"
    return "value"


def _bounds(schema: dict[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    parts = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return f" {' and '.join(parts)}" if parts else ""


def _cells() -> list[Entry]:
    """Return the cells and blocks of the standard library, described by the comments above them."""
    from nnspec.source import Source
    from nnspec.syntax import tree
    from nnspec.syntax.parse import parse

    found = []
    for path in sorted((files("nnspec_grammar") / "std").iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".nn"):
            continue
        source = Source(f"std/{path.name}", path.read_text(encoding="utf-8"))
        for item in parse(source).items:
            if isinstance(item, tree.Cell | tree.Block):
                arguments = tuple(
                    Argument(p.name.name, "", p.default.span.text if p.default is not None else None, "")
                    for p in item.parameters
                )
                kind = "Cells" if isinstance(item, tree.Cell) else "Blocks"
                family = f"{kind} of the standard library"
                found.append(Entry(item.name.name, family, arguments, _comment_above(source.text, item.span.start)))
    return found


def _comment_above(text: str, at: int) -> str:
    """Return the comment lines right above a place."""
    above = re.search(r"((?:^[ \t]*#.*\n)*)\Z", text[:at], re.MULTILINE)
    lines = above[1].splitlines() if above else []
    return "\n".join(line.strip().removeprefix("#").strip() for line in lines)
