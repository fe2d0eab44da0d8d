"""Mixed precision: where casts stand, what stays float32, and that training goes on as in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from nnspec_runtime import Device, TrainingSession
from nnspec_runtime.errors import DeviceError
from onnx.reference import ReferenceEvaluator

from nnspec.cli.runtime import training_program
from nnspec.diagnostics import SpecError
from nnspec.ops import CUDA, PORTABLE, Target
from nnspec.training import build, gradients
from nnspec.training.precision import CARRIERS, NO_BFLOAT16, PRODUCTS, takes
from tests.training.programs import Training, recipe_of

GOLDEN = Path(__file__).parent / "golden"
HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}

NETWORKS = {
    "mlp": "input x: [20] output y = x -> dense(32) -> relu -> dense(32) -> tanh -> dense(10)",
    "cnn": "input x: [1, 12, 12] output y = x -> conv(4, 3x3) -> batchnorm -> relu -> maxpool(2)"
    " -> conv(8, 3x3, pad = 1) -> relu -> flatten -> dense(10)",
    "normalised": "input x: [20] h = x -> dense(20) -> layernorm -> relu"
    " output y = (h, h -> dense(20)) -> add -> softmax -> dense(10)",
    "up": "input x: [2, 6, 6] output y = x -> conv_transpose(4, 2x2, stride = 2) -> leaky_relu -> global_avgpool"
    " -> dense(10)",
    "dropped": "input x: [20] output y = x -> dense(32) -> relu -> dropout(0.3) -> dense(10)",
    "recurrent": "input x: [6, 5] output y = x -> lstm(7) -> last -> dense(10)",
    "attention": "input x: [6, 8] q = x -> dense(8) k = x -> dense(8)"
    " output y = softmax(q @ (k -> transpose)) @ x -> flatten -> dense(10)",
}


def text(network: str, precision: str, more: str = "") -> str:
    return f"""network N {{ {NETWORKS[network]} }}
    train N {{ target label: int loss = cross_entropy(y, label) metric accuracy = accuracy(y, label)
      optimizer = adam(0.01) precision = {precision} {more} }}"""


def batch(network: str, seed: int = 0) -> dict[str, np.ndarray]:
    shape = recipe_of(text(network, "float32")).network.inputs[0].type.shape
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(16, *shape)).astype(np.float32), "label": rng.integers(0, 10, 16)}


def listing(graph: ir.Graph) -> str:
    """Return the nodes on the way to the loss that compute real numbers: operator, types of what they take and give."""
    needed = {next(v for v in graph.outputs if v.name == "loss")}
    for node in reversed(graph):
        if needed.intersection(node.outputs):
            needed.update(v for v in node.inputs if v is not None)

    def name(value: ir.Value | None) -> str:
        return "-" if value is None or value.dtype is None else value.dtype.name.lower()

    lines = []
    for node in graph:
        real = any(v.dtype is not None and v.dtype.is_floating_point() for v in node.outputs)
        if node.op_type != "Constant" and real and needed.intersection(node.outputs):
            taken = ", ".join(map(name, node.inputs))
            lines.append(f"{node.op_type}({taken}) -> {', '.join(map(name, node.outputs))}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_casts_stand_where_the_stored_listing_has_them(network: str, precision: str, update_golden: bool) -> None:
    path = GOLDEN / f"{network}.{precision}.txt"
    found = listing(gradients(recipe_of(text(network, precision))).graph)
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


TARGETS = pytest.mark.parametrize("target", [PORTABLE, CUDA], ids=["portable", "cuda"])


@TARGETS
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("network", NETWORKS)
def test_only_operators_that_stand_it_take_half_precision(network: str, precision: str, target: Target) -> None:
    graph = build(recipe_of(text(network, precision)), target).step.graph
    half = HALVES[precision]
    products = 0
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if any(v is not None and v.dtype == half for v in (*node.inputs, *node.outputs)):
            assert takes(node.op_type, half), node
            assert not (precision == "bfloat16" and node.op_type in NO_BFLOAT16)
        products += node.op_type in ("MatMul", "Gemm", "Conv") and node.outputs[0].dtype == half
    assert products >= (1 if network == "cnn" else 2)


@pytest.mark.parametrize("half", HALVES)
def test_onnx_allows_the_type_for_every_operator_that_takes_it(half: str) -> None:
    for name in PRODUCTS | CARRIERS | {"Cast", "Greater", "Trilu"}:
        schema = onnx.defs.get_schema(name, 21, "")
        allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        for taken in [*schema.inputs, *schema.outputs]:
            types = allowed.get(taken.type_str, set())
            if takes(name, HALVES[half]) and "tensor(float)" in types:
                assert f"tensor({half})" in types, name


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_and_state_stay_float32(network: str, precision: str) -> None:
    program = build(recipe_of(text(network, precision)))
    assert {s["dtype"] for s in program.manifest["state"]} == {"float32", "int64"}
    for value in (*program.step.graph.inputs, *program.step.graph.outputs):
        assert value.dtype in (ir.DataType.FLOAT, ir.DataType.INT64)
    names = {s["name"] for s in program.manifest["state"]}
    assert ("loss_scale.exponent" in names) == (precision == "float16")


@TARGETS
@pytest.mark.parametrize("network", NETWORKS)
def test_float16_trains_as_float32_does(network: str, target: Target) -> None:
    half, full = (Training(build(recipe_of(text(network, p)), target)) for p in ("float16", "float32"))
    data = batch(network)
    for _ in range(20):
        a, b = half.step(data), full.step(data)
    # Rounding to 11 bits moves each product by up to 5e-4 of itself; ONNX Runtime's CPU provider rounds less often.
    assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
    for weight in half.program.manifest["state"]:
        if weight["kind"] == "weight":
            assert half.state[weight["name"]].dtype == np.float32


def test_the_forms_for_cuda_are_taken_in_half_precision_too() -> None:
    """A relu's gradient by comparison, where CPUs have a faster form."""
    kinds = {
        target: {n.op_type for n in build(recipe_of(text("mlp", "float16")), target).step.graph}
        for target in (PORTABLE, CUDA)
    }
    assert "Where" in kinds[CUDA]
    assert "HardSigmoid" not in kinds[CUDA]


def test_true_float16_arithmetic_learns_too() -> None:
    program = build(recipe_of(text("mlp", "float16")))
    run = ReferenceEvaluator(ir.to_proto(program.step))
    full = Training(build(recipe_of(text("mlp", "float32"))))
    state, data = dict(program.state), batch("mlp")
    outputs = [o.name for o in program.step.graph.outputs]
    differs = False
    for _ in range(15):
        found = dict(zip(outputs, run.run(None, {**data, **state}), strict=True))
        for s in program.manifest["state"]:
            if s["output"] is not None:
                state[s["name"]] = found[s["output"]]
        wanted = full.step(data)["loss"]
        differs = differs or found["loss"] != wanted
        assert found["loss"] == pytest.approx(wanted, rel=0.01)
    assert differs, "nothing was rounded"
    assert state["dense1.weight"].dtype == np.float32


def test_a_stored_step_of_true_float16_overflows_and_is_skipped() -> None:
    program = build(recipe_of(text("mlp", "float16")))
    run = ReferenceEvaluator(ir.to_proto(program.step))
    data = batch("mlp")
    state = {**program.state, "loss_scale.exponent": np.array(8), "loss_scale.good_steps": np.array(7)}
    with np.errstate(over="ignore", invalid="ignore"):
        results = run.run(None, {**data, **state})
    found = dict(zip([o.name for o in program.step.graph.outputs], results, strict=True))
    assert np.isfinite(found["loss"])
    for s in program.manifest["state"]:
        if s["kind"] in ("weight", "optimizer"):
            assert np.array_equal(found[s["output"]], state[s["name"]])
    assert found["loss_scale.exponent.next"] == 7
    assert found["loss_scale.good_steps.next"] == 0


def test_an_unknown_precision_is_told_with_the_known_ones() -> None:
    with pytest.raises(SpecError) as error:
        recipe_of(text("mlp", "float61"))
    message = str(error.value)
    assert "`precision` cannot be `float61`" in message
    assert "did you mean `float16`" in message
    with pytest.raises(SpecError, match="precision"):
        recipe_of(text("mlp", "16"))


def test_bfloat16_on_the_cpu_is_refused_in_one_sentence() -> None:
    program = training_program(recipe_of(text("mlp", "bfloat16")))
    with pytest.raises(DeviceError, match="bfloat16, for which onnxruntime has no kernels on the CPU"):
        TrainingSession(program, Device())
