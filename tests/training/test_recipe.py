"""Settings: their registry, arguments and JSON; schedules, clips and regularisers against NumPy."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from nnspec.ops import IR_VERSION, OPSET, Ops
from nnspec.recipe import Clip, Recipe, Regularizer, Schedule, Setting, Time, registry
from tests.training.cases import Array, draw
from tests.training.programs import Graph, recipe_of

TEXT = """
network N {{ input x: [4] output y = x -> dense(3) }}
train N {{ target t: int loss = cross_entropy(y, t) metric accuracy = accuracy(y, t) {settings} }}
"""


def compiled(settings: str) -> Recipe:
    return recipe_of(TEXT.format(settings=settings))


EXAMPLES = {
    "optimizer": ["sgd(0.1)", "momentum(0.1)", "nesterov(0.1)", "adam", "adamw", "adagrad", "rmsprop", "adadelta"],
    "schedule": ["constant(100)", "step(3)", "exponential(0.9)", "cosine", "linear(steps=10)", "inverse_sqrt(10)"],
    "clip": ["norm(1)", "value(15)"],
    "regularize": ["l1(0.1)", "l2(0.1)", "elastic(0.1,0.2)"],
    "stop": ["patience(3)"],
}


def test_every_setting_has_an_example() -> None:
    shown = {text.split("(")[0] for texts in EXAMPLES.values() for text in texts}
    assert shown == set(registry())


@pytest.mark.parametrize(("slot", "text"), [(slot, text) for slot, texts in EXAMPLES.items() for text in texts])
def test_settings_round_trip_through_json(slot: str, text: str) -> None:
    rest = "" if slot == "optimizer" else "optimizer = adam"
    recipe = compiled(f"{rest} {slot} = {text}")
    found = getattr(recipe, slot)
    setting = found[0] if isinstance(found, tuple) else found
    assert type(setting) is registry()[text.split("(")[0]]
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()


@pytest.mark.parametrize("keyword", sorted(registry()))
def test_every_setting_documents_itself(keyword: str) -> None:
    cls = registry()[keyword]
    assert cls.__doc__
    assert keyword in cls.__doc__.split("\n")[0]
    assert issubclass(cls, Setting)
    source = sys.modules[cls.__module__].__doc__
    assert source


@pytest.mark.parametrize(
    ("keyword", "arguments"),
    [
        ("sgd", {}),
        ("sgd", {"lr": 0.0}),
        ("sgd", {"lr": math.inf}),
        ("sgd", {"lr": 0.1, "momentum": 1.0}),
        ("sgd", {"lr": 0.1, "nesterov": True}),
        ("sgd", {"lr": True}),
        ("adam", {"beta1": 1.0}),
        ("step", {"every": 0}),
        ("step", {"every": 2, "per": "hour"}),
        ("cosine", {"steps": 10, "epochs": 2}),
        ("cosine", {"steps": 10, "warmup": 10}),
        ("norm", {"limit": 0.0}),
        ("l2", {"rate": -1.0}),
        ("patience", {"epochs": 0}),
        ("patience", {"epochs": 1, "unknown": 1}),
    ],
)
def test_wrong_arguments_are_refused(keyword: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        registry()[keyword](**arguments)


def test_recipe_refuses_what_does_not_hang_together() -> None:
    good = compiled("optimizer = adam").model_dump(mode="json")
    for change in (
        {"targets": ["nowhere"]},
        {"loss": "nowhere"},
        {"loss": good["network"]["outputs"][0]["value"]},
        {"metrics": [{"name": "loss", "value": good["loss"]}]},
        {"metrics": [{"name": "a", "value": good["loss"]}, {"name": "a", "value": good["loss"]}]},
        {"optimizer": {"kind": "l2", "rate": 0.1}},
        {"optimizer": {"kind": "newton"}},
        {"stop": {"kind": "patience", "epochs": 2, "metric": "nowhere"}},
        {"batch": 0},
    ):
        with pytest.raises(ValidationError):
            Recipe.model_validate({**good, **change})
    assert Recipe.model_validate(good).to_json() == compiled("optimizer = adam").to_json()


def test_importing_settings_imports_no_onnx() -> None:
    code = "import sys, nnspec.recipe; nnspec.recipe.registry(); print({'onnx', 'onnx_ir', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def factors(schedule: Schedule, steps: int, per_epoch: int = 4, epochs: int = 5) -> list[float]:
    """Return the schedule's factor at each step, as a graph computes it."""
    names = ("step", "per_epoch", "epochs")
    step, one, all_ = (ir.Value(name=n, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([])) for n in names)
    ops = Ops(ir.Graph([step, one, all_], [], nodes=[], opset_imports={"": OPSET}, name="schedule"))
    double = int(ir.DataType.DOUBLE)
    time = Time(ops, step, lambda: ops.Cast(one, to=double), lambda: ops.Cast(all_, to=double))
    scale = schedule.scale(time)
    assert scale is not None
    out = time.single(scale)
    out.name = "factor"
    ops.graph.outputs.append(out)
    graph = Graph(ir.Model(ops.graph, ir_version=IR_VERSION))
    given = {"per_epoch": np.array(per_epoch, np.int64), "epochs": np.array(epochs, np.int64)}
    return [float(graph({**given, "step": np.array(t, np.int64)})["factor"]) for t in range(steps)]


def cosine(t: float, total: float) -> float:
    return (1 + math.cos(math.pi * min(t / total, 1))) / 2


SCHEDULES = [
    ("constant", {"warmup": 4}, lambda t: min((t + 1) / 4, 1)),
    ("step", {"every": 2, "factor": 0.5}, lambda t: 0.5 ** (t // 8)),
    ("step", {"every": 3, "factor": 0.5, "per": "step"}, lambda t: 0.5 ** (t // 3)),
    ("step", {"every": 3, "per": "step", "warmup": 2}, lambda t: 0.5 if t == 0 else 0.1 ** (max(t - 2, 0) // 3)),
    ("exponential", {"factor": 0.9}, lambda t: 0.9 ** (t // 4)),
    ("exponential", {"factor": 0.9, "per": "step"}, lambda t: 0.9**t),
    ("cosine", {}, lambda t: cosine(t, 20)),
    ("cosine", {"epochs": 3}, lambda t: cosine(t, 12)),
    ("cosine", {"steps": 10, "floor": 0.2}, lambda t: 0.2 + 0.8 * cosine(t, 10)),
    ("cosine", {"warmup": 4}, lambda t: (t + 1) / 4 if t < 4 else cosine(t - 4, 16)),
    ("linear", {"steps": 10, "floor": 0.1}, lambda t: 0.1 + 0.9 * (1 - min(t / 10, 1))),
    ("linear", {"steps": 12, "warmup": 4}, lambda t: (t + 1) / 4 if t < 4 else 1 - min((t - 4) / 8, 1)),
    ("inverse_sqrt", {"warmup": 5}, lambda t: min((t + 1) / 5, math.sqrt(5 / (t + 1)))),
]


@pytest.mark.parametrize(("keyword", "arguments", "formula"), SCHEDULES)
def test_schedules_follow_their_formula(keyword: str, arguments: dict[str, object], formula: object) -> None:
    schedule = registry()[keyword](**arguments)
    assert isinstance(schedule, Schedule)
    expected = [formula(t) for t in range(25)]  # type: ignore[operator]
    np.testing.assert_allclose(factors(schedule, 25), expected, rtol=1e-6, atol=1e-9)


def test_every_schedule_has_a_formula_here() -> None:
    schedules = {k for k, cls in registry().items() if issubclass(cls, Schedule)}
    assert {keyword for keyword, _, _ in SCHEDULES} == schedules


def applied(setting: Setting, arrays: dict[str, Array]) -> dict[str, Array]:
    """Run a clip over all arrays, or a regulariser on `w` and `g`."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    values = {n: ir.Value(name=n, type=float32, shape=ir.Shape(a.shape)) for n, a in arrays.items()}
    ops = Ops(ir.Graph(list(values.values()), [], nodes=[], opset_imports={"": OPSET}, name="setting"))
    if isinstance(setting, Clip):
        outputs = setting.apply(ops, list(values.values()))
    else:
        assert isinstance(setting, Regularizer)
        outputs = [setting.add(ops, values["w"], values["g"])]
    for i, value in enumerate(outputs):
        value.name = f"out{i}"
        ops.graph.outputs.append(value)
    return Graph(ir.Model(ops.graph, ir_version=IR_VERSION))(arrays)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_by_norm_counts_all_gradients_together(limit: float) -> None:
    arrays = {"a": draw("clip/a", (4, 3, 2)), "b": draw("clip/b", (5,)), "c": draw("clip/c", ())}
    norm = math.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays.values()))
    found = applied(registry()["norm"](limit=limit), arrays)
    for got, a in zip(found.values(), arrays.values(), strict=True):
        np.testing.assert_allclose(got, a * min(1, limit / (norm + 1e-6)), rtol=1e-6)


def test_clip_by_value() -> None:
    arrays = {"a": draw("clip/a", (4, 3, 2)), "b": draw("clip/b", (5,))}
    found = applied(registry()["value"](limit=0.3), arrays)
    for got, a in zip(found.values(), arrays.values(), strict=True):
        np.testing.assert_array_equal(got, np.clip(a, np.float32(-0.3), np.float32(0.3)))


@pytest.mark.parametrize(
    ("keyword", "arguments", "formula"),
    [
        ("l2", {"rate": 0.1}, lambda w: 0.1 * w),
        ("l1", {"rate": 0.1}, lambda w: 0.1 * np.sign(w)),
        ("elastic", {"l1": 0.2, "l2": 0.1}, lambda w: 0.2 * np.sign(w) + 0.1 * w),
    ],
)
def test_regularisers_add_the_gradient_of_their_penalty(
    keyword: str, arguments: dict[str, float], formula: object
) -> None:
    w, g = draw("reg/w", (4, 3)), draw("reg/g", (4, 3))
    w[0, 0] = 0
    (got,) = applied(registry()[keyword](**arguments), {"w": w, "g": g}).values()
    np.testing.assert_allclose(got, g + formula(w), rtol=1e-6, atol=1e-7)  # type: ignore[operator]
