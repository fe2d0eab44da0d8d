"""What a network amounts to: shapes, parameters, multiply-accumulates, receptive fields, activation memory.

`summarize` computes it from the IR alone; `table` and `html` show it to people, `Summary.as_json` to programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nnspec.dims import Dim, total
from nnspec.ir import Network, Node, TensorType, Weight
from nnspec.summary.receptive import Field, ReceptiveFields

__all__ = ["Counts", "LayerSummary", "Summary", "summarize"]

BYTES = {"float32": 4, "int64": 8, "bool": 1}


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of weights: those that training changes by gradients, those that it leaves, and buffers."""

    trainable: int = 0
    frozen: int = 0
    buffers: int = 0

    @property
    def parameters(self) -> int:
        """Trainable and frozen parameters; buffers such as running means are none."""
        return self.trainable + self.frozen

    @property
    def bytes(self) -> int:
        """What all of them take in float32."""
        return 4 * (self.parameters + self.buffers)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.trainable + other.trainable, self.frozen + other.frozen, self.buffers + other.buffers)


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One use of a layer. Weights that an earlier use holds are not counted again: then `shared` is true."""

    name: str
    kind: str
    outputs: tuple[TensorType, ...]
    counts: Counts
    macs: Dim
    receptive_field: Field
    line: int
    shared: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; `outputs` is there where the layer has more than one."""
        field = self.receptive_field
        more = {"outputs": [_shape(o) for o in self.outputs]} if len(self.outputs) > 1 else {}
        return {
            "name": self.name,
            "kind": self.kind,
            "output": _shape(self.outputs[0]),
            **more,
            "parameters": self.counts.parameters,
            "macs": _figure(self.macs),
            "receptive_field": list(field) if isinstance(field, tuple) else field,
            "line": self.line,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """A network's layers in order, and what they amount to.

    `macs` counts the multiply-accumulates of convolutions and products for one sample, forward. `activation_bytes` is
    the sum of the sizes of all layers' outputs for one sample: 4 bytes for a real number, 8 for an integer, 1 for a
    truth value. Inputs, weights and numbers written in the spec do not count; nothing is taken off for memory that
    may be used twice. A figure that depends on a symbolic size is an expression in it.
    """

    network: str
    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    layers: tuple[LayerSummary, ...]
    counts: Counts
    macs: Dim
    activation_bytes: Dim

    def as_json(self) -> dict[str, Any]:
        """Return the summary as plain data: what `nnspec summary --format json` prints."""
        return {
            "network": self.network,
            "inputs": {name: _shape(type_) for name, type_ in self.inputs.items()},
            "outputs": {name: _shape(type_) for name, type_ in self.outputs.items()},
            "layers": [layer.as_json() for layer in self.layers],
            "parameters": {
                "trainable": self.counts.trainable,
                "frozen": self.counts.frozen,
                "buffers": self.counts.buffers,
            },
            "macs": _figure(self.macs),
            "activation_bytes": _figure(self.activation_bytes),
        }


def summarize(network: Network) -> Summary:
    """Return what a network amounts to; weights that several layers share count once."""
    types = network.types()
    weights = {w.name: w for w in network.weights}
    fields = ReceptiveFields({i.name: i.type for i in network.inputs})
    counted: set[str] = set()
    layers = []
    for node in network.nodes:
        fresh = [name for name in node.weights.values() if name not in counted]
        counted.update(fresh)
        x = [types[name] for name in node.inputs]
        layers.append(
            LayerSummary(
                name=node.name,
                kind=node.layer.title,
                outputs=node.outputs,
                counts=_count(weights[name] for name in fresh),
                macs=node.layer.macs(*x),
                receptive_field=fields.add(node, x),
                line=node.line,
                shared=len(fresh) < len(node.weights),
            )
        )
    return Summary(
        network=network.name,
        inputs={i.name: i.type for i in network.inputs},
        outputs={o.name: types[o.value] for o in network.outputs},
        layers=tuple(layers),
        counts=_count(weights.values()),
        macs=total(layer.macs for layer in layers),
        activation_bytes=total(_bytes(node) for node in network.nodes if node.layer.arity != 0),
    )


def _count(weights: Iterable[Weight]) -> Counts:
    trainable = frozen = buffers = 0
    for weight in weights:
        if weight.kind == "buffer":
            buffers += weight.size
        elif weight.trainable:
            trainable += weight.size
        else:
            frozen += weight.size
    return Counts(trainable, frozen, buffers)


def _bytes(node: Node) -> Dim:
    return total(output.size * BYTES[output.dtype] for output in node.outputs)


def _figure(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)


def _shape(type_: TensorType) -> list[int | str]:
    return [_figure(dim) for dim in type_.shape]
