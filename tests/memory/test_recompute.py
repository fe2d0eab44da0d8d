"""Recomputed stages: the same gradients, in less memory, and the marks where the language puts them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.diagnostics import SpecError
from nnspec.ir import Network
from nnspec.training import build
from nnspec.training.memory import training_memory
from tests.training.programs import Training, checked, recipe_of

CHAINS = {
    "dense": ("[12]", "(M (dense(16) -> tanh -> dense(16) -> relu)) * 3 -> dense(5)"),
    "normalised": ("[3, 8, 8]", "M (conv(4, 3x3, pad = 1) -> batchnorm -> relu -> maxpool(2)) -> flatten -> dense(5)"),
    "pooled outside": ("[3, 8, 8]", "M (conv(4, 3x3, pad = 1) -> relu) -> maxpool(2) -> flatten -> dense(5)"),
    "dropped": ("[12]", "M (dense(16) -> dropout(0.4) -> relu) -> M (dense(16) -> dropout(0.4)) -> dense(5)"),
    "softmax": ("[12]", "M (dense(16) -> layernorm -> gelu -> softmax) -> dense(5)"),
    "shared": ("[12]", "dense(12) -> M (dense(12) -> sigmoid) * 2 -> dense(5)"),
    "with a loop": ("[6, 4]", "M (dense(8) -> tanh -> gru(7) -> tanh -> last) -> dense(5)"),
    "last of all": ("[12]", "dense(8) -> relu -> M dense(5)"),
}


def text(chain: str, marked: bool, settings: str = "", batch: int = 8) -> str:
    shape, body = CHAINS[chain]
    body = body.replace("M ", "recompute " if marked else "")
    return f"""network N {{ input x: {shape} output y = x -> {body} }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = adam(0.01) batch = {batch} {settings} }}"""


def data(chain: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shape = recipe_of(text(chain, False)).network.inputs[0].type.shape
    return {"x": rng.normal(size=(8, *shape)).astype(np.float32), "t": rng.integers(0, 5, 8)}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("chain", CHAINS)
def test_training_comes_to_the_same_weights(chain: str, precision: str) -> None:
    settings = f"precision = {precision}"
    programs = [build(recipe_of(text(chain, marked, settings))) for marked in (False, True)]
    kept, again = (Training(program, optimized=precision == "float32") for program in programs)
    assert len(again.program.step.graph) > len(kept.program.step.graph) or chain == "last of all"
    for _ in range(4):
        a, b = kept.step(data(chain)), again.step(data(chain))
        # Not bit for bit everywhere: two products of equal numbers may take other paths through a fused kernel.
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
    for name, value in kept.state.items():
        assert again.state[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_no_later_pass_finds_a_clone_equal_to_its_original() -> None:
    from onnxruntime import InferenceSession, SessionOptions

    model = build(recipe_of(text("dense", True))).step
    options = SessionOptions()
    # What ONNX Runtime itself makes of the graph, after its own common-subexpression pass.
    import tempfile
    from pathlib import Path

    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        InferenceSession(checked(model), options, providers=["CPUExecutionProvider"])
        nodes = [n.op_type for n in onnx.load(path).graph.node]
    # Seven forward products and three segments' first of two again, whose second is needed for no gradient of relu's
    # input but for relu's output, so all six; the products of gradients come on top.
    plain = [n.op_type for n in build(recipe_of(text("dense", False))).step.graph]
    assert sum("Gemm" in n or "MatMul" in n for n in nodes) == sum(n in ("Gemm", "MatMul") for n in plain) + 6


def test_infinite_gradients_do_not_spoil_what_is_computed_again() -> None:
    """The tie adds zero whatever the gradient is: also where it is infinite or no number."""
    run = Training(
        build(
            recipe_of("""network N { input x: [4] output y = x -> recompute (dense(4) -> relu) -> dense(1) }
    train N { target t: [1] loss = mean(y * t) optimizer = sgd(0.1) precision = float16 }""")
        )
    )
    before = dict(run.state)
    run.step({"x": np.ones((2, 4), np.float32), "t": np.full((2, 1), np.inf, np.float32)})
    assert np.array_equal(run.state["dense1.weight"], before["dense1.weight"])
    run.step({"x": np.ones((2, 4), np.float32), "t": np.ones((2, 1), np.float32)})
    assert np.isfinite(run.state["dense1.weight"]).all()


def test_the_peak_falls() -> None:
    chain = "x -> (M (dense(512) -> tanh -> dense(512) -> tanh -> dense(512) -> tanh)) * 4 -> dense(5)"
    peaks = [
        training_memory(
            recipe_of(f"""network N {{ input x: [512] output y = {chain.replace("M ", mark)} }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = 2048 }}""")
        ).activations
        for mark in ("", "recompute ")
    ]
    assert peaks[1] < 0.75 * peaks[0]


def test_each_use_is_a_segment_and_the_outermost_mark_decides() -> None:
    network = recipe_of(
        """network N { input x: [4]
      unit = dense(4) -> relu
      shared f = recompute dense(4)
      output y = x -> (recompute unit) * 2 -> recompute (unit -> recompute unit) -> f -> freeze recompute dense(2) }
    train N { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) }"""
    ).network
    found = {n.name: n.recompute for n in network.nodes if n.recompute}
    assert found["dense1"] == found["relu1"] != found["dense2"] == found["relu2"]
    assert len({found["dense3"], found["relu3"], found["dense4"], found["relu4"]}) == 1
    assert "f" in found
    assert len(set(found.values())) == 5
    assert {w.name for w in network.weights if not w.trainable} == {"dense5.weight", "dense5.bias"}
    assert Network.from_json(network.to_json()) == network
    assert '"recompute":""' not in network.to_json()


def test_the_mark_needs_a_layer() -> None:
    with pytest.raises(SpecError, match="`recompute` needs a layer, and gets"):
        recipe_of("network N { input x: [4] output y = recompute x } train N { loss = mean(y) optimizer = adam }")


def test_nothing_of_the_marks_is_left_in_the_graphs() -> None:
    program = build(recipe_of(text("dense", True)))
    for model in (program.step, program.eval, program.predict):
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            assert "nnspec.segment" not in node.metadata_props
