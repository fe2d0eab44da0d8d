"""Declarations of a body: inputs, outputs, params, and the types they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from nnspec.diagnostics import Code, Label
from nnspec.dims import Symbolic
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.expressions import Evaluator
from nnspec.elaborate.report import Report
from nnspec.elaborate.values import (
    Poison,
    Sizes,
    Tensor,
    describe,
)
from nnspec.initializers import AnyInitializer, Constant
from nnspec.ir import Input, Output, TensorType
from nnspec.layers.dense import Param as ParamLayer
from nnspec.source import Span
from nnspec.syntax import tree

BATCH_NAME = "batch"


class Declarations(Evaluator):
    """Evaluates what declares tensors."""

    def __init__(self, report: Report, builder: Builder, environment: Environment, scope: Scope, library: Any) -> None:
        super().__init__(report, builder, environment, scope, library)
        self.kind = "block"
        self.outputs: list[Output] = []
        self.output_spans: dict[str, Span] = {}

    def bind(self, ident: tree.Ident, value: Any, what: str) -> None:
        """Bind a name; see `nnspec.elaborate.body`."""
        raise NotImplementedError

    def type_of(self, e: tree.Expr, *, what: str, symbols: bool = True) -> TensorType:
        """Return the type that an `input`, `target`, `param` or `state` declares."""
        match e:
            case tree.Name(name=("int" | "float" | "bool") as name):
                return TensorType(shape=(), dtype="int64" if name == "int" else "float32")
            case tree.Index(value=tree.Name(name=("int" | "float" | "bool") as name)):
                return TensorType(
                    shape=self._dims(e.indices, what, symbols), dtype="int64" if name == "int" else "float32"
                )
            case tree.ListExpr():
                return TensorType(shape=self._dims(e.items, what, symbols))
        value = self.evaluate(e)
        if isinstance(value, list | Sizes):
            return TensorType(shape=tuple(self._dim(d, e.span, what) for d in value))
        raise self.report.fail(
            Code.WRONG_TYPE,
            f"the type of {what} is {describe(value)}",
            e.span,
            "expected dims such as [1, 28, 28], or `int[T]`",
        )

    def _dims(self, items: Sequence[tree.Expr], what: str, symbols: bool) -> tuple[Any, ...]:
        dims = []
        for item in items:
            for name in self._free(item) if symbols else ():
                if name == BATCH_NAME:
                    raise self.report.fail(
                        Code.MISPLACED,
                        "the batch axis is implicit and never written",
                        item.span,
                        help="leave it out of the dims",
                    )
                self.builder.symbol(name)
            dims.append(self._dim(self.evaluate(item), item.span, what))
        return tuple(dims)

    def _free(self, e: tree.Expr) -> list[str]:
        """Return the names of a dim that nothing binds: they are symbolic sizes."""
        match e:
            case tree.Name():
                bound = self.environment.find(e.name) is not None
                return [] if bound else [e.name]
            case tree.Binary():
                return self._free(e.left) + self._free(e.right)
        return []

    def _dim(self, value: Any, span: Span, what: str) -> Any:
        if isinstance(value, Symbolic):
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"a dim of {what} is {describe(value)}",
                span,
                "expected a whole number or a symbolic name",
            )
        if value < 1:
            raise self.report.fail(
                Code.OUT_OF_RANGE, f"a dim of {what} must be at least 1, and is {value}", span, "expected at least 1"
            )
        return value

    def _input(self, s: tree.Input) -> None:
        self.bind(s.name, self.guard(self.declare_input, s.name, s.type, s.masked, "the input"), "input")

    def declare_input(self, name: tree.Ident, type_: tree.Expr, masked: bool, what: str) -> Tensor:
        """Add an input, and the input of its lengths where it is masked."""
        declared = self.type_of(type_, what=f"{what} `{name.name}`")
        lengths = None
        if masked:
            symbol = str(declared.shape[0]) if declared.shape else ""
            if symbol not in self.builder.symbols:
                raise self.report.fail(
                    Code.WRONG_TYPE,
                    f"`masked` needs a symbolic first dim, and `{name.name}` is {declared}",
                    type_.span,
                    help="declare it as a sequence, such as `int[T] masked`",
                )
            lengths = self.builder.masks.setdefault(symbol, f"{name.name}.lengths")
        if name.name not in self.builder.inputs:
            self.builder.inputs[name.name] = Input(name=name.name, type=declared, lengths=lengths)
        if lengths is not None and lengths not in self.builder.inputs:
            self.builder.inputs[lengths] = Input(name=lengths, type=TensorType(shape=(), dtype="int64"))
        return Tensor(name.name, declared, name.span)

    def _output(self, s: tree.Output) -> None:
        def work() -> Tensor:
            if s.value is None:
                value = self.evaluate(tree.Name(s.name.name, span=s.name.span))
            else:
                value = self.evaluate(s.value)
            return self.tensor(value, (s.value or s.name).span)

        value = self.guard(work)
        name = s.name.name
        if name in self.output_spans:
            self.report.add(
                self.report.fail(
                    Code.DUPLICATE_NAME,
                    f"two outputs are called `{name}`",
                    s.name.span,
                    others=[Label(self.output_spans[name], "the first one")],
                ).diagnostic
            )
            return
        self.output_spans[name] = s.name.span
        if name in self.builder.inputs:
            fail = self.report.fail(
                Code.DUPLICATE_NAME,
                f"`{name}` is an input, and an output needs a name of its own",
                s.name.span,
                help=f"write `output ... = {name}`",
            )
            self.report.add(fail.diagnostic)
            return
        if not isinstance(value, Poison):
            self.outputs.append(Output(name=name, value=value.ref))
        if s.value is not None:
            self.bind(s.name, value, "")

    def _param(self, s: tree.Param) -> None:
        self.bind(s.name, self.guard(self.declare_param, s.name, s.shape, s.init), "param")

    def declare_param(self, name: tree.Ident, shape: tree.Expr, init: tree.Expr | None) -> Tensor:
        """Add a weight of the body's own."""
        declared = self.type_of(shape, what=f"the param `{name.name}`", symbols=False)
        if declared.symbols:
            raise self.report.fail(
                Code.SHAPE_MISMATCH, f"a param needs a fixed shape, and `{name.name}` is {declared}", shape.span
            )
        layer = ParamLayer(
            shape=cast(tuple[int, ...], declared.shape),
            init=self.initializer(init) if init is not None else Constant(value=0.0),
        )
        self.scope.named[name.name] = name.span
        result = self.builder.node(layer, [], self.scope, name.span, name=name.name)
        assert isinstance(result, Tensor)
        return result

    def initializer(self, e: tree.Expr) -> AnyInitializer:
        """Return an initialiser's value: a named one, a number, or rows of numbers."""
        from nnspec.elaborate.bind import Argument, construct

        value = self.evaluate(e)
        made, _ = construct(
            self.report, "param", ParamLayer, [Argument("shape", [1], e.span), Argument("init", value, e.span)], e.span
        )
        return made.init  # type: ignore[no-any-return]
