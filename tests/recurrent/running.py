"""Compile a text and run it in ONNX Runtime: what the tests of recurrent cells share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from nnspec.compile import compile_network
from nnspec.ir import Network
from nnspec.lower import forward_model
from nnspec.source import Source

Arrays = dict[str, NDArray[Any]]


def network_of(text: str, **settings: Any) -> Network:
    """Return the network that a text declares; it must give no warnings."""
    compiled = compile_network(Source("test.nn", text), settings=settings)
    assert compiled.warnings == ()
    return compiled.network


def random_weights(network: Network, seed: int = 0, scale: float = 0.5) -> Arrays:
    """Return weights that are nowhere zero, biases and peepholes included."""
    rng = np.random.default_rng(seed)
    return {w.name: (rng.standard_normal(w.shape) * scale).astype(np.float32) for w in network.weights}


def model_of(network: Network, weights: Arrays, **options: Any) -> onnx.ModelProto:
    """Return the checked inference model."""
    model = forward_model(network, {k: ir.tensor(v, name=k) for k, v in weights.items()}, **options)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    return proto


def run(model: onnx.ModelProto, feed: Arrays) -> Arrays:
    """Run a model; return its outputs by name."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Count the operators of a model's main graph."""
    return Counter(node.op_type for node in model.graph.node)


def reals(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Return random real data."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
