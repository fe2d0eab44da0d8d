"""Arithmetic and functions of compile-time values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from nnspec.dims import Symbolic, floor_div
from nnspec.elaborate.values import Sizes, is_number

MAX_BITS = 4096
MAX_LIST = 1_000_000
MAX_TERMS = 200

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "**": operator.pow,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Impossible(Exception):
    """Arithmetic that has no result; the message says why."""


def binary(op: str, a: Any, b: Any) -> Any:
    """Return `a op b` for compile-time numbers; raise Impossible where it has no value."""
    if op in ("==", "!="):
        return (a == b) == (op == "==")
    symbolic = isinstance(a, Symbolic) or isinstance(b, Symbolic)
    try:
        if op == "//":
            if symbolic:
                return floor_div(a, b)
            return a // b
        if symbolic:
            if op in ("<", "<=", ">", ">="):
                difference = a - b
                if isinstance(difference, int):
                    return _OPERATORS[op](difference, 0)
                raise Impossible(f"whether {a} {op} {b} holds is not known while compiling")
            if op not in ("+", "-", "*"):
                raise Impossible(
                    f"`{op}` does not work on the symbolic size {a if isinstance(a, Symbolic) else b}; `//` does"
                )
            if isinstance(a, float) or isinstance(b, float):
                raise Impossible("a symbolic size takes whole numbers only")
        if op == "**" and isinstance(a, int) and isinstance(b, int) and a.bit_length() * abs(b) > MAX_BITS:
            raise Impossible(f"{a} ** {b} is too large a number to mean")
        result = _OPERATORS[op](a, b)
        if isinstance(result, Symbolic) and len(result.terms) > MAX_TERMS:
            raise Impossible("the symbolic size has too many terms to mean")
    except ZeroDivisionError:
        raise Impossible("division by zero") from None
    except OverflowError:
        raise Impossible("the result is too large a number") from None
    if isinstance(result, complex):
        raise Impossible("the result is not a real number")
    if isinstance(result, int) and result.bit_length() > MAX_BITS:
        raise Impossible("the result is too large a number to mean")
    return result


def _range(*bounds: Any) -> list[Any]:
    if not 1 <= len(bounds) <= 3 or any(not isinstance(b, int) or isinstance(b, bool) for b in bounds):
        raise Impossible("`range` takes one to three whole numbers")
    if len(bounds) == 3 and bounds[2] == 0:
        raise Impossible("the step of `range` must not be 0")
    numbers = range(*bounds)
    if len(numbers) > MAX_LIST:
        raise Impossible(f"the range has {len(numbers):,} numbers, more than {MAX_LIST:,}")
    return list(numbers)


def _spread(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        items = list(values[0]) if len(values) == 1 and isinstance(values[0], list | Sizes) else list(values)
        if not items:
            raise Impossible(f"`{name}` needs at least one number")
        if any(isinstance(i, Symbolic) for i in items):
            raise Impossible(f"`{name}` of a symbolic size is not known while compiling")
        if not all(is_number(i) for i in items):
            raise Impossible(f"`{name}` takes numbers")
        return function(items)

    return call


def _real(name: str, function: Callable[[float], Any]) -> Callable[..., Any]:
    def call(*values: Any) -> Any:
        if len(values) != 1 or not is_number(values[0]) or isinstance(values[0], Symbolic):
            raise Impossible(f"`{name}` takes one number")
        try:
            return function(values[0])
        except (ValueError, OverflowError):
            raise Impossible(f"`{name}` of {values[0]} has no value") from None

    return call


def _len(*values: Any) -> int:
    if len(values) != 1 or not isinstance(values[0], list | Sizes):
        raise Impossible("`len` takes one list")
    return len(values[0])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": _spread("min", min),
    "max": _spread("max", max),
    "sum": _spread("sum", sum),
    "sqrt": _real("sqrt", math.sqrt),
    "log": _real("log", math.log),
    "exp": _real("exp", math.exp),
    "abs": _real("abs", abs),
    "floor": _real("floor", math.floor),
    "ceil": _real("ceil", math.ceil),
    "round": _real("round", round),
    "range": _range,
    "len": _len,
}
"""Functions of compile-time values. Several share a layer's name: what they are given decides."""
