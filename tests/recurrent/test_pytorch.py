"""Recurrent layers and their gradients equal PyTorch's: one and more layers, both directions, packed sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.autodiff import differentiate
from nnspec.ir import Network
from nnspec.lower import finish_outputs, lower
from nnspec.ops import IR_VERSION
from tests.recurrent.cases import CASES, LENGTHS, STEPS, Case
from tests.recurrent.running import Arrays, model_of, network_of, run

ORACLE = np.load(Path(__file__).parents[1] / "oracle" / "recurrent.npz")
EACH = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def stored(case: Case) -> Arrays:
    """Return what PyTorch said of a case."""
    return {k.removeprefix(f"{case.name}/"): ORACLE[k] for k in ORACLE.files if k.startswith(f"{case.name}/")}


def pytorch_names(case: Case, network: Network) -> dict[str, str]:
    """Return PyTorch's name of each weight."""
    names = {}
    for weight in network.weights:
        layer, *direction, part, kind = weight.name.split(".")
        number = int("".join(c for c in layer if c.isdigit())) - 1
        names[weight.name] = f"{kind}_{part}_l{number}{'_reverse' if direction == ['backward'] else ''}"
    return names


def feed_of(case: Case, arrays: Arrays) -> Arrays:
    """Return what the network is fed with."""
    feed = {"x": arrays["x"], **{k: v for k, v in arrays.items() if k.startswith("start")}}
    return {**feed, "x.lengths": np.array(LENGTHS)} if case.masked else feed


@EACH
@pytest.mark.parametrize("options", [{}, {"fused": False}], ids=["fused", "scan"])
def test_results(case: Case, options: dict[str, Any]) -> None:
    arrays = stored(case)
    network = network_of(case.text)
    weights = {name: arrays[f"weight.{theirs}"] for name, theirs in pytorch_names(case, network).items()}
    for name, value in run(model_of(network, weights, **options), feed_of(case, arrays)).items():
        np.testing.assert_allclose(value, arrays[f"result.{name}"], rtol=0, atol=1e-5, err_msg=name)


# What is masked has no fixed length that could be unrolled.
WAYS = [(case, unroll) for case in CASES for unroll in (False, True) if not (unroll and case.masked)]


@pytest.mark.parametrize(("case", "unroll"), WAYS, ids=[f"{c.name}-{'unrolled' if u else 'scan'}" for c, u in WAYS])
def test_gradients(case: Case, unroll: bool) -> None:
    arrays = stored(case)
    text = case.text.replace("[T, ", f"[{STEPS}, ") if unroll else case.text
    network = network_of(text)
    names = pytorch_names(case, network)
    lowered = lower(network, training=True, unroll=unroll)
    op = lowered.ops
    loss = None
    for output in network.outputs:
        direction = op.constant(arrays[f"direction.{output.name}"])
        part = op.ReduceSum(op.Mul(lowered.values[output.value], direction), keepdims=0)
        loss = part if loss is None else op.Add(loss, part)
    wanted = {**{theirs: lowered.weights[ours] for ours, theirs in names.items()}}
    wanted |= {i.name: lowered.values[i.name] for i in network.inputs if i.type.dtype == "float32"}
    gradients = differentiate(op, loss, list(wanted.values()))
    assert all(g is not None for g in gradients)
    lowered.graph.inputs.extend(lowered.weights.values())
    finish_outputs(lowered, {f"gradient.{n}": g for n, g in zip(wanted, gradients, strict=True) if g is not None})
    model = ir.to_proto(ir.Model(lowered.graph, ir_version=IR_VERSION))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {**feed_of(case, arrays), **{ours: arrays[f"weight.{theirs}"] for ours, theirs in names.items()}}
    results = session.run([f"gradient.{n}" for n in wanted], feed)
    for name, value in zip(wanted, results, strict=True):
        np.testing.assert_allclose(value, arrays[f"gradient.{name}"], rtol=1e-5, atol=1e-5, err_msg=name)
