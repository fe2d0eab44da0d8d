"""Prediction alone: what a network without a train block needs to run on data."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from nnspec.ir import Network
from nnspec.lower import forward_model
from nnspec.training.manifest import inputs_of, outputs_of
from nnspec.training.program import FORMAT, VERSION


def predictor(network: Network) -> tuple[dict[str, Any], ir.Model]:
    """Return a manifest and the predict graph that it describes; the weights are inputs of the graph.

    There is no initial state: who runs it brings the weights.
    """
    state = [
        {"name": w.name, "input": w.name, "output": None, "dtype": "float32", "shape": list(w.shape), "kind": w.kind}
        for w in network.weights
    ]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "network": network.name,
        "inputs": inputs_of(network),
        "state": state,
        "outputs": outputs_of(network),
    }
    return manifest, forward_model(network)
