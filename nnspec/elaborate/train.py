"""Train blocks: the loss and metrics as further nodes of the network, the settings as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from nnspec.diagnostics import Code, Diagnostic, Label, SpecError, suggest
from nnspec.elaborate.bind import Argument, construct, words
from nnspec.elaborate.body import Body
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.environment import Environment
from nnspec.elaborate.modules import Module
from nnspec.elaborate.report import Report
from nnspec.elaborate.values import POISON, Builtin, LayerFactory, Poison, RecipeFactory, Tensor, Word, describe
from nnspec.ir import Network, Output, registry
from nnspec.recipe import Recipe, Setting
from nnspec.recipe import registry as setting_registry
from nnspec.source import Span
from nnspec.syntax import tree

_SLOTS = ("optimizer", "schedule", "regularize", "clip", "stop")
_PLAIN = ("batch", "epochs", "seed", "carry", "precision")
_EXAMPLES = {"loss": "loss = cross_entropy(logits, label)", "optimizer": "optimizer = adam(lr = 0.001)"}
"""The settings that a train block must have."""
SETTINGS = ("loss", *_SLOTS, *_PLAIN)
"""Every setting of a train block, besides its targets and metrics."""


def pick_train(module: Module, network: str | None, train: str | None) -> tree.Train:
    """Return a file's train block by name or network, or its only one; raise SpecError where that is not clear."""
    span = Span(module.source, 0, min(1, len(module.source.text)))

    def name(block: tree.Train) -> str:
        return (block.name or block.network).name

    def fail(code: Code, message: str, help: str = "") -> SpecError:
        return SpecError([Diagnostic(code, message, (Label(span),), help)])

    blocks = [b for b in module.trains if network in (None, b.network.name) and train in (None, name(b))]
    if len(blocks) == 1:
        return blocks[0]
    if blocks:
        names = ", ".join(name(b) for b in blocks)
        twins = [b for b in blocks if name(b) == name(blocks[0])]
        if len(twins) > 1:
            labels = tuple(Label((b.name or b.network).span) for b in reversed(twins))
            raise SpecError(
                [
                    Diagnostic(
                        Code.DUPLICATE_NAME,
                        f"two train blocks are called `{name(twins[0])}`",
                        labels,
                        f"name one: `train {twins[1].network.name} as finetune`",
                    )
                ]
            )
        raise fail(
            Code.AMBIGUOUS,
            f"{module.source.path} declares several train blocks: {names}",
            "name one with `--block NAME`",
        )
    wanted = f" called `{train}`" if train else ""
    of = f" for the network `{network}`" if network else ""
    raise fail(
        Code.NO_NETWORK,
        f"{module.source.path} declares no train block{wanted}{of}",
        suggest(train or network or "", [name(b) for b in module.trains], what="train blocks")
        or "add one: `train Name { target ...  loss = ...  optimizer = ... }`",
    )


class TrainBody(Body):
    """Evaluates a train block: losses, metrics and the settings' own names are known here."""

    def __init__(self, report: Report, builder: Builder, environment: Environment, scope: Scope, library: Any) -> None:
        super().__init__(report, builder, environment, scope, library)
        self.training = True
        self.slot: str | None = None

    def lookup_layer(self, e: tree.Name) -> Any:
        # What stands at a setting is no layer: its own names are the ones to list.
        return super().lookup_layer(e) if self.slot is None else self.lookup(e)

    def builtin(self, name: str) -> Any:
        if self.slot is not None:
            setting = setting_registry().get(name)
            if setting is not None and setting.slot == self.slot:
                return RecipeFactory(setting)
        return super().builtin(name)

    def _known(self, name: str) -> str:
        if self.slot is None:
            return super()._known(name)
        fitting = [k for k, setting in setting_registry().items() if setting.slot == self.slot]
        return suggest(name, fitting, what=f"values of `{self.slot}`")


def run_train(body: Body, base: Network, block: tree.Train, declaration: tree.Network) -> Recipe | None:
    """Return a train block's recipe, or None with the errors in the report."""
    report, builder = body.report, body.builder
    builder.nodes = list(base.nodes)
    environment = Environment(body.environment.parent)
    types = base.types()
    for parameter in declaration.parameters:
        environment.bind(parameter.name.name, body.environment.bindings[parameter.name.name].value, parameter.name.span)
    for known in base.inputs:
        declared = body.environment.bindings.get(known.name)
        span = declared.span if declared is not None and declared.span is not None else declaration.name.span
        environment.bind(known.name, Tensor(known.name, known.type, span), span)
    for output in base.outputs:
        span = body.output_spans[output.name]
        environment.bind(output.name, Tensor(output.value, types[output.value], span), span)
    train = TrainBody(report, builder, environment, Scope("", "train."), body.library)
    settings: dict[str, tree.Assign] = {}
    targets: list[str] = []
    metrics: dict[str, tree.Metric] = {}
    for s in block.body:
        match s:
            case tree.Target():
                _target(train, s, targets)
            case tree.Metric():
                if _once(report, metrics, s.name, s, "metric"):
                    metrics[s.name.name] = s
            case tree.Assign() if len(s.targets) == 1 and s.targets[0].name in SETTINGS:
                if _once(report, settings, s.targets[0], s, "setting"):
                    settings[s.targets[0].name] = s
            case tree.Assign():
                for ident in s.targets:
                    help = suggest(ident.name, SETTINGS, what="settings")
                    report.add(
                        report.fail(
                            Code.UNKNOWN_SETTING, f"a train block has no setting `{ident.name}`", ident.span, help=help
                        ).diagnostic
                    )
            case _:
                report.add(
                    report.fail(
                        Code.MISPLACED,
                        "this does not belong into a train block",
                        s.span,
                        help="it holds targets, metrics and settings",
                    ).diagnostic
                )
    if missing := [s for s in _EXAMPLES if s not in settings]:
        message = "the train block has no " + " and no ".join(f"`{m}`" for m in missing)
        help = "add " + " and ".join(f"`{_EXAMPLES[m]}`" for m in missing)
        report.add(report.fail(Code.MISSING_SETTING, message, block.network.span, help=help).diagnostic)
    loss = _scalar(train, settings["loss"].value, "loss") if "loss" in settings else POISON
    outputs = []
    for name, metric in metrics.items():
        value = _scalar(train, metric.value, f"metric `{name}`")
        if not isinstance(value, Poison):
            outputs.append(Output(name=name, value=value.ref))
    fields = _settings(train, settings, metrics)
    for target in targets:
        if not environment.bindings[target].used and not report.failed:
            where = environment.bindings[target].span
            assert where is not None
            report.warn(
                Code.UNUSED,
                f"the target `{target}` is never used",
                where,
                help="use it in the loss or a metric, or remove it",
            )
    if report.failed or isinstance(loss, Poison):
        return None
    wanted = [o.value for o in base.outputs] + [loss.ref] + [o.value for o in outputs]
    network = _extended(base, builder, wanted)
    try:
        return Recipe(
            name=(block.name or block.network).name,
            network=network,
            targets=tuple(targets),
            loss=loss.ref,
            metrics=tuple(outputs),
            **fields,
        )
    except ValidationError as error:
        for item in error.errors(include_url=False):
            message = item["msg"].removeprefix("Value error, ")
            where = settings["stop"].value.span if "stop watches" in message else block.network.span
            names = ["loss", *metrics] if "stop watches" in message else []
            help = suggest("", names, what="it can watch") if names else ""
            report.add(
                report.fail(Code.UNKNOWN_NAME if names else Code.OUT_OF_RANGE, message, where, help=help).diagnostic
            )
        return None


def _extended(base: Network, builder: Builder, wanted: list[str]) -> Network:
    from nnspec.elaborate import reachable

    nodes = reachable(builder.nodes, wanted)
    used = {w for node in nodes for w in node.weights.values()}
    return Network.model_construct(
        name=base.name,
        inputs=tuple(builder.inputs.values()),
        weights=tuple(w for w in builder.weights.values() if w.name in used),
        nodes=tuple(nodes),
        outputs=base.outputs,
        masks=dict(builder.masks),
        version=1,
    )


def _once(report: Report, known: Mapping[str, tree.Statement], ident: tree.Ident, s: tree.Statement, what: str) -> bool:
    if ident.name not in known:
        return True
    report.add(
        report.fail(
            Code.DUPLICATE_NAME,
            f"the {what} `{ident.name}` is given twice",
            ident.span,
            others=[Label(known[ident.name].span, "given here first")],
        ).diagnostic
    )
    return False


def _target(train: TrainBody, s: tree.Target, targets: list[str]) -> None:
    name = s.name.name
    known = train.environment.bindings.get(name)
    if known is not None:
        what = "an input" if name in train.builder.inputs else "an output or a parameter"
        others = [Label(known.span, "declared here")] if known.span else []
        train.report.add(
            train.report.fail(
                Code.DUPLICATE_NAME, f"the target `{name}` has the name of {what}", s.name.span, others=others
            ).diagnostic
        )
        return
    value = train.guard(train.declare_input, s.name, s.type, s.masked, "the target")
    train.environment.bind(name, value, s.name.span)
    targets.append(name)


def _scalar(train: TrainBody, e: tree.Expr, what: str) -> Tensor | Poison:
    """Return a loss or metric as one number for the whole batch."""

    def work() -> Tensor:
        value = train.tensor(train.evaluate(e), e.span)
        t = value.type
        if t.dtype != "float32" or t.shape:
            raise train.report.fail(
                Code.TARGET,
                f"the {what} must be one number, and is {t}",
                e.span,
                help="`mean` or `sum` makes one number of a tensor"
                if t.dtype == "float32"
                else "it must be a real number",
            )
        if t.batch:
            result = train.builder.node(registry()["batch_mean"](), [value], train.scope, e.span)
            assert isinstance(result, Tensor)
            return result
        return value

    result = train.guard(work)
    assert isinstance(result, Tensor | Poison)
    return result


def _settings(
    train: TrainBody, settings: Mapping[str, tree.Assign], metrics: Mapping[str, tree.Metric]
) -> dict[str, Any]:
    """Return the recipe's fields for the settings that are given."""
    fields: dict[str, Any] = {}
    for name, s in settings.items():
        if name == "loss":
            continue
        if name in _PLAIN:
            value = train.guard(_plain, train, name, s.value)
        elif name == "regularize":
            value = train.guard(_several, train, s.value)
        else:
            value = train.guard(_one, train, name, s.value, metrics if name == "stop" else {})
        if not isinstance(value, Poison):
            fields[name] = value
    return fields


def _plain(train: TrainBody, name: str, e: tree.Expr) -> Any:
    """Return a number, switch or word, checked as the recipe declares it."""
    info = Recipe.model_fields[name]
    choices = sorted(words(info.annotation))
    if choices and isinstance(e, tree.Name):
        if e.name not in choices:
            help = suggest(e.name, choices, what=f"values of `{name}`")
            raise train.report.fail(Code.UNKNOWN_NAME, f"`{name}` cannot be `{e.name}`", e.span, help=help)
        return e.name
    model: type[BaseModel] = create_model(f"Setting_{name}", **{name: (info.annotation, info)})  # type: ignore[call-overload]
    value = train.evaluate(e)
    made, _ = construct(train.report, "train", model, [Argument(name, value, e.span)], e.span)
    return getattr(made, name)


def _one(train: TrainBody, slot: str, e: tree.Expr, metrics: Mapping[str, tree.Metric]) -> Setting:
    """Return an optimizer, schedule, clip or stop."""
    train.slot = slot
    outer = train.environment
    train.environment = Environment(outer)
    for name in ("loss", *metrics) if slot == "stop" else ():
        train.environment.bind(name, Word(name))
    try:
        value = train.evaluate(e)
    finally:
        train.slot, train.environment = None, outer
    return _setting(train, slot, value, e)


def _setting(train: TrainBody, slot: str, value: Any, e: tree.Expr) -> Setting:
    if isinstance(value, RecipeFactory):
        value = construct(train.report, value.kind.keyword, value.kind, [], e.span)[0]
    if isinstance(value, Setting) and value.slot == slot:
        return value
    known = [k for k, cls in setting_registry().items() if cls.slot == slot]
    what = describe(value) if not isinstance(value, Setting) else f"the {value.slot} `{value.keyword}`"
    if isinstance(value, LayerFactory | Builtin):
        what = describe(value)
    raise train.report.fail(
        Code.WRONG_TYPE,
        f"`{slot}` is {what}",
        e.span,
        help=f"expected one of {', '.join(sorted(known))}; `nnspec layers NAME` explains each",
    )


def _several(train: TrainBody, e: tree.Expr) -> tuple[Setting, ...]:
    """Return one or several regularisers."""
    if isinstance(e, tree.ListExpr):
        return tuple(_one(train, "regularize", item, {}) for item in e.items)
    return (_one(train, "regularize", e, {}),)
