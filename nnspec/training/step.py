"""The training step: forward, loss, metrics, backward and update in one graph; and its eval and predict graphs.

`build` is the whole pipeline on one screen; the parts below it are in the order in which it calls them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from nnspec import initializers
from nnspec.autodiff import differentiate
from nnspec.ir import Network, Weight
from nnspec.lower import BATCH, Lowered, finish_outputs, lower
from nnspec.ops import IR_VERSION, OPSET, PORTABLE, Ops, Target
from nnspec.recipe import Recipe, Time
from nnspec.training.blocked import use_blocks
from nnspec.training.in_place import write_in_place
from nnspec.training.joined import join, part, small
from nnspec.training.last_step import read_final_states
from nnspec.training.manifest import State, describe, figures, network_to_predict
from nnspec.training.pool_first import pool_first
from nnspec.training.precision import PRECISIONS, halve, protect, single
from nnspec.training.program import Program, Start
from nnspec.training.random import Random
from nnspec.training.recompute import recompute
from nnspec.training.scaling import LossScale
from nnspec.training.simplify import simplify
from nnspec.training.sizes import read_sizes_off_inputs
from nnspec.training.sums import sum_by_products
from nnspec.training.timeline import least_memory
from nnspec.training.transposed import transpose_before
from nnspec.training.work import work

_EXPONENT, _GOOD, _UPDATES = "loss_scale.exponent", "loss_scale.good_steps", "updates"
"""Counters of the state where the loss is scaled."""
_MOVED = ("weight", "optimizer")
"""Kinds of state that the optimizer moves."""


def build(recipe: Recipe, target: Target = PORTABLE) -> Program:
    """Return the training program of a recipe; its step is made for `target`, which other runtimes may not take.

    Raise GradientError where an operator on the way from the loss to a weight has no gradient rule.
    """
    # What a CPU alone has, it has for float32 alone.
    target = PORTABLE if target.alone and recipe.precision != "float32" else replace(target, batch=recipe.batch)
    step, states = _step(recipe, target)
    evaluate = _evaluate(recipe, states)
    predict = _predict(recipe.network)
    initial = Start({s.name: s.start for s in states if s.start is not None})
    manifest = {**describe(recipe, states), "work": _work(recipe, step.graph, states, target)}
    return Program(manifest, step, evaluate, predict, initial)


def _work(recipe: Recipe, step: ir.Graph, states: list[State], target: Target) -> dict[str, int | bool] | None:
    sizes = {BATCH: recipe.batch}
    done = work(step, sizes)
    if done is None:
        return None
    written = {s.output for s in states if s.output is not None}
    reuse, region = least_memory(step, written, sizes) if target.alone else (True, 0)
    return {**done, "reuse": reuse, "region": region}


@dataclass
class _Builder:
    """The step graph under construction, with its state."""

    recipe: Recipe
    states: list[State] = field(default_factory=list)
    values: dict[str, ir.Value] = field(default_factory=dict)
    """The state's inputs by state name."""

    def __post_init__(self) -> None:
        network = self.recipe.network
        self._taken = {i.name for i in network.inputs} | {w.name for w in network.weights}

    def name(self, wanted: str) -> str:
        """Return a name that no data input, weight or earlier state has."""
        while wanted in self._taken:
            wanted = f"{wanted}_"
        self._taken.add(wanted)
        return wanted

    def scalar(self, wanted: str, kind: str, start: int) -> ir.Value:
        """Return an int64 scalar of the state."""
        if wanted not in self.values:
            name = self.name(wanted)
            self.values[wanted] = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
            output = self.name(f"{name}.next") if kind == "counter" else None
            self.states.append(State(wanted, name, output, "int64", (), kind, partial(np.array, start, np.int64)))
        return self.values[wanted]

    def weight(self, weight: Weight, value: ir.Value, kind: str, changes: bool) -> None:
        """Enter a weight or buffer into the state."""
        drawn_from = (weight.init, weight.shape, weight.fan, weight.name, self.recipe.seed)
        start = partial(initializers.sample, *drawn_from)
        output = self.name(f"{weight.name}.next") if changes else None
        self.values[weight.name] = value
        self.states.append(State(weight.name, weight.name, output, "float32", weight.shape, kind, start))

    def carried(self, name: str, value: ir.Value) -> None:
        """Enter a recurrent state that goes on from batch to batch; it starts at zero."""
        assert value.name is not None
        assert value.shape is not None
        shape = tuple(d if isinstance(d, int) else str(d) for d in value.shape)
        self.values[name] = value
        self.states.append(State(name, value.name, self.name(f"{name}.next"), "float32", shape, "carry"))

    def slot(self, owner: str, shape: tuple[int, ...], slot: str) -> ir.Value:
        """Return a tensor that the optimizer keeps for a weight, or for several that are joined."""
        name = self.name(f"{owner}.{slot}")
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        self.values[name] = value
        start = partial(np.zeros, shape, np.float32)
        self.states.append(State(name, name, self.name(f"{name}.next"), "float32", shape, "optimizer", start))
        return value


def _step(recipe: Recipe, target: Target) -> tuple[ir.Model, list[State]]:
    builder = _Builder(recipe)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=recipe.name)
    ops = Ops(graph, target=target)
    seed = builder.scalar("seed", "constant", recipe.seed)
    step = builder.scalar("step", "counter", 0)
    random = Random(ops, seed, step)
    wanted = _figure_values(recipe).values()
    lowered = lower(recipe.network, training=True, uniform=random, carry=recipe.carry, ops=ops, wanted=wanted)
    lowered = _mixed(recipe, lowered)
    ops = lowered.ops
    kept = [lowered.values[name] for name in wanted]
    kept += [*lowered.updates.values(), *(after for _, after in lowered.carries.values())]
    pool_first(graph, kept)
    read_final_states(graph, kept)
    scale = _loss_scale(recipe, builder, ops)
    moving = _backward(recipe, lowered, scale)
    for weight in recipe.network.weights:
        kind = "buffer" if weight.kind == "buffer" else "weight" if weight.name in moving else "frozen"
        changes = weight.name in moving or weight.name in lowered.updates
        builder.weight(weight, lowered.weights[weight.name], kind, changes)
    for name, (before, _) in lowered.carries.items():
        builder.carried(name, before)
    results = {**lowered.updates, **{name: after for name, (_, after) in lowered.carries.items()}}
    results |= _update(recipe, builder, ops, lowered, step, list(moving.values()), scale)
    results["step"] = ops.Add(step, ops.constant(np.array(1, np.int64)))
    outputs = _figure_outputs(recipe, lowered)
    for state in builder.states:
        if state.output is not None:
            outputs[state.output] = results[state.name]
    used = _finish(lowered, outputs, builder.values.values(), target)
    builder.states = [s for s in builder.states if s.input in used or s.kind in ("weight", "frozen", "buffer")]
    if target.alone:
        moving_on = [(builder.values[s.name], s.output) for s in builder.states if s.kind in _MOVED and s.output]
        one_buffer = write_in_place(lowered.graph, moving_on)
        builder.states = [replace(s, in_place=s.input in one_buffer) for s in builder.states]
    return _model(lowered), builder.states


def gradients(recipe: Recipe) -> ir.Model:
    """Return the graph of loss and gradients alone: a batch and the weights give `loss` and each weight's `NAME.grad`.

    Random layers read the int64 scalars `seed` and `step`, as in the step graph.
    """
    builder = _Builder(recipe)
    ops = Ops(ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=recipe.name))
    random = Random(ops, builder.scalar("seed", "constant", recipe.seed), builder.scalar("step", "counter", 0))
    wanted = [recipe.loss]
    lowered = lower(recipe.network, training=True, uniform=random, ops=ops, wanted=wanted)
    lowered = _mixed(recipe, lowered)
    outputs = {"loss": lowered.values[recipe.loss]}
    outputs |= {f"{name}.grad": g for name, (_, g) in _backward(recipe, lowered).items()}
    _finish(lowered, outputs, [*lowered.weights.values(), *builder.values.values()])
    return _model(lowered)


def _mixed(recipe: Recipe, lowered: Lowered) -> Lowered:
    """Let a forward graph run in the recipe's precision; loss, metrics and whatever is kept are float32 again."""
    if recipe.precision == "float32":
        return lowered
    graph = lowered.graph
    halve(graph, PRECISIONS[recipe.precision], [lowered.values[i.name] for i in recipe.network.inputs])
    values = dict(lowered.values)
    figured = {*_figure_values(recipe).values(), recipe.loss} & values.keys()
    values |= {name: single(graph, values[name]) for name in sorted(figured)}
    return replace(
        lowered,
        ops=Ops(graph, target=lowered.ops.target),  # the old one remembers nodes by the inputs that they had
        values=values,
        updates={name: single(graph, v) for name, v in lowered.updates.items()},
        carries={name: (before, single(graph, after)) for name, (before, after) in lowered.carries.items()},
    )


def _loss_scale(recipe: Recipe, builder: _Builder, ops: Ops) -> LossScale | None:
    if recipe.precision != "float16":
        return None
    return LossScale(ops, builder.scalar(_EXPONENT, "counter", 0), builder.scalar(_GOOD, "counter", 0))


def _backward(recipe: Recipe, lowered: Lowered, scale: LossScale | None = None) -> dict[str, tuple[Weight, ir.Value]]:
    """Append the gradients of the loss by each trained weight; leave out weights that the loss does not depend on."""
    trained = [w for w in recipe.network.weights if w.kind == "weight" and w.trainable]
    weights = [lowered.weights[w.name] for w in trained]
    mark = len(lowered.graph)
    found = differentiate(lowered.ops, lowered.values[recipe.loss], weights, None if scale is None else scale.value)
    recompute(lowered.ops, mark, [lowered.values[i.name] for i in recipe.network.inputs])
    if recipe.precision != "float32":
        found = protect(lowered.graph, PRECISIONS[recipe.precision], found)
    return {w.name: (w, g) for w, g in zip(trained, found, strict=True) if g is not None}


def _update(
    recipe: Recipe,
    builder: _Builder,
    ops: Ops,
    lowered: Lowered,
    step: ir.Value,
    moving: list[tuple[Weight, ir.Value]],
    loss_scale: LossScale | None,
) -> dict[str, ir.Value]:
    """Append clipping, regularisation and the optimizer; return what each state holds after the step."""
    if not moving:
        return {}
    gradients = [g for _, g in moving]
    if loss_scale is not None:
        gradients = loss_scale.unscale(gradients)
        # For the optimizer and the schedule, a step that is skipped never was.
        step = builder.scalar(_UPDATES, "counter", 0)
    if recipe.clip is not None:
        gradients = recipe.clip.apply(ops, gradients)

    def given(name: str, start: int) -> ir.Value:
        return ops.Cast(builder.scalar(name, "constant", start), to=int(ir.DataType.DOUBLE))  # type: ignore[no-any-return]

    time = Time(
        ops,
        step,
        per_epoch=lambda: given("steps_per_epoch", 1),
        epochs=lambda: given("epochs", recipe.epochs),
    )
    scale = recipe.schedule.scale(time) if recipe.schedule is not None else None
    scalars = recipe.optimizer.scalars(time, scale)
    gradients = [_penalised(recipe, ops, lowered, w, g) for (w, _), g in zip(moving, gradients, strict=True)]
    results: dict[str, ir.Value] = {}
    for number, group in enumerate(_groups(recipe, [w for w, _ in moving]), 1):
        weights = [moving[i][0] for i in group]
        shapes = [w.shape for w in weights]
        values, along = [lowered.weights[w.name] for w in weights], [gradients[i] for i in group]
        joined = len(group) > 1
        value, gradient = (join(ops, v, shapes) if joined else v[0] for v in (values, along))
        owner, shape = (f"joined{number}", (sum(map(math.prod, shapes)),)) if joined else (weights[0].name, shapes[0])
        slots = {slot: builder.slot(owner, shape, slot) for slot in recipe.optimizer.slots()}
        after, state = recipe.optimizer.update(ops, value, gradient, slots, scalars, decay=weights[0].decay)
        results |= zip((w.name for w in weights), part(ops, after, shapes) if joined else [after], strict=True)
        for slot, kept in state.items():
            name = slots[slot].name
            assert name is not None
            results[name] = kept
    if loss_scale is not None:
        results[_UPDATES] = ops.Add(step, ops.constant(1))
        results = {name: loss_scale.kept(builder.values[name], after) for name, after in results.items()}
        results[_EXPONENT], results[_GOOD] = loss_scale.counters()
    return results


def _penalised(recipe: Recipe, ops: Ops, lowered: Lowered, weight: Weight, gradient: ir.Value) -> ir.Value:
    for penalty in recipe.regularize if weight.decay else ():
        gradient = penalty.add(ops, lowered.weights[weight.name], gradient)
    return gradient


def _groups(recipe: Recipe, weights: list[Weight]) -> list[list[int]]:
    """Return which weights the optimizer moves together, by their numbers.

    Without state it has so few passes that joining does not pay.
    """
    optimizer = recipe.optimizer
    groups: dict[object, list[int]] = {}
    for i, weight in enumerate(weights):
        joins = bool(optimizer.slots()) and small(weight.shape)
        key: object = (weight.decay and optimizer.decays,) if joins else i
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def _evaluate(recipe: Recipe, states: list[State]) -> ir.Model:
    lowered = lower(recipe.network, carry=recipe.carry, wanted=_figure_values(recipe).values())
    outputs = _figure_outputs(recipe, lowered)
    outputs |= {s.output: lowered.carries[s.name][1] for s in states if s.kind == "carry" and s.output is not None}
    carried = [before for before, _ in lowered.carries.values()]
    _finish(lowered, outputs, [*lowered.weights.values(), *carried])
    return _model(lowered)


def _predict(network: Network) -> ir.Model:
    lowered = lower(network_to_predict(network))
    outputs = {o.name: lowered.values[o.value] for o in network.outputs}
    _finish(lowered, outputs, lowered.weights.values())
    return _model(lowered)


def _figure_outputs(recipe: Recipe, lowered: Lowered) -> dict[str, ir.Value]:
    return {output: lowered.values[value] for output, value in _figure_values(recipe).items()}


def _figure_values(recipe: Recipe) -> dict[str, str]:
    """Return the network's value that each output for loss and metrics holds."""
    values: dict[str, str] = {}
    for figure, value in figures(recipe):
        values[figure.output] = value
        if figure.weight is not None and figure.count is not None:
            values[figure.weight] = figure.count
    return values


def _finish(
    lowered: Lowered, outputs: Mapping[str, ir.Value], state: Iterable[ir.Value], target: Target = PORTABLE
) -> set[str]:
    """Give the graph its outputs and those of its inputs that it uses; return the names of the inputs."""
    graph = lowered.graph
    for value in state:
        if value not in graph.inputs:
            graph.inputs.append(value)
    finish_outputs(lowered, outputs)
    simplify(graph)
    read_sizes_off_inputs(graph)  # what asks for a size alone is no reader
    if target.block:
        use_blocks(graph, target)
    if target.cpu:
        sum_by_products(graph)
        transpose_before(graph)
    read_sizes_off_inputs(graph)
    simplify(graph)
    unused = [v for v in graph.inputs if not v.uses() and v not in graph.outputs]
    for value in unused:
        graph.inputs.remove(value)
    return {v.name for v in graph.inputs if v.name}


def _model(lowered: Lowered) -> ir.Model:
    return ir.Model(lowered.graph, ir_version=IR_VERSION, producer_name="nnspec")
