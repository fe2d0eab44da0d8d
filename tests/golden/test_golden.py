"""The stages of each example as text: summary, IR and ONNX nodes. `--update-golden` writes them anew; read the diff."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from nnspec.compile import compile_network
from nnspec.ir import Network, layer_json
from nnspec.lower import forward_model
from nnspec.summary import summarize

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
SMALLER: dict[str, dict[str, Any]] = {
    "resnet": {"depths": [1, 2]},
    "alphago_policy": {"filters": 8},
    "highway": {"depth": 2},
}
"""Settings that keep the texts short."""
LONG = 60


def figures(network: Network) -> list[str]:
    """Return the summary: a line for each layer, then what they amount to."""
    summary = summarize(network)
    lines = [
        f"{layer.name}: {', '.join(map(str, layer.outputs))}"
        f" | {layer.counts.parameters} parameters, {layer.macs} MACs, sees {layer.receptive_field}, line {layer.line}"
        for layer in summary.layers
    ]
    counts = summary.counts
    return [
        *lines,
        f"{counts.trainable} trainable, {counts.frozen} frozen, {counts.buffers} buffers, {summary.macs} MACs, "
        f"{summary.activation_bytes} bytes of activations",
    ]


def nodes(network: Network) -> list[str]:
    """Return the IR: a line for each node, with the arguments that differ from their defaults."""
    lines = [f"input {i.name}: {i.type}" for i in network.inputs]
    for node in network.nodes:
        defaults = {k: f.get_default() for k, f in type(node.layer).model_fields.items() if not f.is_required()}
        given = {
            k: v
            for k, v in layer_json(node.layer).items()
            if k != "kind" and getattr(node.layer, k) != defaults.get(k, ...)
        }
        arguments = ", ".join(f"{k} = {v}" for k, v in given.items())
        lines.append(f"{node.name} = {node.layer.keyword}({arguments}) of {', '.join(node.inputs)}")
    return [*lines, *(f"output {o.name} = {o.value}" for o in network.outputs)]


def graph(network: Network) -> list[str]:
    """Return the ONNX nodes, constants left out; of a long graph how many there are of each kind."""
    lines = []
    if len(network.nodes) > LONG:
        kinds = Counter(n.op_type for n in forward_model(network).graph if n.op_type != "Constant")
        return [f"{count} {kind}" for kind, count in sorted(kinds.items())]
    for node in forward_model(network).graph:
        if node.op_type == "Constant":
            continue
        read = [("-" if v is None else "constant" if is_constant(v) else v.name) for v in node.inputs]
        shape = ["?" if v.shape is None else f"[{', '.join(str(d) for d in v.shape)}]" for v in node.outputs]
        made = ", ".join(v.name or "" for v in node.outputs)
        lines.append(f"{node.op_type}({', '.join(map(str, read))}) -> {made} {' '.join(shape)}")
    return lines


def is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.nn")), ids=lambda p: p.stem)
def test_example(path: Path, update_golden: bool) -> None:
    network = compile_network(path, settings=SMALLER.get(path.stem)).network
    parts = {"summary": figures(network), "IR": nodes(network), "ONNX": graph(network)}
    text = "\n".join(f"--- {title}\n" + "\n".join(lines) + "\n" for title, lines in parts.items())
    stored = HERE / f"{path.stem}.txt"
    if update_golden:
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


def test_no_text_is_left_over() -> None:
    assert {p.stem for p in HERE.glob("*.txt")} == {p.stem for p in EXAMPLES.glob("*.nn")}
