"""Calls and pipes: arguments to templates, tensors through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnspec.diagnostics import Code
from nnspec.dims import Symbolic
from nnspec.elaborate.bind import Argument, construct, fields_of, match
from nnspec.elaborate.bind import Field as CallField
from nnspec.elaborate.core import Core
from nnspec.elaborate.numbers import FUNCTIONS, Impossible
from nnspec.elaborate.report import Poisoned
from nnspec.elaborate.values import (
    POISON,
    Bidirectional,
    BlockFactory,
    BlockTemplate,
    Builtin,
    Compose,
    InitializerFactory,
    LayerFactory,
    LayerTemplate,
    Named,
    Poison,
    RecipeFactory,
    Sizes,
    Tensor,
    TupleValue,
    describe,
    is_number,
    is_template,
)
from nnspec.initializers import Initializer
from nnspec.source import Span
from nnspec.syntax import tree

CELL_OPTIONS = (
    CallField("reverse", False, "false", by_name=True),
    CallField("initial", False, "zeros", by_name=True),
)
"""What a cell takes besides its own hyperparameters and data."""


class Caller(Core):
    """Evaluates calls, pipes and what stands in them."""

    def marked(self, e: tree.Expr, message: str, help: str) -> Any:
        """Return the layer that a mark such as `as` or `freeze` stands at."""
        value = self.evaluate(e)
        if not is_template(value):
            raise self.report.fail(Code.MISPLACED, f"{message} {describe(value)}", e.span, help=help)
        return value

    def _as(self, e: tree.As) -> Any:
        help = "put it behind the layer: `x -> conv(64, 3x3) as stem`"
        return Named(self.marked(e.value, "`as` names a layer, and this is", help), e.name.name, e.name.span)

    def _pipe(self, e: tree.Pipe) -> Any:
        stages: list[tree.Expr] = []
        start: tree.Expr = e
        while isinstance(start, tree.Pipe):
            stages.append(start.stage)
            start = start.value
        value = self.guard(self.evaluate, start)
        for stage in reversed(stages):
            template = self.guard(self._stage, stage)
            if isinstance(value, Poison) or isinstance(template, Poison):
                value = POISON
                continue
            value = self.guard(self._flow, value, template, stage, start)
        if isinstance(value, Poison):
            raise Poisoned
        return value

    def _stage(self, e: tree.Expr) -> Any:
        value = self._callee(e)
        if not is_template(value):
            help = ""
            if isinstance(self.main(value), Tensor):
                help = "a tensor stands at the start of a pipe; `(a, b) -> concat` feeds two"
            raise self.report.fail(Code.WRONG_TYPE, f"`->` needs a layer, and gets {describe(value)}", e.span, "", help)
        return value

    def _callee(self, e: tree.Expr) -> Any:
        """Evaluate what stands where a layer is wanted."""
        if not isinstance(e, tree.Name):
            return self.evaluate(e)
        value = self.lookup_layer(e)
        if isinstance(value, Poison):
            raise Poisoned
        return value

    def _flow(self, value: Any, template: Any, stage: tree.Expr, start: tree.Expr) -> Any:
        if is_template(value):
            first = value.stages if isinstance(value, Compose) else (value,)
            return Compose((*first, self._at(template, stage.span)))
        items = value.items if isinstance(value, TupleValue) and not value.results else (value,)
        tensors = [self.tensor(v, start.span) for v in items]
        return self.apply(self._at(template, stage.span), tensors, stage.span)

    def _at(self, template: Any, span: Span) -> Any:
        """Make a bare layer's name a template with its defaults, where it stands."""
        if isinstance(template, LayerFactory):
            layer, spans = construct(self.report, template.layer.keyword, template.layer, [], span)
            return LayerTemplate(layer, spans, span)
        if isinstance(template, BlockFactory):
            return self._block(template, [], span)
        return template

    def _arguments(self, e: tree.Call) -> list[Argument]:
        values = [self.guard(self.evaluate, a.value) for a in e.arguments]
        if any(isinstance(v, Poison) for v in values):
            raise Poisoned
        return [
            Argument(a.name.name if a.name else None, v, a.value.span, a.name.span if a.name else None)
            for a, v in zip(e.arguments, values, strict=True)
        ]

    def _call(self, e: tree.Call) -> Any:
        callee = self.guard(self._callee, e.callee)
        arguments = self.guard(self._arguments, e)
        if isinstance(callee, Poison) or isinstance(arguments, Poison):
            raise Poisoned
        if isinstance(callee, Builtin):
            return self._builtin_call(callee.name, arguments, e)
        if isinstance(callee, LayerFactory) and callee.layer.keyword in FUNCTIONS:
            plain = [a.value for a in arguments]
            if (
                plain
                and not any(a.name for a in arguments)
                and all(is_number(v) or isinstance(v, list | Sizes) for v in plain)
            ):
                return self._function(callee.layer.keyword, plain, e.span)
        if isinstance(callee, InitializerFactory):
            return construct(self.report, e.callee.span.text, callee.initializer, arguments, e.span)[0]
        if isinstance(callee, Initializer):
            return self._regain(callee, arguments, e)
        if isinstance(callee, RecipeFactory):
            return construct(self.report, callee.kind.keyword, callee.kind, arguments, e.span)[0]
        if not is_template(callee):
            raise self.report.fail(Code.WRONG_TYPE, f"{describe(callee)} cannot be called", e.callee.span)
        return self._template_call(callee, arguments, e)

    def _regain(self, callee: Initializer, arguments: list[Argument], e: tree.Call) -> Initializer:
        """`glorot_uniform(1.4)`: a named initialiser with a gain."""
        name = e.callee.span.text
        if not hasattr(callee, "gain"):
            raise self.report.fail(Code.SURPLUS_ARGUMENT, f"`{name}` takes no arguments", e.span, "", f"write `{name}`")
        fields = (CallField("gain", False, "1"),)
        values, spans = match(self.report, name, fields, arguments, e.span)
        gain = values.get("gain", 1.0)
        if not is_number(gain) or isinstance(gain, Symbolic) or gain <= 0:
            raise self.report.fail(Code.OUT_OF_RANGE, f"`gain` of `{name}` must be above 0", spans["gain"])
        return callee.model_copy(update={"gain": float(gain)})

    def _builtin_call(self, name: str, arguments: list[Argument], e: tree.Call) -> Any:
        if name == "bidirectional":
            fields = (CallField("cell", True), CallField("join", False, "concat"))
            values, spans = match(self.report, name, fields, arguments, e.span)
            cell, join = values["cell"], values.get("join")
            if not is_template(cell):
                raise self.report.fail(
                    Code.WRONG_TYPE, f"`bidirectional` needs a cell, and gets {describe(cell)}", spans["cell"]
                )
            if join is not None and not is_template(join):
                raise self.report.fail(
                    Code.WRONG_TYPE,
                    f"`join` is {describe(join)}",
                    spans["join"],
                    "expected `concat`, `add` or another layer",
                )
            return Bidirectional(self._at(cell, spans["cell"]), self._joining(join, spans), e.span)
        if any(a.name for a in arguments):
            raise self.report.fail(Code.UNKNOWN_ARGUMENT, f"`{name}` takes no named arguments", e.span)
        return self._function(name, [a.value for a in arguments], e.span)

    def _joining(self, join: Any, spans: Mapping[str, Span]) -> Any:
        """Return what joins two directions, None for the feature axis."""
        plain = isinstance(join, LayerFactory) and join.layer.keyword == "concat"
        return None if join is None or plain else self._at(join, spans["join"])

    def _function(self, name: str, values: list[Any], span: Span) -> Any:
        try:
            return FUNCTIONS[name](*values)
        except Impossible as error:
            raise self.report.fail(Code.ARITHMETIC, str(error), span) from None

    def _template_call(self, callee: Any, arguments: list[Argument], e: tree.Call) -> Any:
        """A call with tensors applies; without, it gives a template its arguments."""
        positional = [a for a in arguments if a.name is None and isinstance(self.main(a.value), Tensor)]
        tuples = [a for a in arguments if a.name is None and isinstance(a.value, TupleValue) and not a.value.results]
        rest = [a for a in arguments if a not in positional and a not in tuples]
        data = [self.main(a.value) for a in positional]
        for a in tuples:
            data += [self.tensor(v, a.span) for v in a.value.items]
        if isinstance(callee, LayerFactory):
            named = [a for a in rest if a.name is not None and isinstance(self.main(a.value), Tensor)]
            if named and not any(f.name == named[0].name for f in fields_of(callee.layer)):
                data += [self.main(a.value) for a in named]
                rest = [a for a in rest if a not in named]
            layer, spans = construct(self.report, callee.layer.keyword, callee.layer, rest, e.span)
            template: Any = LayerTemplate(layer, spans, e.span)
        elif isinstance(callee, BlockFactory):
            template = self._block(callee, rest, e.span)
        else:
            template = callee
            if rest:
                raise self.report.fail(
                    Code.SURPLUS_ARGUMENT,
                    f"{describe(callee)} has its arguments already",
                    rest[0].span,
                    help="only tensors can be given to it now",
                )
        return self.apply(template, data, e.span) if data else template

    def _block(self, factory: BlockFactory, arguments: list[Argument], span: Span) -> BlockTemplate:
        declaration = factory.declaration
        is_cell = isinstance(declaration, tree.Cell)
        given = declaration.given if is_cell else ()  # type: ignore[union-attr]
        names = [*declaration.data, *given]
        fields = [
            CallField(p.name.name, p.default is None, p.default.span.text if p.default else "")
            for p in declaration.parameters
        ]
        extra = [CallField(d.name, False, by_name=True) for d in names]
        if is_cell:
            extra += CELL_OPTIONS
        values, spans = match(self.report, factory.name, [*fields, *extra], arguments, span)
        known = {f.name for f in fields}
        data = {d.name for d in names}
        return BlockTemplate(
            factory,
            {k: v for k, v in values.items() if k in known},
            {k: self.tensor(v, spans[k]) for k, v in values.items() if k in data and k not in known},
            {k: v for k, v in values.items() if k not in known and k not in data},
            spans,
            span,
        )
