"""Run parts of specs: a network's outputs, a train block's figures, and gradients by the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from nnspec.compile import compile_network, compile_recipe, initial_weights
from nnspec.ir import Network
from nnspec.lower import finish_outputs, forward_model, lower
from nnspec.ops import IR_VERSION
from nnspec.source import Source

Arrays = dict[str, np.ndarray]


def network_of(text: str) -> Network:
    """Compile the only network of a spec."""
    return compile_network(Source("test.nn", text)).network


def tensors(weights: Arrays) -> dict[str, Any]:
    """Return weights as the exporter takes them."""
    return {name: ir.tensor(array, name=name) for name, array in weights.items()}


def session(model: ir.Model) -> ort.InferenceSession:
    """Check a model with ONNX's own checker, then open it in plain ONNX Runtime."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def run(network: Network, feed: Arrays, weights: Arrays | None = None, **options: Any) -> Arrays:
    """Export a network with weights (by default the initial ones) and run it."""
    opened = session(
        forward_model(network, tensors(initial_weights(network) if weights is None else weights), **options)
    )
    wanted = {i.name for i in opened.get_inputs()}
    results = opened.run(None, {k: v for k, v in feed.items() if k in wanted})
    return {o.name: np.asarray(r) for o, r in zip(opened.get_outputs(), results, strict=True)}


def figures(text: str, feed: Arrays, by: str | None = None) -> Arrays:
    """Return a train block's loss and metrics, and the gradient of the loss by an input as `gradient`."""
    from nnspec.autodiff import differentiate

    recipe = compile_recipe(Source("test.nn", text))
    lowered = lower(recipe.network)
    outputs = {"loss": lowered.values[recipe.loss], **{m.name: lowered.values[m.value] for m in recipe.metrics}}
    if by is not None:
        (gradient,) = differentiate(lowered.ops, outputs["loss"], [lowered.values[by]])
        assert gradient is not None
        outputs["gradient"] = gradient
    finish_outputs(lowered, outputs)
    weights = tensors(initial_weights(recipe.network))
    for name, value in lowered.weights.items():
        value.const_value = weights[name]
        lowered.graph.register_initializer(value)
    opened = session(ir.Model(lowered.graph, ir_version=IR_VERSION))
    return dict(zip([o.name for o in opened.get_outputs()], opened.run(None, feed), strict=True))
