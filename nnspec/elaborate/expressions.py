"""Expressions to values: names, arithmetic, calls and pipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as parts_of
from functools import lru_cache
from typing import Any

from nnspec.diagnostics import Code, nearest, suggest
from nnspec.dims import Symbolic
from nnspec.elaborate.apply import Applier
from nnspec.elaborate.bind import Argument, Unfit, construct, fields_of, match, values_of, words
from nnspec.elaborate.bind import Field as CallField
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.numbers import FUNCTIONS, MAX_LIST, Impossible, binary
from nnspec.elaborate.report import Abort, Fail, Poisoned, Report
from nnspec.elaborate.values import (
    POISON,
    Bidirectional,
    BlockFactory,
    BlockTemplate,
    Builtin,
    Compose,
    FrozenTemplate,
    InitializerFactory,
    LayerFactory,
    LayerTemplate,
    Named,
    Poison,
    RecipeFactory,
    Repeat,
    Sizes,
    Tensor,
    TupleValue,
    Word,
    describe,
    is_number,
    is_template,
    layers_in,
)
from nnspec.initializers import NAMED, Initializer
from nnspec.ir import Layer, registry
from nnspec.layers.dense import Literal
from nnspec.source import Span
from nnspec.syntax import tree

_LAYER_OF = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "**": "pow",
    "@": "matmul",
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
    "and": "mul",
    "or": "maximum",
}

CELL_OPTIONS = (
    CallField("reverse", False, "false", by_name=True),
    CallField("initial", False, "zeros", by_name=True),
)
"""What a cell takes besides its own hyperparameters and data."""


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """Return every bare word that some layer's argument understands."""
    found: set[str] = set()
    for layer in registry().values():
        for f in fields_of(layer):
            found |= words(f.model_field.annotation)
    return frozenset(found)


class Evaluator(Applier):
    """Evaluates expressions in one body: a network's, a block's or a cell's."""

    def __init__(self, report: Report, builder: Builder, environment: Environment, scope: Scope, library: Any) -> None:
        super().__init__(report, builder, scope)
        self.environment = environment
        self.library = library
        self.next_states: dict[str, Any] | None = None
        self.training = False

    # --- helpers ----------------------------------------------------------------------------------------------------

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
        match e:
            case tree.Number():
                return e.value
            case tree.Bool():
                return e.value
            case tree.Text():
                return e.value
            case tree.Size():
                return Sizes(e.dims)
            case tree.Name():
                return self.lookup(e.name, e.span)
            case tree.NextState():
                return self._next(e)
            case tree.ListExpr():
                return self.all(e.items)
            case tree.TupleExpr():
                return TupleValue(tuple(self.all(e.items)))
            case tree.Pipe():
                return self._pipe(e)
            case tree.Call():
                return self._call(e)
            case tree.Binary():
                return self._binary(e)
            case tree.Unary():
                return self._unary(e)
            case tree.Attribute():
                return self._attribute(e)
            case tree.Index():
                return self._index(e)
            case tree.If():
                return self._if(e)
            case tree.As():
                return self._as(e)
            case tree.Freeze():
                value = self.evaluate(e.value)
                if not is_template(value):
                    raise self.report.fail(
                        Code.MISPLACED,
                        f"`freeze` needs a layer, and gets {describe(value)}",
                        e.value.span,
                        help="put it in front of the layer: `x -> freeze conv(64, 3x3)`",
                    )
                return FrozenTemplate(value)
        raise TypeError(type(e).__name__)

    # --- names ------------------------------------------------------------------------------------------------------

    def lookup(self, name: str, span: Span) -> Any:
        """Return what a name means here."""
        binding = self.environment.find(name)
        if binding is not None:
            binding.used = True
            return binding.value
        if name in self.builder.symbols:
            return self.builder.symbols[name]
        value = self.builtin(name)
        if value is not None:
            return value
        layer = registry().get(name)
        help = f"`{name}` is known in `train` blocks only" if layer and layer.where == "train" else self._known(name)
        raise self.report.fail(Code.UNKNOWN_NAME, f"nothing is called `{name}` here", span, "", help)

    def _known(self, name: str) -> str:
        """Return a help sentence for an unknown name: the nearest one, and where the others are found."""
        layers = {n for n, layer in registry().items() if layer.where == "network" or self.training}
        here = sorted({n for n in self.environment.names() if not n.startswith("_")})
        best = nearest(name, {*here, *layers, *NAMED, *FUNCTIONS, *_words(), *self.library.names()})
        shown = f"in scope: {', '.join(here[:20])}{', ...' if len(here) > 20 else ''}; " if here else ""
        return (f"did you mean `{best}`? " if best else "") + f"{shown}`nnspec layers` lists the layers"

    def builtin(self, name: str) -> Any:
        """Return what the language itself means by a name, or None."""
        layer = registry().get(name)
        if layer is not None and (layer.where == "network" or self.training) and not name.startswith("_"):
            return LayerFactory(layer)
        if name in NAMED:
            initializer = NAMED[name]
            return initializer if isinstance(initializer, Initializer) else InitializerFactory(initializer)
        if name in FUNCTIONS or name == "bidirectional":
            return Builtin(name)
        if self.training:
            from nnspec.recipe import registry as settings

            if name in settings():
                return RecipeFactory(settings()[name])
        if name in _words():
            return Word(name)
        return self.library.find(name)

    # --- operators --------------------------------------------------------------------------------------------------

    def _if(self, e: tree.If) -> Any:
        condition = self.evaluate(e.condition)
        if not isinstance(condition, bool):
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"a condition must be true or false, and is {describe(condition)}",
                e.condition.span,
                help="`if` decides while compiling; `where(c, a, b)` chooses between tensors"
                if isinstance(condition, Tensor)
                else "",
            )
        self.touch(e.otherwise if condition else e.then)
        return self.evaluate(e.then if condition else e.otherwise)

    def _unary(self, e: tree.Unary) -> Any:
        value = self.main(self.evaluate(e.operand))
        if isinstance(value, Tensor):
            if e.op == "+":
                return value
            keyword = {"-": "neg", "not": "logical_not"}[e.op]
            return self.builder.node(registry()[keyword](), [value], self.scope, e.span)
        if e.op == "not":
            if isinstance(value, bool):
                return not value
            raise self.report.fail(
                Code.WRONG_TYPE, f"`not` needs true or false, and gets {describe(value)}", e.operand.span
            )
        if not is_number(value):
            raise self.report.fail(
                Code.WRONG_TYPE, f"`{e.op}` needs a number or a tensor, and gets {describe(value)}", e.operand.span
            )
        return value if e.op == "+" else value * -1

    def _binary(self, e: tree.Binary) -> Any:
        # A long sum is a deep tree to the left: walk it with a loop.
        chain = [e]
        while isinstance(chain[-1].left, tree.Binary):
            chain.append(chain[-1].left)
        left = self.guard(self.evaluate, chain[-1].left)
        for part in reversed(chain):
            if part.op in ("and", "or") and isinstance(left, bool):
                if left == (part.op == "or"):
                    self.touch(part.right)
                    continue
                right = self.guard(self.evaluate, part.right)
                if not isinstance(right, bool | Poison):
                    raise self.report.fail(
                        Code.WRONG_TYPE, f"`{part.op}` needs true or false, and gets {describe(right)}", part.right.span
                    )
                left = right
                continue
            right = self.guard(self.evaluate, part.right)
            if isinstance(left, Poison) or isinstance(right, Poison):
                left = POISON
                continue
            left = self.guard(self._operate, part, left, right)
        if isinstance(left, Poison):
            raise Poisoned
        return left

    def _operate(self, e: tree.Binary, left: Any, right: Any) -> Any:
        left, right = self.main(left), self.main(right)
        if e.op == "*" and (is_template(left) or is_template(right)):
            body, count = (left, right) if is_template(left) else (right, left)
            if not isinstance(count, int) or isinstance(count, bool):
                raise self.report.fail(
                    Code.WRONG_TYPE,
                    f"a layer is repeated a whole number of times, and this is {describe(count)}",
                    e.right.span if is_template(left) else e.left.span,
                )
            if count < 0:
                raise self.report.fail(
                    Code.OUT_OF_RANGE, f"a layer cannot be repeated {count} times", e.right.span, "expected at least 0"
                )
            repeat = Repeat(body, count, e.span)
            if (layers := layers_in(repeat)) > self.builder.limit:
                raise self.report.fail(
                    Code.TOO_LARGE,
                    f"a repetition that makes {layers:,} layers is more than the limit of {self.builder.limit:,}",
                    e.right.span if is_template(left) else e.left.span,
                    help="`--limit N` raises the limit",
                )
            return repeat
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return self._tensor_operation(e, left, right)
        if (
            isinstance(left, bool)
            or isinstance(right, bool)
            or isinstance(left, str | Word)
            or isinstance(right, str | Word)
        ):
            if e.op in ("==", "!="):
                return (left == right) == (e.op == "==")
        elif e.op in ("==", "!=") and isinstance(left, list | Sizes) and isinstance(right, list | Sizes):
            return (list(left) == list(right)) == (e.op == "==")
        elif e.op == "+" and isinstance(left, list) and isinstance(right, list):
            if len(left) + len(right) > MAX_LIST:
                raise self.report.fail(Code.TOO_LARGE, f"the list has more than {MAX_LIST:,} items", e.span)
            return left + right
        elif is_number(left) and is_number(right) and e.op not in ("@", "and", "or"):
            try:
                return binary(e.op, left, right)
            except Impossible as error:
                code = Code.DIVISION if "zero" in str(error) else Code.ARITHMETIC
                raise self.report.fail(code, str(error), e.span) from None
        wrong, where = (left, e.left) if not is_number(left) else (right, e.right)
        help = "apply it to a tensor with `->` first" if is_template(wrong) else ""
        raise self.report.fail(
            Code.WRONG_TYPE,
            f"`{e.op}` cannot combine {describe(left)} and {describe(right)}",
            where.span,
            f"this is {describe(wrong)}",
            help,
        )

    def _tensor_operation(self, e: tree.Binary, left: Any, right: Any) -> Any:
        keyword = _LAYER_OF.get(e.op)
        if keyword is None:
            raise self.report.fail(Code.WRONG_TYPE, f"`{e.op}` works on compile-time numbers, not on tensors", e.span)
        layer: type[Layer] = registry()[keyword]
        operands = []
        fields: dict[str, Any] = {}
        for i, (value, at) in enumerate(((left, e.left), (right, e.right))):
            if isinstance(value, Tensor):
                operands.append(value)
            elif isinstance(value, list):
                operands.append(self._literal(value, at.span))
            elif is_number(value) and not isinstance(value, Symbolic) and "number" in layer.model_fields:
                fields = {"number": value, "number_first": i == 0}
            else:
                raise self.report.fail(
                    Code.WRONG_TYPE,
                    f"`{e.op}` cannot combine {describe(left)} and {describe(right)}",
                    at.span,
                    f"this is {describe(value)}",
                    "apply it to a tensor with `->` first" if is_template(value) else "",
                )
        return self.builder.node(layer(**fields), operands, self.scope, e.span)

    def _literal(self, value: list[Any], span: Span) -> Tensor:
        try:
            values = values_of(value)
        except Unfit:
            raise self.report.fail(
                Code.WRONG_TYPE, "a list used as a tensor needs numbers in equal rows", span
            ) from None
        layer = Literal(shape=values.shape, values=values.values)
        result = self.builder.node(layer, [], self.scope, span)
        assert isinstance(result, Tensor)
        return result

    def tensor(self, value: Any, span: Span) -> Tensor:
        """Return a value as a tensor, lists and numbers made constant ones; raise Fail for what is none."""
        value = self.main(value)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            layer = Literal(shape=(), values=(float(value),))
            result = self.builder.node(layer, [], self.scope, span)
            assert isinstance(result, Tensor)
            return result
        if isinstance(value, list):
            return self._literal(value, span)
        raise self.report.fail(
            Code.WRONG_TYPE,
            f"this must be a tensor, and is {describe(value)}",
            span,
            help="apply it with `x -> ...`" if is_template(value) else "",
        )

    # --- access -----------------------------------------------------------------------------------------------------

    def _attribute(self, e: tree.Attribute) -> Any:
        value = self.main(self.evaluate(e.value))
        name = e.name.name
        if not isinstance(value, Tensor):
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"only tensors have properties, and this is {describe(value)}",
                e.value.span,
                help="inside a block, the data behind `on` has a shape" if is_template(value) else "",
            )
        t = value.type
        known: dict[str, Callable[[], Any]] = {
            "shape": lambda: list(t.shape),
            "rank": lambda: t.rank,
            "size": lambda: t.size,
            "channels": lambda: t.shape[0],
            "features": lambda: t.shape[-1],
            "length": lambda: t.shape[0],
        }
        if name not in known:
            raise self.report.fail(
                Code.UNKNOWN_ATTRIBUTE,
                f"a tensor has no `{name}`",
                e.name.span,
                help=suggest(name, known, what="properties"),
            )
        if t.rank == 0 and name in ("channels", "features", "length"):
            raise self.report.fail(Code.SHAPE_MISMATCH, f"a scalar has no `{name}`", e.name.span)
        return known[name]()

    def _index(self, e: tree.Index) -> Any:
        value = self.evaluate(e.value)
        indices = self.all(e.indices)
        if isinstance(value, TupleValue):
            items: Sequence[Any] = value.items
        elif isinstance(value, list | Sizes):
            items = value
        else:
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"only lists, sizes and tuples have indices, and this is {describe(value)}",
                e.value.span,
                help="`slice(begin, end)` takes a part of a tensor" if isinstance(self.main(value), Tensor) else "",
            )
        if len(indices) != 1 or not isinstance(indices[0], int) or isinstance(indices[0], bool):
            raise self.report.fail(Code.WRONG_TYPE, "an index is one whole number", e.indices[0].span)
        if not -len(items) <= indices[0] < len(items):
            raise self.report.fail(
                Code.OUT_OF_RANGE,
                f"index {indices[0]} is out of range",
                e.indices[0].span,
                f"there are {len(items)}, counted from 0",
            )
        return items[indices[0]]

    def _next(self, e: tree.NextState) -> Any:
        if self.next_states is None:
            raise self.report.fail(Code.MISPLACED, "`next` has a meaning inside a cell only", e.span)
        if e.name not in self.next_states:
            binding = self.environment.find(e.name)
            if binding is not None and binding.what == "state":
                message = f"`next {e.name}` is used before it is defined"
                raise self.report.fail(Code.STATE, message, e.span, help=f"define it above with `next {e.name} = ...`")
            states = [n for n, b in self.environment.bindings.items() if b.what == "state"]
            help = suggest(e.name, states, what="states")
            raise self.report.fail(Code.STATE, f"the cell has no state `{e.name}`", e.span, help=help)
        return self.next_states[e.name]

    # --- calls and pipes --------------------------------------------------------------------------------------------

    def _as(self, e: tree.As) -> Any:
        value = self.evaluate(e.value)
        if not is_template(value):
            raise self.report.fail(
                Code.MISPLACED,
                f"`as` names a layer, and this is {describe(value)}",
                e.value.span,
                help="put it behind the layer: `x -> conv(64, 3x3) as stem`",
            )
        return Named(value, e.name.name, e.name.span)

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
        value = self.evaluate(e)
        if not is_template(value):
            help = ""
            if isinstance(self.main(value), Tensor):
                help = "a tensor stands at the start of a pipe; `(a, b) -> concat` feeds two"
            raise self.report.fail(Code.WRONG_TYPE, f"`->` needs a layer, and gets {describe(value)}", e.span, "", help)
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
        callee = self.guard(self.evaluate, e.callee)
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
                    Code.WRONG_TYPE, f"`join` is {describe(join)}", spans["join"], "expected `concat`, `add` or another layer"
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
