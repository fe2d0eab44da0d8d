"""What an expression can be while compiling: numbers, tensors, and templates of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnspec.dims import Symbolic
from nnspec.initializers import Initializer
from nnspec.ir import Layer, TensorType
from nnspec.source import Span
from nnspec.syntax import tree


class Sizes(tuple[int, ...]):
    """A size such as `3x3`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word that an argument understands, such as `same`."""

    text: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that flows through the network; `span` is what made it."""

    ref: str
    type: TensorType
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class TupleValue:
    """Values side by side. With `results` the first is the main one, and stands for all where one is wanted."""

    items: tuple[Any, ...]
    results: bool = False


@dataclass(frozen=True, slots=True)
class Poison:
    """The value of what went wrong; whatever it touches says nothing more."""


POISON = Poison()


class Template:
    """A layer, or several, without input. Every use has weights of its own."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LayerTemplate(Template):
    """A layer with its arguments; `arguments` says where each was written."""

    layer: Layer
    arguments: Mapping[str, Span]
    span: Span


@dataclass(frozen=True, slots=True)
class BlockTemplate(Template):
    """A block or cell with its hyperparameters, and data given by name."""

    factory: BlockFactory
    parameters: Mapping[str, Any]
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    arguments: Mapping[str, Span]
    span: Span


@dataclass(frozen=True, slots=True)
class Bidirectional(Template):
    """`bidirectional(cell, join = concat)`: two copies, one running backwards, and what joins their results."""

    cell: Template
    join: Any
    """A template of two tensors; None joins them on the feature axis."""
    span: Span


@dataclass(frozen=True, slots=True)
class Compose(Template):
    """`f -> g` without an input."""

    stages: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Repeat(Template):
    """`f * n`."""

    body: Any
    count: int
    span: Span


@dataclass(frozen=True, slots=True)
class Named(Template):
    """`f as name`."""

    body: Any
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class FrozenTemplate(Template):
    """`freeze f`."""

    body: Any


@dataclass(frozen=True, slots=True)
class RecomputedTemplate(Template):
    """`recompute f`."""

    body: Any


@dataclass(slots=True, eq=False)
class SharedTemplate(Template):
    """`shared f = ...`: its weights live at `path` and are made at the first use."""

    body: Any
    path: str
    uses: int = 0


class Factory:
    """A name that gives a template when it is called, or stands for one with its defaults."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LayerFactory(Factory):
    """A layer's name."""

    layer: type[Layer]


@dataclass(frozen=True, slots=True, eq=False)
class BlockFactory(Factory):
    """A block's or cell's name, and the scope in which it was declared."""

    declaration: tree.Block | tree.Cell
    environment: Any

    @property
    def name(self) -> str:
        return self.declaration.name.name


@dataclass(frozen=True, slots=True)
class InitializerFactory(Factory):
    """The name of an initialiser that takes arguments."""

    initializer: type[Initializer]


@dataclass(frozen=True, slots=True)
class Builtin(Factory):
    """A function of compile-time values."""

    name: str


@dataclass(frozen=True, slots=True)
class RecipeFactory(Factory):
    """An optimizer, schedule or the like of a train block."""

    kind: Any


NUMBERS = (int, float, Symbolic)


def is_number(value: Any) -> bool:
    """Return whether a value is a compile-time number (a bool is not)."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def is_template(value: Any) -> bool:
    """Return whether a value can be applied to tensors."""
    return isinstance(value, Template | LayerFactory | BlockFactory)


def layers_in(template: Any) -> int:
    """Return how many layers a template makes at least, blocks counted as one."""
    match template:
        case Repeat():
            return template.count * layers_in(template.body)
        case Compose():
            return sum(layers_in(stage) for stage in template.stages)
        case Named() | FrozenTemplate() | RecomputedTemplate() | SharedTemplate():
            return layers_in(template.body)
    return 1


def describe(value: Any) -> str:
    """Return what a value is, in the user's words."""
    match value:
        case bool():
            return f"`{str(value).lower()}`"
        case Symbolic():
            return f"the symbolic size {value}"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a text"
        case Sizes():
            return f"the size {'x'.join(map(str, value))}"
        case list():
            return "a list"
        case Word():
            return f"the word `{value.text}`"
        case Tensor():
            return f"a tensor {value.type}"
        case TupleValue():
            return f"a tuple of {len(value.items)}"
        case LayerFactory():
            return f"the layer `{value.layer.keyword}`"
        case LayerTemplate():
            return f"the layer `{value.layer.keyword}`"
        case BlockFactory():
            return f"the {'cell' if isinstance(value.declaration, tree.Cell) else 'block'} `{value.name}`"
        case BlockTemplate():
            return describe(value.factory)
        case Template():
            return "a template of layers"
        case Initializer() | InitializerFactory():
            return "an initialiser"
        case Builtin():
            return f"the function `{value.name}`"
        case RecipeFactory():
            return f"the setting `{value.kind.keyword}`"
        case None:
            return "nothing"
    return f"a {type(value).__name__.lower()}"
