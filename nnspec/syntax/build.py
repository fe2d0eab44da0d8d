"""Make the syntax tree: one action for each rule of nn.lark."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from nnspec.diagnostics import Code, Diagnostic, Label
from nnspec.source import Source, Span
from nnspec.syntax import tree
from nnspec.syntax.lalr import Action
from nnspec.syntax.tokens import RESERVED, Token

MAX_DEPTH = 100
"""How deep expressions and bodies may nest: every later stage may walk them recursively.

A chain of `->` counts once, however long it is: walk `Pipe.value` in a loop.
"""
MAX_INTEGER = 2**63 - 1

_Nested = TypeVar("_Nested", bound=tree.Tree)
_ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}


class TooDeep(Exception):
    """An expression nests deeper than MAX_DEPTH; holds the diagnostic."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def too_deep(span: Span) -> Diagnostic:
    """Return the diagnostic for nesting beyond MAX_DEPTH."""
    help_ = "name the inner parts in statements of their own"
    return Diagnostic(Code.TOO_LARGE, f"this nests more than {MAX_DEPTH} levels deep", (Label(span),), help_)


class Builder:
    """Builds the tree of one source; what the grammar cannot say is checked here and kept in `diagnostics`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self._depths: dict[int, int] = {}
        self.actions: dict[str, Action] = {
            name[len("on_") :]: getattr(self, name) for name in dir(type(self)) if name.startswith("on_")
        }

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _wrong(self, code: Code, message: str, span: Span, help_: str) -> None:
        self.diagnostics.append(Diagnostic(code, message, (Label(span),), help_))

    def _deepen(self, node: _Nested, *parts: tree.Tree | None) -> _Nested:
        """Note how deep an expression or loop is, beside the tree: the nodes say only what the text says."""
        depth = 1 + max((self._depths.get(id(part), 1) for part in parts), default=0)
        if depth > MAX_DEPTH:
            raise TooDeep(too_deep(node.span))
        self._depths[id(node)] = depth
        return node

    # --- items ---

    def on_file(self, c: list[Any], start: int, end: int) -> tree.File:
        return tree.File(span=self._span(0, len(self.source.text)), items=tuple(c))

    def on_import(self, c: list[Any], start: int, end: int) -> tree.Import:
        return tree.Import(span=self._span(start, end), path=c[0])

    def on_const(self, c: list[Any], start: int, end: int) -> tree.Const:
        return tree.Const(span=self._span(start, end), name=c[0], value=c[1])

    def on_network(self, c: list[Any], start: int, end: int) -> tree.Network:
        return tree.Network(span=self._span(start, end), name=c[0], parameters=c[1], body=c[2])

    def on_block(self, c: list[Any], start: int, end: int) -> tree.Block:
        return tree.Block(span=self._span(start, end), name=c[0], parameters=c[1], data=c[2], body=c[3])

    def on_cell(self, c: list[Any], start: int, end: int) -> tree.Cell:
        span = self._span(start, end)
        return tree.Cell(span=span, name=c[0], parameters=c[1], data=c[2], given=c[3], body=c[4])

    def on_train(self, c: list[Any], start: int, end: int) -> tree.Train:
        return tree.Train(span=self._span(start, end), network=c[0], name=c[1], body=c[2])

    def on_parameters(self, c: list[Any], start: int, end: int) -> tuple[tree.Parameter, ...]:
        return tuple(c)

    def on_parameter(self, c: list[Any], start: int, end: int) -> tree.Parameter:
        return tree.Parameter(span=self._span(start, end), name=c[0], default=c[1])

    def on_data(self, c: list[Any], start: int, end: int) -> tuple[tree.Ident, ...]:
        return tuple(c)

    def on_given(self, c: list[Any], start: int, end: int) -> tuple[tree.Ident, ...]:
        names: tuple[tree.Ident, ...] = c[0] or ()
        return names

    def on_body(self, c: list[Any], start: int, end: int) -> tuple[tree.Statement, ...]:
        return tuple(c)

    # --- statements ---

    def on_assign(self, c: list[Any], start: int, end: int) -> tree.Assign:
        return tree.Assign(span=self._span(start, end), targets=c[0], value=c[1])

    def on_targets(self, c: list[Any], start: int, end: int) -> tuple[tree.Ident, ...]:
        return tuple(c)

    def on_shared(self, c: list[Any], start: int, end: int) -> tree.Shared:
        return tree.Shared(span=self._span(start, end), name=c[0], value=c[1])

    def on_input(self, c: list[Any], start: int, end: int) -> tree.Input:
        return tree.Input(span=self._span(start, end), name=c[0], type=c[1], masked=c[2] is not None)

    def on_output(self, c: list[Any], start: int, end: int) -> tree.Output:
        return tree.Output(span=self._span(start, end), name=c[0], value=c[1])

    def on_param(self, c: list[Any], start: int, end: int) -> tree.Param:
        return tree.Param(span=self._span(start, end), name=c[0], shape=c[1], init=c[2])

    def on_state(self, c: list[Any], start: int, end: int) -> tree.State:
        return tree.State(span=self._span(start, end), name=c[0], shape=c[1], init=c[2])

    def on_next(self, c: list[Any], start: int, end: int) -> tree.Next:
        return tree.Next(span=self._span(start, end), name=c[0], value=c[1])

    def on_return(self, c: list[Any], start: int, end: int) -> tree.Return:
        return tree.Return(span=self._span(start, end), values=tuple(c))

    def on_for(self, c: list[Any], start: int, end: int) -> tree.For:
        first, second = c[0], c[1]
        index, name = (first, second) if second is not None else (None, first)
        node = tree.For(span=self._span(start, end), index=index, name=name, iterable=c[2], body=c[3])
        return self._deepen(node, *(statement for statement in node.body if isinstance(statement, tree.For)))

    def on_target(self, c: list[Any], start: int, end: int) -> tree.Target:
        return tree.Target(span=self._span(start, end), name=c[0], type=c[1], masked=c[2] is not None)

    def on_metric(self, c: list[Any], start: int, end: int) -> tree.Metric:
        return tree.Metric(span=self._span(start, end), name=c[0], value=c[1])

    # --- expressions ---

    def on_pipe(self, c: list[Any], start: int, end: int) -> tree.Expr:
        value, stage = c
        node = tree.Pipe(span=self._span(start, end), value=value, stage=stage)
        if not isinstance(value, tree.Pipe):
            return self._deepen(node, value, stage)
        depth = max(self._depths.get(id(value), 1), 1 + self._depths.get(id(stage), 1))
        if depth > MAX_DEPTH:
            raise TooDeep(too_deep(stage.span))
        self._depths[id(node)] = depth
        return node

    def on_named(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.As(span=self._span(start, end), value=c[0], name=c[1]), c[0])

    def on_freeze(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.Freeze(span=self._span(start, end), value=c[0]), c[0])

    def on_recompute(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.Recompute(span=self._span(start, end), value=c[0]), c[0])

    def on_binary(self, c: list[Any], start: int, end: int) -> tree.Expr:
        left, op, right = c
        return self._deepen(tree.Binary(span=self._span(start, end), op=op.text, left=left, right=right), left, right)

    def on_unary(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.Unary(span=self._span(start, end), op=c[0].text, operand=c[1]), c[1])

    def on_call(self, c: list[Any], start: int, end: int) -> tree.Expr:
        node = tree.Call(span=self._span(start, end), callee=c[0], arguments=tuple(c[1:]))
        return self._deepen(node, c[0], *(argument.value for argument in node.arguments))

    def on_positional(self, c: list[Any], start: int, end: int) -> tree.Argument:
        return tree.Argument(span=self._span(start, end), name=None, value=c[0])

    def on_keyword(self, c: list[Any], start: int, end: int) -> tree.Argument:
        return tree.Argument(span=self._span(start, end), name=c[0], value=c[1])

    def on_attribute(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.Attribute(span=self._span(start, end), value=c[0], name=c[1]), c[0])

    def on_index(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.Index(span=self._span(start, end), value=c[0], indices=tuple(c[1:])), *c)

    def on_number(self, c: list[Any], start: int, end: int) -> tree.Number:
        text: str = c[0].text
        span = self._span(start, end)
        if not text.isdigit():
            value = float(text)
            if value == float("inf"):
                self._wrong(Code.OUT_OF_RANGE, "this number is too large", span, "the largest is about 1.8e308")
            return tree.Number(span=span, value=value)
        return tree.Number(span=span, value=self._integer(text, span))

    def _integer(self, digits: str, span: Span) -> int:
        significant = digits.lstrip("0") or "0"
        if len(significant) <= 19 and int(significant) <= MAX_INTEGER:  # int() itself refuses very long texts
            return int(significant)
        self._wrong(Code.OUT_OF_RANGE, "this number is too large", span, f"the largest is {MAX_INTEGER}")
        return 1

    def on_size(self, c: list[Any], start: int, end: int) -> tree.Size:
        span = self._span(start, end)
        return tree.Size(span=span, dims=tuple(self._integer(part, span) for part in c[0].text.split("x")))

    def on_string(self, c: list[Any], start: int, end: int) -> tree.Text:
        def unescape(found: re.Match[str]) -> str:
            if found[1] in _ESCAPES:
                return _ESCAPES[found[1]]
            at = start + 1 + found.start()
            help_ = 'a string knows \\", \\\\, \\n and \\t'
            self._wrong(Code.SYNTAX, f"`\\{found[1]}` is not an escape", self._span(at, at + 2), help_)
            return found[0]

        value = re.sub(r"\\(.)", unescape, c[0].text[1:-1])
        return tree.Text(span=self._span(start, end), value=value)

    def on_true(self, c: list[Any], start: int, end: int) -> tree.Bool:
        return tree.Bool(span=self._span(start, end), value=True)

    def on_false(self, c: list[Any], start: int, end: int) -> tree.Bool:
        return tree.Bool(span=self._span(start, end), value=False)

    def on_name(self, c: list[Any], start: int, end: int) -> tree.Name:
        return tree.Name(span=self._span(start, end), name=self._unreserved(c[0], start, end))

    def on_next_state(self, c: list[Any], start: int, end: int) -> tree.NextState:
        return tree.NextState(span=self._span(start, end), name=c[0].name)

    def on_group(self, c: list[Any], start: int, end: int) -> tree.Expr:
        value: tree.Expr = c[0]
        return self._deepen(value, value)

    def on_tuple(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.TupleExpr(span=self._span(start, end), items=tuple(c)), *c)

    def on_list(self, c: list[Any], start: int, end: int) -> tree.Expr:
        return self._deepen(tree.ListExpr(span=self._span(start, end), items=tuple(c)), *c)

    def on_if(self, c: list[Any], start: int, end: int) -> tree.Expr:
        node = tree.If(span=self._span(start, end), condition=c[0], then=c[1], otherwise=c[2])
        return self._deepen(node, *c)

    def on_ident(self, c: list[Any], start: int, end: int) -> tree.Ident:
        return tree.Ident(span=self._span(start, end), name=self._unreserved(c[0], start, end))

    def on_word(self, c: list[Any], start: int, end: int) -> tree.Ident:
        return tree.Ident(span=self._span(start, end), name=c[0].text)

    def _unreserved(self, token: Token, start: int, end: int) -> str:
        if token.text in RESERVED:
            message = f"`{token.text}` is a word of the language and no name"
            self._wrong(Code.SYNTAX, message, self._span(start, end), "choose another name")
        return token.text
