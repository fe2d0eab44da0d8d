"""The program as an artefact: its manifest, its files, training from them, and the behaviour of layers in training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from nnspec_runtime.program import parse_manifest
from safetensors.numpy import load_file

from nnspec.initializers import sample
from nnspec.training import build, save
from tests.training.cases import draw, labels
from tests.training.programs import Array, Graph, Training, recipe_of, training

SMALL = """
network Small {
  input words: int[T] masked
  input image: [1, 6, 6]
  v = words -> embedding(20, 6) -> mean(axis = 0)
  f = image -> conv(4, 3x3) -> batchnorm -> relu -> dropout(0.25) -> flatten -> dense(6)
  both = (v, f) -> concat
  output logits = both -> dense(5)
  output probs = softmax(logits)
}
train Small {
  target label: int
  loss = cross_entropy(logits, label)
  metric accuracy = accuracy(logits, label)
  metric wrong = error_rate(logits, label)
  optimizer = adam(0.01)
  schedule = cosine(warmup = 2)
  stop = patience(3, metric = accuracy, min_delta = 0.01)
  batch = 8
  epochs = 4
  seed = 3
}
"""


def batch(step: int, rows: int = 8) -> dict[str, Array]:
    lengths = np.random.RandomState(step).randint(1, 7, rows).astype(np.int64)
    return {
        "words": labels(f"small/words/{step}", (rows, 6), 20),
        "words.lengths": lengths,
        "image": draw(f"small/image/{step}", (rows, 1, 6, 6)),
        "label": labels(f"small/label/{step}", (rows,), 5),
    }


def test_manifest_names_everything() -> None:
    program = build(recipe_of(SMALL))
    manifest = program.manifest
    assert json.loads(json.dumps(manifest)) == manifest
    assert parse_manifest(manifest).settings.stop is not None
    assert {k: manifest[k] for k in ("format", "version", "network", "train")} == {
        "format": "nnspec-training",
        "version": 1,
        "network": "Small",
        "train": "Small",
    }
    inputs = {i["name"]: i for i in manifest["inputs"]}
    assert inputs["words"] == {
        "name": "words",
        "dtype": "int64",
        "shape": ["batch", "T"],
        "role": "input",
        "lengths": "words.lengths",
        "classes": 20,
    }
    assert inputs["words.lengths"]["role"] == "lengths"
    assert inputs["words.lengths"]["of"] == "words"
    assert (inputs["label"]["role"], inputs["label"]["classes"]) == ("target", 5)
    kinds = {s["name"]: s["kind"] for s in manifest["state"]}
    assert kinds["step"] == "counter"
    assert {n for n, k in kinds.items() if k == "constant"} == {"seed", "steps_per_epoch", "epochs"}
    assert {n for n, k in kinds.items() if k == "buffer"} == {"batchnorm1.running_mean", "batchnorm1.running_var"}
    # Small weights are joined in one buffer for the optimizer, and all of this network's are small.
    elements = sum(math.prod(s["shape"]) for s in manifest["state"] if s["kind"] == "weight")
    slots = {s["name"]: s["shape"] for s in manifest["state"] if s["kind"] == "optimizer"}
    assert slots == {"joined1.m": [elements], "joined1.v": [elements]}
    assert manifest["loss"] == {"name": "loss", "output": "loss", "weight": None, "goal": "min"}
    assert [(m["name"], m["goal"]) for m in manifest["metrics"]] == [("accuracy", "max"), ("wrong", "min")]
    assert manifest["outputs"] == [
        {"name": "logits", "dtype": "float32", "shape": ["batch", 5]},
        {"name": "probs", "dtype": "float32", "shape": ["batch", 5]},
    ]
    assert manifest["settings"] == {
        "batch": 8,
        "epochs": 4,
        "seed": 3,
        "stop": {"patience": 3, "metric": "accuracy", "min_delta": 0.01},
        "carry": False,
        "bucket": True,
        "precision": "float32",
    }


def test_graphs_are_exactly_what_the_manifest_says() -> None:
    program = build(recipe_of(SMALL))
    step, evaluate, predict = Graph(program.step), Graph(program.eval), Graph(program.predict)
    states = program.manifest["state"]
    data = {i["name"] for i in program.manifest["inputs"]}
    assert set(step.inputs) == data | {s["input"] for s in states}
    assert set(step.outputs) == {"loss", "accuracy", "wrong"} | {s["output"] for s in states if s["output"]}
    kept = {s["input"] for s in states if s["kind"] in ("weight", "frozen", "buffer")}
    assert set(evaluate.inputs) == data | kept
    assert set(evaluate.outputs) == {"loss", "accuracy", "wrong"}
    assert set(predict.inputs) == data - {"label"} | kept
    assert set(predict.outputs) == {"logits", "probs"}
    assert set(program.state) == {s["name"] for s in states}
    for state in states:
        assert program.state[state["name"]].shape == tuple(state["shape"])
        assert program.state[state["name"]].dtype == np.dtype(state["dtype"])


def test_no_node_of_any_graph_is_dead() -> None:
    program = build(recipe_of(SMALL))
    for model in (program.step, program.eval, program.predict):
        for node in model.graph:
            assert any(out.uses() or out in model.graph.outputs for out in node.outputs), node


def test_initial_weights_are_drawn_from_seed_and_name() -> None:
    recipe = recipe_of(SMALL)
    state = build(recipe).state
    for weight in recipe.network.weights:
        expected = sample(weight.init, weight.shape, weight.fan, weight.name, 3)
        np.testing.assert_array_equal(state[weight.name], expected)


def test_training_is_reproducible_to_the_bit() -> None:
    runs = []
    for _ in range(2):
        one = training(SMALL)
        for step in range(4):
            one.step(batch(step))
        runs.append(one.state)
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name])


def test_a_program_trains_from_its_files_with_onnxruntime_and_numpy_alone(tmp_path: Path) -> None:
    """Nothing of nnspec below this line: the JSON says all that is needed."""
    path = save(build(recipe_of(SMALL)), tmp_path / "small")
    assert path == tmp_path / "small.json"

    manifest = json.loads(path.read_text(encoding="utf-8"))
    graph = ort.InferenceSession(path.parent / manifest["files"]["step"], providers=["CPUExecutionProvider"])
    state = load_file(path.parent / manifest["files"]["state"])
    state["steps_per_epoch"], state["epochs"] = np.array(30, np.int64), np.array(4, np.int64)
    names = [o.name for o in graph.get_outputs()]
    data, losses = batch(0, rows=16), []
    for _ in range(120):
        given = {s["input"]: state[s["name"]] for s in manifest["state"]}
        results = dict(zip(names, graph.run(names, {**data, **given}), strict=True))
        state.update({s["name"]: results[s["output"]] for s in manifest["state"] if s["output"]})
        losses.append(float(results[manifest["loss"]["output"]]))
    assert losses[-1] < 0.2 * losses[0]

    evaluate = ort.InferenceSession(path.parent / manifest["files"]["eval"], providers=["CPUExecutionProvider"])
    given = {s["input"]: state[s["name"]] for s in manifest["state"]}
    feed = {**data, **given}
    wanted = [manifest["metrics"][0]["output"]]
    (accuracy,) = evaluate.run(wanted, {i.name: feed[i.name] for i in evaluate.get_inputs()})
    assert accuracy == 1
    predict = ort.InferenceSession(path.parent / manifest["files"]["predict"], providers=["CPUExecutionProvider"])
    (probs,) = predict.run(["probs"], {i.name: feed[i.name] for i in predict.get_inputs()})
    assert (probs.argmax(1) == data["label"]).all()


def test_saved_graphs_pass_the_full_check(tmp_path: Path) -> None:
    save(build(recipe_of(SMALL)), tmp_path / "small")
    for kind in ("step", "eval", "predict"):
        onnx.checker.check_model(str(tmp_path / f"small.{kind}.onnx"), full_check=True)


DROPOUT = """
network N {{ input x: [400] h = x -> dropout({rate}) output h output y = h -> dense(1) }}
train N {{ target t: [1] loss = square_error(y, t) metric kept = mean(h) optimizer = sgd(0.001) }}
"""


def test_dropout_drops_its_rate_anew_each_step() -> None:
    one = training(DROPOUT.format(rate=0.3))
    rows, steps = 50, 20
    data = {"x": np.ones((rows, 400), np.float32), "t": np.zeros((rows, 1), np.float32)}
    means = np.array([one.step(data)["kept"] for _ in range(steps)], np.float64)
    # An element is 1 / 0.7 with probability 0.7: mean 1, variance 3 / 7.
    deviation = np.sqrt(3 / 7 / (rows * 400))
    assert abs(means.mean() - 1) < 5 * deviation / np.sqrt(steps)
    assert np.unique(means).size > steps // 2
    assert abs(means.std() / deviation - 1) < 5 / np.sqrt(2 * steps)
    assert Graph(one.program.eval)({**data, **one.state})["kept"] == 1


def test_dropout_follows_the_seed() -> None:
    text = DROPOUT.format(rate=0.3)
    programs = [build(recipe_of(text.replace("sgd(0.001)", f"sgd(0.001) seed = {seed}"))) for seed in (1, 2)]
    data = {"x": np.ones((9, 400), np.float32), "t": np.zeros((9, 1), np.float32)}
    first, second = (float(Training(p).step(data)["kept"]) for p in programs)
    assert first != second


def test_frozen_weights_and_weights_outside_the_loss_stay() -> None:
    one = training(
        """network N { input x: [4] h = x -> freeze dense(3) -> tanh output y = h -> dense(2) output z = h -> dense(7) }
           train N { target t: [2] loss = square_error(y, t) optimizer = adam(0.1) regularize = l2(0.1) }"""
    )
    kinds = {s["name"]: (s["kind"], s["output"]) for s in one.states}
    before = dict(one.state)
    for step in range(3):
        one.step({"x": draw(f"f/{step}", (5, 4)), "t": draw(f"t/{step}", (5, 2))})
    for name in ("dense1.weight", "dense1.bias", "dense3.weight", "dense3.bias"):
        assert kinds[name] == ("frozen", None)
        np.testing.assert_array_equal(one.state[name], before[name])
    for name in ("dense2.weight", "dense2.bias"):
        assert kinds[name] == ("weight", f"{name}.next")
        assert (one.state[name] != before[name]).any()


def test_shared_batchnorm_updates_its_statistics_once_for_each_use() -> None:
    one = training(
        """network N {
             input a: [3]
             input b: [3]
             shared norm = batchnorm(momentum = 0.25)
             output y = (a -> norm) + (b -> norm)
           }
           train N { target t: [3] loss = square_error(y, t) optimizer = sgd(0.1) }"""
    )
    a, b = draw("bn/a", (6, 3)), draw("bn/b", (6, 3), 3.0)
    one.step({"a": a, "b": b, "t": np.zeros((6, 3), np.float32)})
    mean, var = np.zeros(3), np.ones(3)
    for x in (a.astype(np.float64), b.astype(np.float64)):
        mean, var = 0.75 * mean + 0.25 * x.mean(0), 0.75 * var + 0.25 * x.var(0, ddof=1)
    (norm,) = {s["name"].removesuffix(".running_mean") for s in one.states if s["name"].endswith("running_mean")}
    np.testing.assert_allclose(one.state[f"{norm}.running_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(one.state[f"{norm}.running_var"], var, rtol=1e-5)


@pytest.mark.parametrize("name", ["step", "seed", "loss"])
def test_inputs_may_have_the_names_of_states_and_figures(name: str) -> None:
    one = training(
        f"""network N {{ input {name}: [4] output y = {name} -> dropout(0.1) -> dense(3) }}
            train N {{ target t: int loss = cross_entropy(y, t) metric accuracy = accuracy(y, t) optimizer = adam }}"""
    )
    data: dict[str, Any] = {name: draw("name", (5, 4)), "t": labels("name", (5,), 3)}
    manifest = one.program.manifest
    first = one.step(data)
    assert manifest["loss"]["output"] in first
    assert manifest["metrics"][0]["output"] in first
    assert one.state["step"] == 1


def test_a_weighted_sum_of_losses() -> None:
    one = training(
        """network N { input x: [4] output y = x -> dense(3) }
           train N {
             target t: int
             target u: [3]
             loss = 0.5 * cross_entropy(y, t) + 2 * square_error(y, u)
             metric first = cross_entropy(y, t)
             metric second = square_error(y, u)
             optimizer = sgd(0.1)
           }"""
    )
    data = {"x": draw("w/x", (5, 4)), "t": labels("w/t", (5,), 3), "u": draw("w/u", (5, 3))}
    found = one.step(data)
    assert found["loss"] == pytest.approx(0.5 * found["first"] + 2 * found["second"], rel=1e-6)
    assert one.program.manifest["metrics"][0]["goal"] == "min"


CARRY = """
network N {{ input x: [T, 3] output h = x -> freeze lstm(4) output y = h -> dense(2) }}
train N {{ target t: [T, 2] loss = square_error(y, t) metric middle = mean(y) optimizer = sgd(0.1) {carry} }}
"""


def test_carried_states_continue_a_sequence_that_was_cut() -> None:
    whole, cut = (build(recipe_of(CARRY.format(carry=carry))) for carry in ("", "carry = true"))
    assert not [s for s in whole.manifest["state"] if s["kind"] == "carry"]
    carried = [s for s in cut.manifest["state"] if s["kind"] == "carry"]
    assert [s["shape"] for s in carried] == [["batch", 4], ["batch", 4]]
    assert cut.manifest["settings"]["carry"]
    x, t = draw("carry/x", (5, 8, 3)), np.zeros((5, 8, 2), np.float32)
    expected = Graph(whole.eval)({"x": x, "t": t, **whole.state})
    for model in (cut.eval, cut.step):
        graph = Graph(model)
        state = {**cut.state, **{s["name"]: np.zeros((5, 4), np.float32) for s in carried}}
        middles = []
        for part in (slice(0, 3), slice(3, 8)):
            given = {s["input"]: state[s["name"]] for s in cut.manifest["state"]}
            found = graph({"x": x[:, part], "t": t[:, part], **given})
            state |= {s["name"]: found[s["output"]] for s in carried}
            middles.append(float(found["middle"]))
            if model is cut.step:
                # The weights stay, so that both parts see the same ones.
                assert (found["dense1.weight.next"] != state["dense1.weight"]).any()
        assert (3 * middles[0] + 5 * middles[1]) / 8 == pytest.approx(float(expected["middle"]), rel=1e-5)
    assert [name for name in cut.state if name in {s["name"] for s in carried}] == []


def test_sizes_are_read_off_inputs_alone() -> None:
    """A node that asks an activation for its shape would keep it until then."""
    text = """network N {
      input x: [2, 7, 6]
      output y = x -> conv(4, 3x3) -> batchnorm -> relu -> global_avgpool -> dropout(0.2) -> dense(3)
    }
    train N { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = 4 }"""
    program = build(recipe_of(text))
    for graph in (program.step.graph, program.eval.graph):
        assert all(n.inputs[0] in graph.inputs for n in graph if n.op_type in ("Shape", "Size"))
    assert any(n.op_type == "Shape" for n in program.step.graph)
    layers = "batchnorm -> global_avgpool -> dense(3)"
    whole = "batchnorm -> relu -> global_avgpool -> dropout(0.2) -> dense(3)"
    normalised = build(recipe_of(text.replace(whole, layers)))
    # CUDA multiplies integers, but has no ReduceProd of them.
    assert "ReduceProd" not in {n.op_type for n in normalised.step.graph}


def test_the_first_state_is_made_anew_whenever_it_is_asked_for() -> None:
    state = build(recipe_of(SMALL)).state
    name = next(n for n in state if n.endswith("weight"))
    first = state[name]
    second = state[name]
    np.testing.assert_array_equal(first, second)
    first += 1
    np.testing.assert_array_equal(state[name], second)
