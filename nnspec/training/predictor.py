"""Prediction alone: what a network without a train block needs to run on data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from nnspec.ir import Network
from nnspec.lower import forward_model
from nnspec.training.manifest import inputs_of, outputs_of
from nnspec.training.program import FORMAT, VERSION


def predictor(network: Network, outputs: Sequence[str] | None = None) -> tuple[dict[str, Any], ir.Model]:
    """Return a manifest and the predict graph that it describes; the weights are inputs of the graph.

    Where only some `outputs` are named, they are all that is computed, and inputs and weights that they do not need are
    left out. There is no initial state: who runs it brings the weights. Raises LoweringError where the network has no
    output of a name.
    """
    model = forward_model(network, outputs=outputs)
    read = {value.name for value in model.graph.inputs}
    given = {one["name"]: one for one in outputs_of(network)}
    # A sequence goes with its lengths, read or not.
    read |= {i.lengths for i in network.inputs if i.name in read}
    state = [
        {"name": w.name, "input": w.name, "output": None, "dtype": "float32", "shape": list(w.shape), "kind": w.kind}
        for w in network.weights
        if w.name in read
    ]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "network": network.name,
        "inputs": [one for one in inputs_of(network) if one["name"] in read],
        "state": state,
        "outputs": [given[value.name] for value in model.graph.outputs],
    }
    return manifest, model
