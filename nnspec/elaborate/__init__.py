"""From the syntax tree to the IR: values, calls, repetition, shapes and names."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnspec.diagnostics import Code, Diagnostic, Label, SpecError, suggest
from nnspec.dims import symbols
from nnspec.elaborate.body import Body
from nnspec.elaborate.builder import DEFAULT_LIMIT, Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.modules import Library, Module, load
from nnspec.elaborate.report import Report
from nnspec.ir import Network, Node
from nnspec.source import Source, Span
from nnspec.syntax import tree

if TYPE_CHECKING:
    from nnspec.recipe import Recipe

__all__ = [
    "DEFAULT_LIMIT",
    "Compiled",
    "check_module",
    "elaborate",
    "elaborate_recipe",
    "load_module",
    "parse_setting",
    "survey_module",
]

_DEPTH = 20_000
"""Python frames allowed while elaborating: nested blocks and parentheses, each limited by itself, need many."""


@dataclass(frozen=True)
class Compiled:
    """A network and the warnings that came up."""

    network: Network
    warnings: tuple[Diagnostic, ...]


@contextmanager
def _deep() -> Any:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def load_module(source: Source) -> Module:
    """Parse a file with its imports; raise SpecError with everything that is wrong."""
    module, found = survey_module(source)
    if found:
        raise SpecError(found)
    return module


def survey_module(source: Source) -> tuple[Module, list[Diagnostic]]:
    """Parse a file with its imports; return what can be made of it, and what is wrong at the top level."""
    report = Report()
    with _deep():
        module = load(source, report, Path(source.path).resolve().parent)
    return module, report.diagnostics


def parse_setting(text: str) -> Any:
    """Return the value of `--set NAME=VALUE`: a number, list, size, word or text; raise SpecError for what is none."""
    from nnspec.syntax.parse import parse

    source = Source("--set", f"const value = {text}")
    item, *more = parse(source).items
    if more or not isinstance(item, tree.Const):
        span = more[0].span if more else item.span
        raise SpecError([Diagnostic(Code.SYNTAX, "a parameter takes one value", (Label(span),))])
    report = Report()
    body = Body(report, Builder(report), Environment(), Scope(), Library())
    with _deep(), report.until_abort():
        value = body.guard(body.evaluate, item.value)
    if report.failed:
        raise SpecError(report.diagnostics)
    return value


def pick(module: Module, name: str | None) -> tree.Network:
    """Return a file's network by name, or its only one; raise SpecError where that is not clear."""
    span = Span(module.source, 0, min(1, len(module.source.text)))
    if name is not None:
        if name in module.networks:
            return module.networks[name]
        message = f"there is no network `{name}` in {module.source.path}"
        raise SpecError(
            [Diagnostic(Code.NO_NETWORK, message, (Label(span),), suggest(name, module.networks, what="networks"))]
        )
    if not module.networks:
        raise SpecError([Diagnostic(Code.NO_NETWORK, f"{module.source.path} declares no network", (Label(span),))])
    if len(module.networks) > 1:
        names = ", ".join(module.networks)
        message = f"{module.source.path} declares several networks: {names}"
        raise SpecError([Diagnostic(Code.AMBIGUOUS, message, (Label(span),), "name one with `--network NAME`")])
    return next(iter(module.networks.values()))


def elaborate(
    module: Module, network: str | None = None, settings: Mapping[str, Any] | None = None, limit: int = DEFAULT_LIMIT
) -> Compiled:
    """Return a file's network as IR.

    `settings` are values for its parameters. Raises SpecError with every independent error.
    """
    declaration = pick(module, network)
    report = Report()
    with _deep():
        body = _run(module, declaration, settings or {}, report, limit)
        result = None if report.failed else _finish(body, declaration)
    if result is None or report.failed:
        raise SpecError(report.diagnostics)
    return Compiled(result, tuple(report.diagnostics))


def elaborate_recipe(
    module: Module,
    network: str | None = None,
    train: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> tuple[Recipe, tuple[Diagnostic, ...]]:
    """Return a train block as a recipe: the network with loss and metrics, and how to train it."""
    from nnspec.elaborate.train import pick_train, run_train

    report = Report()
    block = pick_train(module, network, train)
    if block.network.name not in module.networks:
        help = suggest(block.network.name, module.networks, what="networks")
        message = f"there is no network `{block.network.name}` to train"
        raise SpecError([Diagnostic(Code.UNKNOWN_NAME, message, (Label(block.network.span),), help)])
    declaration = module.networks[block.network.name]
    with _deep():
        body = _run(module, declaration, settings or {}, report, limit)
        if not report.failed:
            base = _finish(body, declaration)
            if not report.failed:
                with report.until_abort():
                    recipe = run_train(body, base, block, declaration)
                    if recipe is not None and not report.failed:
                        return recipe, tuple(report.diagnostics)
    raise SpecError(report.diagnostics)


def check_module(
    module: Module, settings: Mapping[str, Any] | None = None, limit: int = DEFAULT_LIMIT
) -> list[Diagnostic]:
    """Return every finding on a file's networks and train blocks, each once.

    A setting goes to the networks that have a parameter of its name; one that no network has is an error.
    """
    given = dict(settings or {})
    found: list[Diagnostic] = []

    def take(diagnostics: Iterable[Diagnostic]) -> None:
        found.extend(d for d in diagnostics if d not in found)

    parameters = {n: {p.name.name for p in d.parameters} for n, d in module.networks.items()}
    known = set().union(*parameters.values())
    if unknown := sorted(set(given) - known):
        span = Span(module.source, 0, min(1, len(module.source.text)))
        message = f"no network has a parameter `{unknown[0]}`"
        take(
            [Diagnostic(Code.UNKNOWN_ARGUMENT, message, (Label(span),), suggest(unknown[0], known, what="parameters"))]
        )
    broken = set()
    for name in module.networks:
        own = {k: v for k, v in given.items() if k in parameters[name]}
        try:
            take(elaborate(module, name, own, limit).warnings)
        except SpecError as error:
            broken.add(name)
            take(error.diagnostics)
    for block in module.trains:
        network = block.network.name
        if network in broken:
            continue
        own = {k: v for k, v in given.items() if k in parameters.get(network, ())}
        try:
            take(elaborate_recipe(module, network, (block.name or block.network).name, own, limit)[1])
        except SpecError as error:
            take(error.diagnostics)
    return found


def _run(module: Module, declaration: tree.Network, settings: Mapping[str, Any], report: Report, limit: int) -> Body:
    """Run a network's statements; findings go to the report."""
    builder = Builder(report, limit)
    body = Body(report, builder, Environment(module.environment), Scope(), Library())
    known = {p.name.name: p for p in declaration.parameters}
    for name in settings:
        if name not in known:
            help = suggest(name, known, what="parameters") or "it has no parameters"
            message = f"the network `{declaration.name.name}` has no parameter `{name}`"
            report.add(Diagnostic(Code.UNKNOWN_ARGUMENT, message, (Label(declaration.name.span),), help))
    for name, parameter in known.items():
        if parameter.default is None and name not in settings:
            message = f"the parameter `{name}` needs a value"
            report.add(
                Diagnostic(
                    Code.MISSING_ARGUMENT, message, (Label(parameter.name.span),), f"give one with `--set {name}=...`"
                )
            )
    if report.failed:
        return body
    body.kind = "network"
    with report.until_abort():
        body.bind_parameters(declaration.parameters, settings)
        body.run(declaration.body)
    if not body.output_spans and not report.aborted:
        span = declaration.name.span
        report.add(
            Diagnostic(
                Code.NO_OUTPUT,
                f"the network `{declaration.name.name}` has no output",
                (Label(span),),
                "end it with `output name`",
            )
        )
    if not builder.inputs and not report.failed:
        report.add(
            Diagnostic(
                Code.NO_OUTPUT, f"the network `{declaration.name.name}` has no input", (Label(declaration.name.span),)
            )
        )
    body.warn_unused()
    return body


def _finish(body: Body, declaration: tree.Network) -> Network:
    """Leave out what no output needs, and check that every symbolic size can be known."""
    builder = body.builder
    nodes = reachable(builder.nodes, [o.value for o in body.outputs])
    used = {w for node in nodes for w in node.weights.values()}
    kept = {n.name for n in nodes}
    covered = {(d.labels[0].span.start, d.labels[0].span.source.path) for d in body.report.diagnostics}
    warned = any(d.code is Code.UNUSED for d in body.report.diagnostics)
    for node in builder.nodes:
        span = builder.spans[node.name]
        if (
            node.name not in kept
            and node.name not in builder.quiet
            and not warned
            and (span.start, span.source.path) not in covered
        ):
            body.report.warn(Code.UNUSED, f"the layer `{node.name}` reaches no output and is left out", span)
    for input_ in builder.inputs.values():
        for dim in input_.type.shape:
            plain = {str(d) for i in builder.inputs.values() for d in i.type.shape}
            if missing := sorted(symbols(dim) - plain):
                body.report.add(
                    Diagnostic(
                        Code.SHAPE_MISMATCH,
                        f"the size `{missing[0]}` stands in an expression only, so it cannot be read off the data",
                        (Label(declaration.name.span),),
                        f"declare an input that has `{missing[0]}` as a dim of its own",
                    )
                )
    return Network.model_construct(
        name=declaration.name.name,
        inputs=tuple(builder.inputs.values()),
        weights=tuple(w for w in builder.weights.values() if w.name in used),
        nodes=tuple(nodes),
        outputs=tuple(body.outputs),
        masks=dict(builder.masks),
        version=1,
    )


def reachable(nodes: list[Node], wanted: list[str]) -> list[Node]:
    """Return the nodes that the wanted values need, in order."""
    needed = set(wanted)
    kept = []
    for node in reversed(nodes):
        if any(node.output(i) in needed for i in range(len(node.outputs))):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]
