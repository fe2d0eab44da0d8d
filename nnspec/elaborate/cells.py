"""Cells: a body elaborated as the network of one step, applied along a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnspec.diagnostics import Code, Label
from nnspec.elaborate.apply import is_cell
from nnspec.elaborate.body import Body
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.report import Poisoned
from nnspec.elaborate.values import (
    POISON,
    Bidirectional,
    BlockTemplate,
    LayerTemplate,
    Poison,
    Tensor,
    TupleValue,
    describe,
    is_number,
)
from nnspec.initializers import ZEROS, AnyInitializer, Constant, Values
from nnspec.ir import Input, Network, Output, TensorType
from nnspec.layers.recurrent import Recurrence, State
from nnspec.layers.shape import Concat
from nnspec.source import Span
from nnspec.syntax import tree


@dataclass(frozen=True)
class _State:
    """A state as declared: how it starts, or the value that it starts from."""

    type: TensorType
    init: AnyInitializer | None
    start: str | None
    span: Span


class CellBody(Body):
    """Runs the statements of a cell: states and their `next`, besides what a block has."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kind = "cell"
        self.next_states: dict[str, Any] = {}
        self.next_spans: dict[str, Span] = {}
        self.states: dict[str, _State] = {}
        self.later: dict[str, Span] = {}
        """The states that the cell declares anywhere."""
        self.stuck = False
        """Whether a `next` is wrong."""

    def _statement(self, s: tree.Statement) -> None:
        match s:
            case tree.State():
                self._state(s)
            case tree.Next():
                self._next_statement(s)
            case _:
                super()._statement(s)

    def lookup(self, e: tree.Name) -> Any:
        name, span = e.name, e.span
        if name in self.later and self.environment.find(name) is None:
            raise self.report.fail(
                Code.STATE,
                f"the state `{name}` is used before it is declared",
                span,
                help="declare the states at the top of the cell",
                others=[Label(self.later[name], "declared here")],
            )
        return super().lookup(e)

    def _state(self, s: tree.State) -> None:
        def work() -> Tensor:
            name = s.name.name
            declared = self.type_of(s.shape, what=f"the state `{name}`", symbols=False)
            init, start = (ZEROS, None) if s.init is None else self._start(name, declared, s.init)
            self.states[name] = _State(declared, init, start, s.name.span)
            self.builder.inputs[name] = Input(name=name, type=declared)
            return Tensor(name, declared, s.name.span)

        self.bind(s.name, self.guard(work), "state")

    def _start(self, name: str, declared: TensorType, e: tree.Expr) -> tuple[AnyInitializer | None, str | None]:
        """Return what a state starts from: an initialiser, or a value that depends on weights alone."""
        value = self.main(self.evaluate(e))
        if isinstance(value, Tensor):
            if value.type.shape != declared.shape:
                message = f"the state `{name}` is {declared}, its start {value.type}"
                raise self.report.fail(Code.SHAPE_MISMATCH, message, e.span)
            if value.type.batch:
                raise self.report.fail(
                    Code.STATE,
                    f"the state `{name}` starts before there is data",
                    e.span,
                    help="start it from a `param` or an initialiser; `initial = ...` gives data where the cell is used",
                )
            return None, value.ref
        init = self.initializer(e)
        if not isinstance(init, Constant | Values):
            raise self.report.fail(
                Code.WRONG_TYPE,
                "a state starts the same for every sample",
                e.span,
                "expected `zeros`, `ones`, `constant(...)`, numbers, or a `param` that is learned",
            )
        if isinstance(init, Values) and init.shape != declared.shape:
            message = f"the state `{name}` is {declared}, its start has the shape {list(init.shape)}"
            raise self.report.fail(Code.SHAPE_MISMATCH, message, e.span)
        return init, None

    def _next_statement(self, s: tree.Next) -> None:
        name = s.name.name
        value = self.guard(lambda: self.tensor(self.evaluate(s.value), s.value.span))
        if name in self.next_states:
            self.report.add(
                self.report.fail(
                    Code.STATE,
                    f"`next {name}` is defined twice",
                    s.name.span,
                    others=[Label(self.next_spans[name], "defined here first")],
                ).diagnostic
            )
            return
        binding = self.environment.bindings.get(name)
        if binding is None or binding.what != "state":
            self.report.add(
                self.report.fail(
                    Code.STATE,
                    f"the cell has no state `{name}`",
                    s.name.span,
                    help=f"declare it with `state {name}: [...]`" + (", above" if name in self.later else ""),
                ).diagnostic
            )
            self.next_states[name] = POISON
            return
        self.next_states[name] = value
        self.next_spans[name] = s.name.span
        if isinstance(value, Poison) or name not in self.states:
            self.stuck = True
            return
        declared, span = self.states[name].type, self.states[name].span
        if value.type.shape != declared.shape or value.type.dtype != declared.dtype:
            self.stuck = True
            self.report.add(
                self.report.fail(
                    Code.SHAPE_MISMATCH,
                    f"`next {name}` is {value.type}, and the state is {declared}",
                    s.value.span,
                    "must have the state's shape",
                    others=[Label(span, f"declared as {declared}")],
                ).diagnostic
            )

    def check_states(self, cell: tree.Cell) -> None:
        """Report the states that no `next` moves; raise Poisoned where the states do not all move as they should."""
        if not self.later:
            fail = self.report.fail(
                Code.STATE, f"the cell `{cell.name.name}` has no state", cell.name.span, help="a `block` has none"
            )
            self.report.add(fail.diagnostic)
        for name, state in self.states.items():
            if name not in self.next_states:
                fail = self.report.fail(
                    Code.MISSING_NEXT,
                    f"the state `{name}` has no `next`",
                    state.span,
                    help=f"say how it moves: `next {name} = ...`",
                )
                self.report.add(fail.diagnostic)
        if not self.later or self.stuck or not self.states.keys() == self.later.keys() == self.next_states.keys():
            raise Poisoned


def apply_cell(outer: Body, template: BlockTemplate, inputs: Sequence[Tensor], span: Span, name: str | None) -> Any:
    """Add a cell's run along a sequence; return its results and final states."""
    cell = template.factory.declaration
    assert isinstance(cell, tree.Cell)
    report = outer.report
    reverse = template.options.get("reverse", False)
    if not isinstance(reverse, bool):
        where = template.arguments["reverse"]
        raise report.fail(Code.WRONG_TYPE, f"`reverse` is {describe(reverse)}", where, "expected `true` or `false`")
    with outer.entered(template, span):
        _check_given(outer, template, cell, inputs, span)
        data = outer.data_of(template, inputs, [*cell.data, *cell.given], span)
        sequences = [data[i.name] for i in cell.data]
        given = [data[i.name] for i in cell.given]
        _check_sequences(outer, cell, sequences, span)
        body = _body(outer, template, cell, sequences, given)
        body.run(cell.body)
        sound = body.guard(body.check_states, cell)
        results = body.guard(_results, body, cell)
        if isinstance(sound, Poison) or isinstance(results, Poison):
            raise Poisoned
        body.warn_unused()
        step = body.environment.bindings["step"]
        uses_step = step.used and step.value.ref == "step"
        if not uses_step:
            del body.builder.inputs["step"]
        network = _network(cell, body, results)
    initial, starts = _initial(outer, template, body)
    layer = Recurrence(
        cell=cell.name.name,
        body=network,
        data=tuple(i.name for i in cell.data),
        given=tuple(i.name for i in cell.given),
        states=tuple(
            State(name=n, type=s.type, init=s.init, start=s.start, next=body.next_states[n].ref)
            for n, s in body.states.items()
        ),
        initial=tuple(initial),
        step="step" if uses_step else None,
        reverse=reverse,
    )
    local = name or outer.scope.fresh(cell.name.name)
    made = outer.builder.node(
        layer, [*sequences, *given, *starts], outer.scope, span, name=local, arguments=template.arguments
    )
    assert isinstance(made, TupleValue)
    return TupleValue(made.items, results=True)


def _body(
    outer: Body, template: BlockTemplate, cell: tree.Cell, sequences: Sequence[Tensor], given: Sequence[Tensor]
) -> CellBody:
    """Return a cell's body with its hyperparameters, the data of one step and the time index bound."""
    builder = Builder(outer.report, outer.builder.limit)
    builder.symbols, builder.masks, builder.frozen = outer.builder.symbols, outer.builder.masks, outer.builder.frozen
    environment = Environment(template.factory.environment)
    body = CellBody(outer.report, builder, environment, Scope(), outer.library)
    body.bind_parameters(cell.parameters, template.parameters)
    for ident, tensor in zip((*cell.data, *cell.given), (*sequences, *given), strict=True):
        runs = ident in cell.data
        t = tensor.type.with_shape(tensor.type.shape[1:]) if runs else tensor.type
        builder.inputs[ident.name] = Input(name=ident.name, type=t)
        environment.bind(ident.name, Tensor(ident.name, t, ident.span), ident.span, "data" if runs else "given data")
    step = TensorType(shape=(), dtype="int64", batch=False)
    if "step" not in environment.bindings:
        environment.bind("step", Tensor("step", step, cell.name.span))
    builder.inputs["step"] = Input(name="step", type=step)
    body.later = {s.name.name: s.name.span for s in cell.body if isinstance(s, tree.State)}
    return body


def _results(body: CellBody, cell: tree.Cell) -> list[Tensor]:
    """Return what a cell returns at each step; raise Fail where that is nothing."""
    if body.returned is None:
        message = f"the cell `{cell.name.name}` returns nothing"
        raise body.report.fail(Code.NO_RETURN, message, cell.name.span, help="end it with `return next h`")
    if isinstance(body.returned, Poison):
        raise Poisoned
    several = isinstance(body.returned, TupleValue) and not body.returned.results
    returned = body.returned.items if several else (body.returned,)
    return [body.tensor(v, cell.name.span) for v in returned]


def _check_given(outer: Body, template: BlockTemplate, cell: tree.Cell, inputs: Sequence[Tensor], span: Span) -> None:
    """Raise Fail where the sequences are there, and what is given beside them is not."""
    free = [i.name for i in cell.given if i.name not in template.data]
    if free and len(inputs) == sum(i.name not in template.data for i in cell.data):
        arguments = ", ".join(f"{n} = ..." for n in free)
        raise outer.report.fail(
            Code.MISSING_ARGUMENT,
            f"the cell `{cell.name.name}` is given {' and '.join(f'`{n}`' for n in free)} beside its sequence",
            span,
            help=f"name {'them' if len(free) > 1 else 'it'}: `{cell.name.name}(..., {arguments})`",
        )


def _check_sequences(outer: Body, cell: tree.Cell, sequences: Sequence[Tensor], span: Span) -> None:
    report = outer.report
    for tensor in sequences:
        t = tensor.type
        image = t.rank >= 3 and all(isinstance(d, int) for d in t.shape)
        if t.rank < 1 or (t.rank < 2 and t.dtype == "float32") or image or not t.batch:
            what = f"an image {t}" if image else f"{t}"
            raise report.fail(
                Code.SHAPE_MISMATCH,
                f"the cell `{cell.name.name}` runs along a sequence [T, features], and gets {what}",
                span,
                "",
                "flatten each step, or `transpose` and `reshape` it into a sequence"
                if image
                else "a sequence's first axis is time",
                [Label(tensor.span, f"gives {t}")] if tensor.span is not span else [],
            )
        if t.shape[0] != sequences[0].type.shape[0]:
            raise report.fail(
                Code.SHAPE_MISMATCH,
                f"the sequences have different lengths: {sequences[0].type} and {t}",
                span,
                others=[Label(tensor.span, f"gives {t}")],
            )


def _network(cell: tree.Cell, body: CellBody, results: Sequence[Tensor]) -> Network:
    from nnspec.elaborate import reachable

    builder = body.builder
    starts = [s.start for s in body.states.values() if s.start is not None]
    nodes = reachable(builder.nodes, [*(r.ref for r in results), *(v.ref for v in body.next_states.values()), *starts])
    used = {w for node in nodes for w in node.weights.values()}
    return Network.model_construct(
        name=cell.name.name,
        inputs=tuple(builder.inputs.values()),
        weights=tuple(w for w in builder.weights.values() if w.name in used),
        nodes=tuple(nodes),
        outputs=tuple(Output(name=f"result{i}", value=r.ref) for i, r in enumerate(results)),
        masks=dict(builder.masks),
        version=1,
    )


def _initial(outer: Body, template: BlockTemplate, body: CellBody) -> tuple[list[str], list[Tensor]]:
    """Return the states that start from outside, and what they start from."""
    if "initial" not in template.options:
        return [], []
    value, where = template.options["initial"], template.arguments["initial"]
    items = value.items if isinstance(value, TupleValue) and not value.results else (value,)
    names = list(body.states)
    if len(items) > len(names):
        raise outer.report.fail(
            Code.SURPLUS_ARGUMENT,
            f"the cell has {len(names)} state{'s' * (len(names) > 1)}, and gets {len(items)} starts",
            where,
        )
    tensors = []
    for name, item in zip(names, items, strict=False):
        if is_number(item):
            raise outer.report.fail(
                Code.WRONG_TYPE, f"the start of `{name}` is {describe(item)}", where, "expected a tensor"
            )
        tensor = outer.tensor(item, where)
        declared = body.states[name].type
        if tensor.type.shape != declared.shape:
            raise outer.report.fail(
                Code.SHAPE_MISMATCH,
                f"the state `{name}` is {declared}, its start {tensor.type}",
                where,
                others=[Label(tensor.span, f"gives {tensor.type}")] if tensor.span is not where else [],
            )
        tensors.append(tensor)
    return names[: len(items)], tensors


def apply_bidirectional(
    outer: Body, template: Bidirectional, inputs: Sequence[Tensor], span: Span, name: str | None
) -> Any:
    """Run a cell both ways; join each result and final state."""
    cell = template.cell
    if not isinstance(cell, BlockTemplate) or not is_cell(cell):
        where = getattr(cell, "span", template.span)
        raise outer.report.fail(Code.WRONG_TYPE, f"`bidirectional` needs a cell, and gets {describe(cell)}", where)
    if "reverse" in cell.options:
        raise outer.report.fail(
            Code.SURPLUS_ARGUMENT,
            "`bidirectional` runs the cell both ways: `reverse` has no meaning here",
            cell.arguments["reverse"],
        )
    local = name or outer.scope.fresh("bidirectional")
    with outer.inside(outer.scope.child(local)):
        forward = apply_cell(outer, cell, inputs, span, "forward")
        turned = BlockTemplate(
            cell.factory, cell.parameters, cell.data, {**cell.options, "reverse": True}, cell.arguments, cell.span
        )
        backward = apply_cell(outer, turned, inputs, span, "backward")
        join = template.join or LayerTemplate(Concat(axis=-1), {}, span)
        states = sum(isinstance(s, tree.State) for s in cell.factory.declaration.body)
        joined = [outer.apply(join, [a, b], span) for a, b in zip(forward.items, backward.items, strict=True)]
        outer.builder.quiet.update(t.ref for t in joined[len(joined) - states :] if isinstance(t, Tensor))
    return TupleValue(tuple(joined), results=True)
