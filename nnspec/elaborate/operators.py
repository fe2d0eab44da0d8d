"""Operators: between compile-time numbers, between tensors, and the choice between expressions."""

from __future__ import annotations

from typing import Any

from nnspec.diagnostics import Code
from nnspec.dims import Symbolic
from nnspec.elaborate.bind import Unfit, values_of
from nnspec.elaborate.calls import Caller
from nnspec.elaborate.numbers import MAX_LIST, Impossible, binary
from nnspec.elaborate.report import Poisoned
from nnspec.elaborate.values import (
    POISON,
    Poison,
    Repeat,
    Sizes,
    Tensor,
    Word,
    describe,
    is_number,
    is_template,
    layers_in,
)
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


class Operators(Caller):
    """Evaluates arithmetic, comparisons, logic and `if`."""

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
