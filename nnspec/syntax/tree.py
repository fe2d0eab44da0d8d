"""The syntax tree: what the text says, before it means anything. Every node carries its span.

Spans take no part in equality, so two trees are equal when they say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nnspec.source import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A node of the syntax tree."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ident(Tree):
    """A name where it is declared, assigned or named (not an expression)."""

    name: str


# --- expressions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expr(Tree):
    """Anything with a value."""


@dataclass(frozen=True, slots=True)
class Number(Expr):
    """`3`, `0.5`, `1e-3`."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Size(Expr):
    """`3x3`, `7x7x7`."""

    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Text(Expr):
    """`"a string"`."""

    value: str


@dataclass(frozen=True, slots=True)
class Bool(Expr):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Name(Expr):
    """A name used as a value."""

    name: str


@dataclass(frozen=True, slots=True)
class NextState(Expr):
    """`next h`: the state after this step."""

    name: str


@dataclass(frozen=True, slots=True)
class ListExpr(Expr):
    """`[a, b, c]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class TupleExpr(Expr):
    """`(a, b)`: two or more values side by side."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    """`-a`, `+a`, `not a`."""

    op: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """`a + b`: op is one of `+ - * / // % ** @ == != < <= > >= and or`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Attribute(Expr):
    """`x.channels`."""

    value: Expr
    name: Ident


@dataclass(frozen=True, slots=True)
class Index(Expr):
    """`x.shape[0]`, and `int[T]` where a type stands."""

    value: Expr
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Argument(Tree):
    """One argument of a call; `name` is None where it is positional."""

    name: Ident | None
    value: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """`conv(64, 3x3, stride = 2)`."""

    callee: Expr
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Pipe(Expr):
    """`x -> f`; binds loosest of all and associates to the left."""

    value: Expr
    stage: Expr


@dataclass(frozen=True, slots=True)
class As(Expr):
    """`f as name`: a stage of a pipe with a name given by hand."""

    value: Expr
    name: Ident


@dataclass(frozen=True, slots=True)
class Freeze(Expr):
    """`freeze f`: a stage whose weights do not train."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Recompute(Expr):
    """`recompute f`: a stage whose results are computed again on the way back instead of kept."""

    value: Expr


@dataclass(frozen=True, slots=True)
class If(Expr):
    """`if c { a } else { b }`, evaluated while compiling."""

    condition: Expr
    then: Expr
    otherwise: Expr


# --- statements -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Statement(Tree):
    """A line of a body."""


@dataclass(frozen=True, slots=True)
class Assign(Statement):
    """`a = v`, `a, b = v`; in a train block, a setting."""

    targets: tuple[Ident, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Shared(Statement):
    """`shared f = template`: one set of weights for every use."""

    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class Input(Statement):
    """`input image: [1, 28, 28]`, `input words: int[T] masked`."""

    name: Ident
    type: Expr
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Output(Statement):
    """`output probs = softmax(logits)`; `value` is None in `output logits`."""

    name: Ident
    value: Expr | None


@dataclass(frozen=True, slots=True)
class Param(Statement):
    """`param b: [units] = zeros`; `init` is None where none is given."""

    name: Ident
    shape: Expr
    init: Expr | None


@dataclass(frozen=True, slots=True)
class State(Statement):
    """`state h: [units] = ones` of a cell."""

    name: Ident
    shape: Expr
    init: Expr | None


@dataclass(frozen=True, slots=True)
class Next(Statement):
    """`next h = ...` of a cell."""

    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Statement):
    """`return a` or `return a, b`."""

    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class For(Statement):
    """`for i, depth in depths { ... }`; `index` is None where only one name is given."""

    index: Ident | None
    name: Ident
    iterable: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Target(Statement):
    """`target label: int` of a train block."""

    name: Ident
    type: Expr
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Metric(Statement):
    """`metric accuracy = accuracy(logits, label)` of a train block."""

    name: Ident
    value: Expr


# --- items of a file --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item(Tree):
    """What stands at the top level of a file."""


@dataclass(frozen=True, slots=True)
class Parameter(Tree):
    """A hyperparameter of a network, block or cell; `default` is None where it must be given."""

    name: Ident
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Import(Item):
    """`import "blocks.nn"`."""

    path: Text


@dataclass(frozen=True, slots=True)
class Const(Item, Statement):
    """`const depth = 12`."""

    name: Ident
    value: Expr


@dataclass(frozen=True, slots=True)
class Network(Item):
    """`network Name(parameters) { body }`."""

    name: Ident
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Block(Item):
    """`block name(parameters) on (a, b) { body }`."""

    name: Ident
    parameters: tuple[Parameter, ...]
    data: tuple[Ident, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Cell(Item):
    """`cell name(parameters) on x given memory { body }`."""

    name: Ident
    parameters: tuple[Parameter, ...]
    data: tuple[Ident, ...]
    given: tuple[Ident, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Train(Item):
    """`train LeNet { ... }`, `train LeNet as finetune { ... }`."""

    network: Ident
    name: Ident | None
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class File(Tree):
    """A whole .nn file."""

    items: tuple[Item, ...]
