"""What reads a recurrence's last step reads its final state: the same step, with less to do."""

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.training import build, step
from nnspec.training.last_step import read_final_states

from .programs import Training, recipe_of

NETWORK = """
network Net {{
  input x: [7, 3]
  {layers}
}}
train Net {{
  target label: int
  loss = cross_entropy(logits, label)
  optimizer = sgd(lr = 0.5)
  batch = 4
}}
"""
READ = {
    "lstm": "output logits = x -> lstm(5) -> last -> dense(3)",
    "gru": "output logits = x -> gru(5) -> last -> dense(3)",
    "two layers": "output logits = x -> lstm(4) * 2 -> last -> dense(3)",
    "its steps are read too": """y = x -> rnn(5)
  output logits = (y -> last, y -> mean(axis = 0)) -> concat -> dense(3)""",
    "named": "y = x -> lstm(5)\n  output end = y -> last\n  output logits = end -> dense(3)",
}
LEFT = {
    "both directions": "output logits = x -> bidirectional(lstm(4)) -> last -> dense(3)",
    "another step": "output logits = x -> lstm(5) -> slice(5, 6, axis = 0) -> flatten -> dense(3)",
    "no recurrence": "output logits = x -> dense(4) -> last -> dense(3)",
    "behind the loop": "output logits = x -> lstm(5) -> tanh -> last -> dense(3)",
}


def _backward_reads(model: ir.Model) -> list[int]:
    """Return how many sequences each backward loop reads."""
    loops = [n.attributes for n in model.graph if n.op_type == "Scan"]
    backward = [at for at in loops if "backward" in (at["body"].as_graph().name or "")]
    return [at["num_scan_inputs"].as_int() for at in backward]


def _data(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((4, 7, 3)).astype(np.float32), "label": rng.integers(0, 3, 4)}


@pytest.mark.parametrize("name", READ | LEFT)
def test_a_step_leads_to_the_same_state(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(NETWORK.format(layers=(READ | LEFT)[name]))
    short = Training(build(recipe))
    monkeypatch.setattr(step, "read_final_states", lambda graph, kept: None)
    plain = Training(build(recipe))
    fewer = sum(_backward_reads(short.program.step)) < sum(_backward_reads(plain.program.step))
    assert fewer == (name in READ and name != "its steps are read too")
    for seed in range(3):
        found, expected = (t.step(_data(seed)) for t in (short, plain))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_a_masked_sequence_has_its_last_steps_elsewhere() -> None:
    layers = "output logits = x -> lstm(5) -> last -> dense(3)"
    text = NETWORK.format(layers=layers).replace("input x: [7, 3]", "input x: [T, 3] masked")
    recipe = recipe_of(text)
    program = build(recipe)
    rng = np.random.default_rng(0)
    data = {**_data(0), "x.lengths": np.array([7, 2, 5, 1])}
    losses = []
    for _ in range(2):
        training = Training(program)
        losses.append(training.step(data)["loss"])
        data["x"] = data["x"].copy()
        for row, length in enumerate(data["x.lengths"]):
            data["x"][row, length:] = rng.standard_normal((7 - length, 3))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_values_that_are_kept_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of the step may be the last step's value itself; its name has to go on."""
    seen: list[set[str]] = []

    def spy(graph: ir.Graph, kept) -> None:
        gathers = [n for n in graph if n.op_type == "Gather"]
        read_final_states(graph, [*kept, *(n.outputs[0] for n in gathers)])
        seen.append({n.op_type for g in gathers for n in g.outputs[0].consumers()})

    monkeypatch.setattr(step, "read_final_states", spy)
    build(recipe_of(NETWORK.format(layers=READ["lstm"])))
    assert seen == [{"Gemm"}]
