"""Padding behind the end of a sequence changes nothing: masked networks equal unmasked ones on the sequence alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.compile import compile_network, export_model, initial_weights
from nnspec.source import Source

LENGTHS = [7, 4, 1]
LONGEST = max(LENGTHS)


def session(expr: str, masked: bool) -> ort.InferenceSession:
    text = f"network N {{\n  input x: [T, 6]{' masked' if masked else ''}\n  output y = {expr}\n}}"
    network = compile_network(Source("masked.nn", text)).network
    proto = ir.to_proto(export_model(network, initial_weights(network, 3)))
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


TO_ONE = [
    "x -> mean(axis = 0)",
    "x -> sum(axis = 0)",
    "x -> max(axis = 0)",
    "x -> min(axis = 0)",
    "x -> l2norm(axis = 0)",
    "x -> l1norm",
    "x -> logsumexp(axis = 0)",
    "x -> mean",
    "x -> mean(axis = 0, keep = true)",
    "x -> transpose -> global_avgpool",
    "x -> transpose -> global_maxpool",
    "x -> transpose -> mean(axis = 1)",
    "x -> dense(3) -> tanh -> last",
    "x -> reverse -> last",
    "x -> first",
    "(x -> dense(1) -> softmax(axis = 0)) * x -> sum(axis = 0)",
    "(x -> dense(2) -> transpose -> softmax) @ x",
    "x -> transpose -> maxpool(2) -> global_maxpool",
    "x -> transpose -> avgpool(2) -> mean(axis = 1)",
]
STEPWISE = ["x -> dense(3) -> relu", "x -> reverse", "x -> cumsum", "x -> layernorm", "x * 2 + 1"]


@pytest.mark.parametrize("expr", [*TO_ONE, *STEPWISE])
def test_padding_changes_nothing(expr: str) -> None:
    masked, plain = session(expr, True), session(expr, False)
    rng = np.random.default_rng(5)
    lengths = [n for n in LENGTHS if n >= (2 if "pool(2)" in expr else 1)]
    x = rng.standard_normal((len(lengths), LONGEST, 6)).astype(np.float32)
    for i, n in enumerate(lengths):
        x[i, n:] = 100 * rng.standard_normal((LONGEST - n, 6))
    (result,) = masked.run(None, {"x": x, "x.lengths": np.array(lengths, np.int64)})
    for i, n in enumerate(lengths):
        feed: dict[str, Any] = {"x": x[i : i + 1, :n]}
        (wanted,) = plain.run(None, feed)
        got = result[i : i + 1, :n] if expr in STEPWISE else result[i : i + 1]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5, err_msg=f"length {n}")
