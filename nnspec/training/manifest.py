"""The manifest: every input, state and output of a training program by name, as plain data for a JSON file.

`runtime/README.md` documents the format.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from nnspec.ir import Network, Node, TensorType
from nnspec.layers.ctc import Ctc
from nnspec.layers.dense import Embedding, OneHot
from nnspec.layers.scoring import Score
from nnspec.lower import BATCH
from nnspec.recipe import Recipe
from nnspec.recipe.stops import Patience
from nnspec.training.program import FORMAT, VERSION

_MOVERS = frozenset("reshape flatten squeeze unsqueeze transpose slice split concat reverse repeat last".split())  # noqa: SIM905
"""Layers that move integers without changing them."""


@dataclass(frozen=True)
class State:
    """A tensor that lives from step to step; `start` makes its first value, zeros where there is none."""

    name: str
    input: str
    output: str | None
    dtype: str
    shape: tuple[int | str, ...]
    kind: str
    start: Callable[[], NDArray[Any]] | None = None
    in_place: bool = False
    """Whether input and output may be one buffer."""


@dataclass(frozen=True)
class Figure:
    """The loss or a metric: the graphs' output, and the output and value that hold how many elements it averages."""

    name: str
    output: str
    goal: str | None
    weight: str | None = None
    count: str | None = None


def figures(recipe: Recipe) -> list[tuple[Figure, str]]:
    """Return the loss and the metrics, each with the value that holds it."""
    taken = {i.name for i in recipe.network.inputs} | {w.name for w in recipe.network.weights}
    producers = {node.output(i): node for node in recipe.network.nodes for i in range(len(node.outputs))}
    found = []
    for name, value in (("loss", recipe.loss), *((m.name, m.value) for m in recipe.metrics)):
        output = name
        while output in taken:
            output = f"train.{output}"
        taken.add(output)
        scores = _scores(value, producers)
        count = _count(scores, recipe.network)
        weight = f"{output}.count" if count is not None else None
        found.append((Figure(name, output, _goal(name, value, producers), weight, count), value))
    return found


def _scores(value: str, producers: dict[str, Node]) -> list[Node]:
    """Return the losses and metrics that a value is computed from, without what those are computed from."""
    found: dict[str, Node] = {}
    open_, seen = [value], set()
    while open_:
        node = producers.get(open_.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if isinstance(node.layer, Score):
            found[node.name] = node
        else:
            open_.extend(node.inputs)
    return list(found.values())


def _count(scores: list[Node], network: Network) -> str | None:
    """Return the value that counts what a figure averages; None where each sample counts once.

    Losses with equal counts, such as two that are summed over the same steps, share one. Where the counts differ no
    single weight is right, and samples count once.
    """
    counts = [node.output(1) for node in scores if len(node.outputs) > 1]
    if not counts or len(counts) != len(scores):
        return None
    types = network.types()
    shapes = {(_counted(node, types), node.layer.ignored()) for node in scores if isinstance(node.layer, Score)}
    labels = {node.inputs[1] for node in scores}
    same = len(shapes) == 1 and (len(labels) == 1 or next(iter(shapes))[1] is None)
    return counts[0] if len(counts) == 1 or same else None


def _counted(node: Node, types: dict[str, TensorType]) -> tuple[Any, ...]:
    assert isinstance(node.layer, Score)
    return node.layer.counted(*(types[v] for v in node.inputs)).shape


def _goal(name: str, value: str, producers: dict[str, Node]) -> str | None:
    if name == "loss":
        return "min"
    node = producers.get(value)
    return node.layer.goal if node is not None and isinstance(node.layer, Score) else None


def describe(recipe: Recipe, states: list[State]) -> dict[str, Any]:
    """Return the manifest of a recipe's program, without the names of its files."""
    network = recipe.network
    loss, *metrics = (figure for figure, _ in figures(recipe))
    return {
        "format": FORMAT,
        "version": VERSION,
        "network": network.name,
        "train": recipe.name,
        "inputs": inputs_of(network, recipe.targets),
        "state": [
            {
                "name": s.name,
                "input": s.input,
                "output": s.output,
                "dtype": s.dtype,
                "shape": list(s.shape),
                "kind": s.kind,
                "in_place": s.in_place,
            }
            for s in states
        ],
        "loss": _figure(loss),
        "metrics": [_figure(metric) for metric in metrics],
        "outputs": outputs_of(network),
        "settings": {
            "batch": recipe.batch,
            "epochs": recipe.epochs,
            "seed": recipe.seed,
            "stop": {"patience": recipe.stop.epochs, "metric": recipe.stop.metric, "min_delta": recipe.stop.min_delta}
            if isinstance(recipe.stop, Patience)
            else None,
            "carry": recipe.carry,
            "precision": recipe.precision,
            "bucket": bool(network.masks),
        },
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"name": figure.name, "output": figure.output, "weight": figure.weight, "goal": figure.goal}


def _shape(type_: TensorType) -> list[int | str]:
    dims = [d if isinstance(d, int) else str(d) for d in type_.shape]
    return [BATCH, *dims] if type_.batch else dims


def outputs_of(network: Network) -> list[dict[str, Any]]:
    """Return what a manifest says of the outputs of a network."""
    types = network.types()
    return [{"name": o.name, "dtype": types[o.value].dtype, "shape": _shape(types[o.value])} for o in network.outputs]


def inputs_of(network: Network, targets: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return what a manifest says of the data of a network."""
    limits = value_limits(network)
    of = {i.lengths: i.name for i in reversed(network.inputs) if i.lengths is not None}
    described = []
    for i in network.inputs:
        role = "lengths" if i.name in of else "target" if i.name in targets else "input"
        entry: dict[str, Any] = {"name": i.name, "dtype": i.type.dtype, "shape": _shape(i.type), "role": role}
        entry["lengths"] = i.lengths
        if role == "lengths":
            entry["of"] = of[i.name]
        entry["classes"] = limits.get(i.name)
        if (alignment := _alignment(network, i.name)) is not None:
            entry["alignment"] = alignment
        described.append(entry)
    return described


def _alignment(network: Network, label: str) -> dict[str, Any] | None:
    """Return what a CTC loss makes of a label: the steps that it is aligned with, and the blank."""
    for node in network.nodes:
        if isinstance(node.layer, Ctc) and node.inputs[1] == label:
            steps = network.types()[node.inputs[0]].shape[0]
            return {
                "steps": steps if isinstance(steps, int) else str(steps),
                "blank": node.layer.blank,
                "zero_infinity": node.layer.zero_infinity,
            }
    return None


def value_limits(network: Network) -> dict[str, int]:
    """Return for each integer input how many values it may have, counted from 0, as far as layers limit them."""
    values = {i.name: i.classes for i in network.inputs if i.classes is not None}
    types = network.types()
    for node in reversed(network.nodes):
        for name, limit in _limits_of(node, types, values):
            if types[name].dtype == "int64":
                values[name] = min(limit, values.get(name, limit))
    return {i.name: values[i.name] for i in network.inputs if i.name in values}


def _limits_of(node: Node, types: dict[str, TensorType], values: dict[str, int]) -> list[tuple[str, int]]:
    layer = node.layer
    if isinstance(layer, Embedding):
        return [(node.inputs[0], layer.vocabulary)]
    if isinstance(layer, OneHot):
        return [(node.inputs[0], layer.classes)]
    if isinstance(layer, Score):
        limit = layer.classes(*(types[v] for v in node.inputs))
        return [(node.inputs[1], limit)] if limit is not None else []
    if layer.keyword in _MOVERS:
        given = [values[node.output(i)] for i in range(len(node.outputs)) if node.output(i) in values]
        return [(name, min(given)) for name in node.inputs] if given else []
    return []


def network_to_predict(network: Network) -> Network:
    """Return the part of a network that its outputs need."""
    needed = {o.value for o in network.outputs}
    nodes = []
    for node in reversed(network.nodes):
        if any(node.output(i) in needed for i in range(len(node.outputs))):
            nodes.append(node)
            needed.update(node.inputs)
    weights = {name for node in nodes for name in node.weights.values()}
    symbols = {s for node in nodes for t in node.outputs for s in t.symbols}
    lengths = {network.masks[s] for s in symbols if s in network.masks}
    lengths |= {i.lengths for i in network.inputs if i.name in needed and i.lengths is not None}
    inputs = tuple(i for i in network.inputs if i.name in needed or i.name in lengths)
    return network.model_copy(
        update={
            "inputs": inputs,
            "weights": tuple(w for w in network.weights if w.name in weights),
            "nodes": tuple(reversed(nodes)),
            "masks": {s: name for s, name in network.masks.items() if name in {i.name for i in inputs}},
        }
    )
