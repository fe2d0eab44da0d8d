"""Arguments to fields: positions to names, values to types, Pydantic's errors to diagnostics with spans."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from nnspec.diagnostics import Code, Diagnostic, Label, nearest
from nnspec.elaborate.numbers import MAX_LIST
from nnspec.elaborate.report import Poisoned, Report
from nnspec.elaborate.values import InitializerFactory, Sizes, Tensor, TupleValue, Word, describe, is_number
from nnspec.initializers import Constant, Initializer, Values
from nnspec.source import Span

MAX_INT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Argument:
    """An evaluated argument: `name` is None where it is positional."""

    name: str | None
    value: Any
    span: Span
    name_span: Span | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """What a call may be given: a name, whether it must be, and how its default reads."""

    name: str
    required: bool
    default: str = ""
    model_field: Any = None
    by_name: bool = False
    """Whether it is given by its name only."""


@cache
def fields_of(model: type[BaseModel]) -> tuple[Field, ...]:
    """Return a model's arguments in the order in which a call gives them."""
    hidden = {"kind", "body"}
    if not model.__pydantic_fields_complete__:
        # A class that refers to itself does not know its fields' types before it is built.
        model.model_rebuild()
    return tuple(
        Field(
            name,
            info.is_required(),
            "" if info.is_required() else show_default(info.get_default(call_default_factory=True)),
            info,
        )
        for name, info in model.model_fields.items()
        if name not in hidden
    )


def show_default(value: Any) -> str:
    """Return a default as a spec would write it."""
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "none"
        case Constant(value=0.0):
            return "zeros"
        case Constant(value=1.0):
            return "ones"
        case Initializer():
            if value.kind == "scaled":  # type: ignore[attr-defined]
                return f"{value.scheme}_{value.distribution}"  # type: ignore[attr-defined]
            arguments = ", ".join(str(v) for f, v in value.model_dump().items() if f != "kind" and v)
            return f"{value.kind}({arguments})" if arguments else str(value.kind)  # type: ignore[attr-defined]
        case tuple():
            return "[" + ", ".join(show_default(v) for v in value) + "]"
    return str(value)


def allowed(fields: Sequence[Field]) -> str:
    """Return the arguments that a call takes, with their defaults."""
    data = ", ".join(f.name for f in fields if f.by_name and not f.default)
    rest = [f for f in fields if f.default or not f.by_name]
    head = "arguments: " if rest else "it takes no arguments"
    shown = ", ".join(f.name if f.required else f"{f.name} = {f.default}" for f in rest)
    return head + shown + (f"; data: {data}" if data else "")


def match(
    report: Report, what: str, fields: Sequence[Field], arguments: Sequence[Argument], span: Span
) -> tuple[dict[str, Any], dict[str, Span]]:
    """Give each argument its field's name; report the unknown, surplus, doubled and missing ones."""
    values: dict[str, Any] = {}
    spans: dict[str, Span] = {}
    known = {f.name for f in fields}
    places = [f.name for f in fields if not f.by_name]
    failed = False
    position = 0
    for argument in arguments:
        if argument.name is None:
            if position >= len(places):
                count = len(places)
                takes = "no arguments" if not count else f"at most {count} argument{'s' if count > 1 else ''}"
                takes += " without a name" if count < len(fields) else ""
                report.add(
                    report.fail(
                        Code.SURPLUS_ARGUMENT, f"`{what}` takes {takes}", argument.span, "one too many", allowed(fields)
                    ).diagnostic
                )
                failed = True
                continue
            name = places[position]
            position += 1
        else:
            name = argument.name
        where = argument.name_span or argument.span
        if name not in known:
            best = nearest(name, known)
            help = (f"did you mean `{best}`? " if best else "") + allowed(fields)
            report.add(
                report.fail(Code.UNKNOWN_ARGUMENT, f"`{what}` has no argument `{name}`", where, "", help).diagnostic
            )
            failed = True
        elif name in values:
            report.add(
                report.fail(
                    Code.DUPLICATE_ARGUMENT,
                    f"`{name}` is given twice",
                    where,
                    others=[Label(spans[name], "given here first")],
                ).diagnostic
            )
            failed = True
        else:
            values[name], spans[name] = argument.value, argument.span
    missing = [f.name for f in fields if f.required and f.name not in values]
    if missing and not failed:
        names = " and ".join(f"`{m}`" for m in missing)
        report.add(
            report.fail(
                Code.MISSING_ARGUMENT,
                f"`{what}` needs {names}",
                span,
                "missing argument" + "s" * (len(missing) > 1),
                allowed(fields),
            ).diagnostic
        )
        failed = True
    if failed:
        raise Poisoned
    return values, spans


def construct(
    report: Report, what: str, model: type[BaseModel], arguments: Sequence[Argument], span: Span
) -> tuple[Any, dict[str, Span]]:
    """Return a validated instance of a model made from a call's arguments, and where each stands."""
    fields = fields_of(model)
    values, spans = match(report, what, fields, arguments, span)
    infos = {f.name: f.model_field for f in fields}
    failed = False
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if _widest(value) > MAX_INT:
            report.add(
                report.fail(
                    Code.OUT_OF_RANGE,
                    f"`{name}` of `{what}` has a number beyond 64 bits",
                    spans[name],
                    f"at most {MAX_INT}",
                ).diagnostic
            )
            failed = True
            continue
        try:
            plain[name] = _plain(value, infos[name].annotation)
        except Unfit:
            wanted = _wanted(infos[name].annotation)
            report.add(
                report.fail(
                    Code.WRONG_TYPE, f"`{name}` of `{what}` is {describe(value)}", spans[name], f"expected {wanted}"
                ).diagnostic
            )
            failed = True
    if failed:
        raise Poisoned
    try:
        return model(**plain), spans
    except ValidationError as error:
        for diagnostic in _translate(report, error, what, values, spans, infos, span):
            report.add(diagnostic)
        raise Poisoned from None


class Unfit(Exception):
    """A value that no field of the wanted kind can hold."""


def _widest(value: Any) -> int:
    """Return the largest magnitude among a value's whole numbers; ONNX holds 64 bits."""
    if isinstance(value, list | Sizes):
        return max(map(_widest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _plain(value: Any, annotation: Any) -> Any:
    """Return a value as Pydantic should see it; raise Unfit for what no field can hold."""
    kinds = _kinds(annotation)
    match value:
        case InitializerFactory():
            if any(f.required for f in fields_of(value.initializer)):
                raise Unfit
            value = value.initializer()
    if "initializer" in kinds:
        if isinstance(value, Initializer):
            return value
        if isinstance(value, list):
            return (
                tuple(_plain(v, annotation) for v in value)
                if "list" in kinds or any(isinstance(v, Initializer) for v in value)
                else values_of(value)
            )
        if is_number(value) and isinstance(value, int | float):
            return Constant(value=value)
        raise Unfit
    match value:
        case bool():
            if "bool" not in kinds:
                raise Unfit
            return value
        case Word() if "str" in kinds:
            return value.text
        case Word():
            if not any(isinstance(k, tuple) and value.text in k for k in kinds):
                if any(isinstance(k, tuple) for k in kinds):
                    return value.text
                raise Unfit
            return value.text
        case Sizes():
            return tuple(value)
        case list():
            return tuple(_plain(v, annotation) for v in value)
        case str():
            if "str" not in kinds:
                raise Unfit
            return value
        case Tensor() | TupleValue():
            raise Unfit
    if is_number(value):
        # Pydantic would take 1 for true and 2.0 for 2; a spec says what it means.
        holds = {int: {"int", "float"}, float: {"float"}}.get(type(value), {"Symbolic"})
        if not kinds & holds:
            raise Unfit
        return value
    if isinstance(value, BaseModel) or value is None:
        return value
    raise Unfit


def values_of(value: list[Any]) -> Values:
    """Return nested lists of numbers as an initialiser; raise Unfit where they are ragged or not numbers."""
    flat: list[float] = []

    def walk(item: Any) -> tuple[int, ...]:
        if len(flat) > MAX_LIST:
            raise Unfit
        if isinstance(item, list):
            shapes = {walk(i) for i in item}
            if len(shapes) != 1:
                raise Unfit
            return (len(item), *shapes.pop())
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise Unfit
        flat.append(float(item))
        return ()

    return Values(shape=walk(value), values=tuple(flat))


@cache
def _kinds_cached(annotation: Any) -> frozenset[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return frozenset().union(*(_kinds(a) for a in typing.get_args(annotation)))
    if origin is typing.Literal:
        return frozenset({typing.get_args(annotation)})
    if origin in (tuple, list):
        return frozenset({"list"}).union(*(_kinds(a) for a in typing.get_args(annotation) if a is not Ellipsis))
    if isinstance(annotation, type):
        if issubclass(annotation, Initializer):
            return frozenset({"initializer"})
        return frozenset({annotation.__name__})
    return frozenset()


def _kinds(annotation: Any) -> frozenset[Any]:
    return _kinds_cached(annotation)


def words(annotation: Any) -> frozenset[str]:
    """Return the bare words that an annotation allows."""
    return frozenset(w for kind in _kinds(annotation) if isinstance(kind, tuple) for w in kind if isinstance(w, str))


def _wanted(annotation: Any) -> str:
    """Return what an annotation allows, in the user's words."""
    kinds = _kinds(annotation)
    parts = []
    if "initializer" in kinds:
        return "an initialiser such as `he_normal`, `zeros` or `normal(0.01)`"
    if "float" in kinds:
        parts.append("a number")
    elif "int" in kinds:
        parts.append("a whole number")
    if "bool" in kinds:
        parts.append("`true` or `false`")
    if "str" in kinds:
        parts.append("a text")
    if "list" in kinds:
        parts.append("a size such as `3x3`" if "int" in kinds else "a list")
    parts += [f"`{w}`" for w in sorted(words(annotation))]
    return " or ".join(([", ".join(parts[:-1])] if len(parts) > 2 else parts[:-1]) + parts[-1:]) or "something else"


_BOUNDS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "above {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "below {}"),
}


def _translate(
    report: Report,
    error: ValidationError,
    what: str,
    values: Mapping[str, Any],
    spans: Mapping[str, Span],
    infos: Mapping[str, Any],
    span: Span,
) -> list[Diagnostic]:
    """Turn Pydantic's errors, of which a union gives one for each branch, into one diagnostic for each argument."""
    by_field: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        by_field.setdefault(str(item["loc"][0]) if item["loc"] else "", []).append(item)
    found = []
    for name, items in by_field.items():
        where = spans.get(name, span)
        bounds = [i for i in items if i["type"] in _BOUNDS]
        if any(i["type"] == "too_short" for i in items) and values.get(name) == []:
            found.append(
                report.fail(
                    Code.OUT_OF_RANGE, f"`{name}` of `{what}` must not be empty", where, "expected at least one"
                ).diagnostic
            )
            continue
        if not name or any(i["type"] == "value_error" for i in items):
            message = next(i for i in items if i["type"] == "value_error" or not name)["msg"].removeprefix(
                "Value error, "
            )
            found.append(report.fail(Code.OUT_OF_RANGE, f"`{what}`: {message}", where).diagnostic)
        elif bounds and not isinstance(values.get(name), Word):
            item = bounds[0]
            key, text = _BOUNDS[item["type"]]
            limit = text.format(f"{item['ctx'][key]:g}")
            found.append(
                report.fail(
                    Code.OUT_OF_RANGE,
                    f"`{name}` of `{what}` must be {limit}, and is {item['input']}",
                    where,
                    f"expected {limit}",
                ).diagnostic
            )
        else:
            found.append(
                report.fail(
                    Code.WRONG_TYPE,
                    f"`{name}` of `{what}` is {describe(values.get(name))}",
                    where,
                    f"expected {_wanted(infos[name].annotation)}",
                ).diagnostic
            )
    return found
