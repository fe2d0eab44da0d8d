"""Every layer's exported graph computes what its definition says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.compile import compile_network, export_model
from nnspec.ir import Network, registry
from nnspec.source import Source
from tests.layers.cases import CASES, Case

BATCH = 3
TESTS = Path(__file__).parents[1]
ELSEWHERE = {"recurrence": "recurrent", "ctc_greedy": "sequence", "ctc_beam": "sequence", "generate": "sequence"}
"""Layers with tests of their own, and the folders that hold them; losses and metrics are in tests/training."""


def test_every_layer_has_a_case() -> None:
    layers = {k for k, layer in registry().items() if layer.where == "network" and not k.startswith("_")}
    elsewhere = layers - {c.keyword for c in CASES}
    assert elsewhere <= set(ELSEWHERE)
    assert all(any((TESTS / ELSEWHERE[k]).glob("test_*.py")) for k in elsewhere)


def spec(case: Case) -> Source:
    lines = [f"  input {name}: {type_}" for name, type_ in case.inputs.items()]
    used = set(re.findall(r"\w+", case.expr))
    lines += [f"  param {name}: {shape} = normal(1)" for name, shape in PARAMS.items() if name in used]
    names = [f"y{i}" for i in range(case.outputs)]
    if case.outputs == 1:
        lines.append(f"  output y0 = {case.expr}")
    else:
        lines += [f"  {', '.join(names)} = {case.expr}", *(f"  output {n}" for n in names)]
    return Source("case.nn", "network Case {\n" + "\n".join(lines) + "\n}")


PARAMS = {"p": "[7]", "q": "[2, 7]", "m": "[7, 3]", "v": "[7]"}


def draw(network: Network, case: Case, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = {}
    for i in network.inputs:
        shape = (BATCH, *(int(str(d)) for d in i.type.shape))
        if i.type.dtype == "int64":
            inputs[i.name] = rng.integers(0, 50, shape)
        else:
            inputs[i.name] = rng.uniform(case.low, case.high, shape).astype(np.float32)
    weights = {
        w.name: (rng.uniform(0.5, 1.5, w.shape) if "var" in w.name else rng.standard_normal(w.shape)).astype(np.float32)
        for w in network.weights
    }
    return inputs, weights


def run(network: Network, weights: dict[str, Any], inputs: dict[str, Any]) -> list[Any]:
    proto = ir.to_proto(export_model(network, weights))
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run([o.name for o in network.outputs], inputs))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.label)
def test_case(case: Case) -> None:
    network = compile_network(spec(case)).network
    assert any(n.layer.keyword == case.keyword for n in network.nodes)
    inputs, weights = draw(network, case, np.random.default_rng(7))
    types = network.types()
    results = run(network, weights, inputs)
    exact = {k: v if v.dtype == np.int64 else v.astype(np.float64) for k, v in inputs.items()}
    by_role = {name.rpartition(".")[2]: w.astype(np.float64) for name, w in weights.items()}
    expected = case.expected(**exact, **by_role)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(results) == len(expected)
    for output, result, wanted in zip(network.outputs, results, expected, strict=True):
        assert result.shape == np.shape(wanted)
        assert result.shape == (BATCH, *types[output.value].shape)
        assert result.dtype == (np.int64 if types[output.value].dtype == "int64" else np.float32)
        np.testing.assert_allclose(result, wanted, rtol=2e-5, atol=2e-5)
