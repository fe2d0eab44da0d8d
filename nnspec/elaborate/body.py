"""Statements of networks and blocks: what they bind, what they return, what goes unused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnspec.diagnostics import Code, Label
from nnspec.elaborate.apply import is_cell
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.declarations import Declarations
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.report import Poisoned, Report
from nnspec.elaborate.values import (
    POISON,
    Bidirectional,
    BlockTemplate,
    Poison,
    SharedTemplate,
    Sizes,
    Tensor,
    TupleValue,
    describe,
    is_template,
)
from nnspec.source import Span
from nnspec.syntax import tree

MAX_DEPTH = 64
"""How deep blocks may be nested in blocks."""


class Body(Declarations):
    """Runs the statements of one body, in a scope of names and with an environment of its own."""

    def __init__(self, report: Report, builder: Builder, environment: Environment, scope: Scope, library: Any) -> None:
        super().__init__(report, builder, environment, scope, library)
        self.returned: Any = None
        self.returned_spans: list[Span] = []
        self.loops = 0

    # --- statements -------------------------------------------------------------------------------------------------

    def run(self, statements: Sequence[tree.Statement]) -> None:
        """Run statements in order; report all their errors."""
        for statement in statements:
            if self.returned is not None and not isinstance(statement, tree.Return):
                self.report.warn(Code.UNUSED, "nothing after `return` is reached", statement.span)
                self.touch(*statements)
                break
            self.builder.tick(statement.span)
            self._statement(statement)

    def _statement(self, s: tree.Statement) -> None:
        match s:
            case tree.Assign():
                value = self.guard(self.evaluate, s.value)
                self._assign(s.targets, value, s.value.span)
            case tree.Shared():
                self._shared_statement(s)
            case tree.Input() | tree.Output() if self.kind != "network":
                what = "input" if isinstance(s, tree.Input) else "output"
                help = "data comes into it behind `on`" if what == "input" else "it gives its result with `return`"
                self._misplaced(s.span, f"`{what}` belongs into a network, and this is a {self.kind}", help)
            case tree.Input():
                self._input(s)
            case tree.Output():
                self._output(s)
            case tree.Return() if self.kind == "network":
                self._misplaced(s.span, "`return` belongs into a block", "a network gives its results with `output`")
            case tree.Param():
                self._param(s)
            case tree.Return():
                values = [self.guard(self.evaluate, e) for e in s.values]
                if any(isinstance(v, Poison) for v in values):
                    self.returned = POISON
                else:
                    self.returned = values[0] if len(values) == 1 else TupleValue(tuple(values))
                items = self.returned.items if isinstance(self.returned, TupleValue) else (self.returned,)
                spans = [e.span for e in s.values]
                self.returned_spans = spans if len(spans) == len(items) else spans[:1] * len(items)
            case tree.For():
                self._for(s)
            case tree.Const():
                self._assign((s.name,), self.guard(self.evaluate, s.value), s.value.span)
            case tree.State() | tree.Next():
                what = "state" if isinstance(s, tree.State) else "next"
                self._misplaced(s.span, f"`{what}` has a meaning inside a cell only")
            case tree.Target() | tree.Metric():
                what = "target" if isinstance(s, tree.Target) else "metric"
                self._misplaced(s.span, f"`{what}` belongs into a `train` block")

    def _misplaced(self, span: Span, message: str, help: str = "") -> None:
        self.report.add(self.report.fail(Code.MISPLACED, message, span, help=help).diagnostic)

    def bind(self, ident: tree.Ident, value: Any, what: str) -> None:
        """Bind a name; an error where it is bound already, but for loops."""
        name = ident.name
        known = self.environment.bindings.get(name)
        if known is not None and not self.loops and known.span is not None:
            self.report.add(
                self.report.fail(
                    Code.REBINDING,
                    f"`{name}` has a value already",
                    ident.span,
                    help="choose another name; only inside `for` a name may get a new value",
                    others=[Label(known.span, "bound here first")],
                ).diagnostic
            )
        if known is not None and self.loops:
            # What a loop rebinds was there to be read by the next round.
            self.environment.bind(name, value, ident.span, what)
            self.environment.bindings[name].used = known.used
            return
        self.environment.bind(name, value, ident.span, what)

    def _assign(self, targets: Sequence[tree.Ident], value: Any, span: Span) -> None:
        if len(targets) == 1:
            self.bind(targets[0], value, "value")
            return
        items: Sequence[Any] = [POISON] * len(targets)
        if isinstance(value, Poison):
            pass
        elif not isinstance(value, TupleValue | list):
            self.report.add(
                self.report.fail(
                    Code.WRONG_TYPE,
                    f"{len(targets)} names need {len(targets)} values, and this is {describe(value)}",
                    span,
                ).diagnostic
            )
        else:
            given = value.items if isinstance(value, TupleValue) else value
            results = isinstance(value, TupleValue) and value.results
            if len(given) < len(targets) or (len(given) > len(targets) and not results):
                self.report.add(
                    self.report.fail(
                        Code.WRONG_TYPE,
                        f"{len(targets)} names cannot take {len(given)} values",
                        targets[-1].span if len(given) < len(targets) else span,
                        f"there are {len(given)}",
                    ).diagnostic
                )
            else:
                items = given[: len(targets)]
        for i, (target, item) in enumerate(zip(targets, items, strict=True)):
            self.bind(target, item, "value" if i == 0 else "")

    def _shared_statement(self, s: tree.Shared) -> None:
        value = self.guard(self.evaluate, s.value)
        if not isinstance(value, Poison):
            if is_template(value):
                value = SharedTemplate(self._at(value, s.value.span), self.scope.path + s.name.name)
                self.scope.named[s.name.name] = s.name.span
            else:
                fail = self.report.fail(
                    Code.WRONG_TYPE,
                    f"`shared` needs a layer, and gets {describe(value)}",
                    s.value.span,
                    help="a tensor can be used any number of times as it is" if isinstance(value, Tensor) else "",
                )
                self.report.add(fail.diagnostic)
                value = POISON
        self.bind(s.name, value, "shared layer")

    def _for(self, s: tree.For) -> None:
        items = self.guard(self._iterable, s.iterable)
        if isinstance(items, Poison):
            # The body's own mistakes are found when the list is mended: what it binds is unknown until then.
            self.touch(*s.body)
            for inner in s.body:
                if isinstance(inner, tree.Assign):
                    for target in inner.targets:
                        self.environment.bind(target.name, POISON, target.span)
            return
        if not items:
            self.touch(*s.body)
        self.loops += 1
        before = len(self.report.diagnostics)
        for i, item in enumerate(items):
            if s.index is not None:
                self.environment.bind(s.index.name, i, s.index.span)
            self.environment.bind(s.name.name, item, s.name.span)
            self.run(s.body)
            if len(self.report.diagnostics) > before and self.report.failed:
                break
            if self.returned is not None:
                break
        self.loops -= 1

    def _iterable(self, e: tree.Expr) -> Sequence[Any]:
        value = self.evaluate(e)
        if isinstance(value, list | Sizes):
            return list(value)
        if isinstance(value, TupleValue):
            return value.items
        if isinstance(value, int) and not isinstance(value, bool):
            raise self.report.fail(
                Code.WRONG_TYPE, "`for` needs a list, and gets a number", e.span, help=f"write `range({e.span.text})`"
            )
        raise self.report.fail(Code.WRONG_TYPE, f"`for` needs a list, and gets {describe(value)}", e.span)

    # --- blocks -----------------------------------------------------------------------------------------------------

    def apply_block(self, template: BlockTemplate, inputs: Sequence[Tensor], span: Span, name: str | None) -> Any:
        if is_cell(template):
            from nnspec.elaborate.cells import apply_cell

            return apply_cell(self, template, inputs, span, name)
        self.data_of(template, inputs, template.factory.declaration.data, span)
        with self.entered(template, span):
            scope = self.scope.child(name or self.scope.fresh(template.factory.name))
            body = self.enter(template, inputs, span, self.builder, scope)
            body.run(template.factory.declaration.body)
            declaration = template.factory.declaration
            if body.returned is None:
                raise self.report.fail(
                    Code.NO_RETURN,
                    f"the block `{template.factory.name}` returns nothing",
                    declaration.name.span,
                    help="end it with `return ...`",
                )
            body.warn_unused()
            if isinstance(body.returned, Poison):
                raise Poisoned
            if isinstance(body.returned, TupleValue) and body.returned.results:
                # A cell's results with its final states are handed on as they are.
                return body.returned
            if isinstance(body.returned, TupleValue):
                items = zip(body.returned.items, body.returned_spans, strict=True)
                return TupleValue(tuple(body.tensor(v, at) for v, at in items))
            return body.tensor(body.returned, body.returned_spans[0])

    def apply_bidirectional(
        self, template: Bidirectional, inputs: Sequence[Tensor], span: Span, name: str | None
    ) -> Any:
        from nnspec.elaborate.cells import apply_bidirectional

        return apply_bidirectional(self, template, inputs, span, name)

    def entered(self, template: BlockTemplate, span: Span) -> _Entered:
        """Guard against blocks that use themselves, and keep the chain of calls for diagnostics."""
        return _Entered(self.report, template, span)

    def data_of(
        self, template: BlockTemplate, inputs: Sequence[Tensor], names: Sequence[tree.Ident], span: Span
    ) -> dict[str, Tensor]:
        """Match tensors with the names behind `on`; those given by name come on top."""
        data = dict(template.data)
        free = [n for n in names if n.name not in data]
        kind = "cell" if is_cell(template) else "block"
        if len(inputs) != len(free):
            wanted = ", ".join(f"`{n.name}`" for n in free) or "no tensor"
            count = "one tensor" if len(inputs) == 1 else f"{len(inputs)} tensors"
            raise self.report.fail(
                Code.MISSING_ARGUMENT if len(inputs) < len(free) else Code.SURPLUS_ARGUMENT,
                f"the {kind} `{template.factory.name}` takes {wanted}, and gets {count}",
                span,
                help=f"feed them with `({', '.join(n.name for n in free)}) -> {template.factory.name}`"
                if len(free) > 1
                else "",
            )
        for n, tensor in zip(free, inputs, strict=True):
            data[n.name] = tensor
        return data

    def enter(
        self, template: BlockTemplate, inputs: Sequence[Tensor], span: Span, builder: Builder, scope: Scope
    ) -> Body:
        """Return a body with the block's hyperparameters and data bound."""
        declaration = template.factory.declaration
        data = self.data_of(template, inputs, declaration.data, span)
        environment = Environment(template.factory.environment)
        made = Body if self.kind == "cell" else type(self)
        body = made(self.report, builder, environment, scope, self.library)
        body.bind_parameters(declaration.parameters, template.parameters)
        for ident in declaration.data:
            environment.bind(ident.name, data[ident.name], ident.span, "data")
        return body

    def bind_parameters(self, parameters: Sequence[tree.Parameter], values: Any) -> None:
        """Bind hyperparameters to what the call gave, or to their defaults."""
        for parameter in parameters:
            name = parameter.name.name
            if name in self.environment.bindings:
                first = self.environment.bindings[name].span
                self.report.add(
                    self.report.fail(
                        Code.DUPLICATE_NAME,
                        f"two parameters are called `{name}`",
                        parameter.name.span,
                        others=[Label(first, "the first one")] if first else [],
                    ).diagnostic
                )
                continue
            if name in values:
                value = values[name]
            else:
                assert parameter.default is not None
                value = self.guard(self.evaluate, parameter.default)
            self.environment.bind(name, value, parameter.name.span, "parameter")

    def warn_unused(self) -> None:
        """Warn of names that were bound and never used; a leading underscore says that this is meant."""
        if self.report.failed:
            return
        for name, binding in self.environment.bindings.items():
            if binding.what and not binding.used and binding.span is not None and not name.startswith("_"):
                if isinstance(binding.value, Poison):
                    continue
                named = binding.what in ("input", "param")
                help = "use it, or remove it" if named else f"remove it, or call it `_{name}`"
                self.report.warn(Code.UNUSED, f"the {binding.what} `{name}` is never used", binding.span, help=help)


class _Entered:
    """One level of the chain of calls."""

    def __init__(self, report: Report, template: BlockTemplate, span: Span) -> None:
        self.report = report
        self.template = template
        self.span = span

    def __enter__(self) -> None:
        declaration = self.template.factory.declaration
        kind = "cell" if is_cell(self.template) else "block"
        text = f"{kind} `{declaration.name.name}`"
        chain = self.report.chain
        if text in self.report.broken:
            raise Poisoned
        turns = [i for i, label in enumerate(chain) if label.text == text]
        if len(turns) >= MAX_DEPTH:
            # One turn of the circle says it all. Its blocks are not entered again: that could be tried 2^64 times.
            self.report.broken.update(label.text for label in chain[turns[0] :])
            del chain[turns[1] :]
            raise self.report.fail(
                Code.CYCLE,
                f"the {text} uses itself without end",
                self.span,
                help="a block may use itself only if an `if` ends it",
            )
        if len(chain) >= 4 * MAX_DEPTH:
            raise self.report.abort(Code.CYCLE, f"blocks are nested more than {4 * MAX_DEPTH} deep", self.span)
        self.depth = len(chain)
        chain.append(Label(self.span, text))

    def __exit__(self, *_: object) -> None:
        del self.report.chain[self.depth :]
