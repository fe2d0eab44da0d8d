"""From what the compiler makes to what the runtime runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nnspec.cli.garbage import not_collected
from nnspec.diagnostics import NnspecError

if TYPE_CHECKING:
    import nnspec_runtime as runtime
    import onnx_ir as ir

    from nnspec.ir import Network
    from nnspec.ops import Target
    from nnspec.recipe import Recipe


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what the runtime says into the compiler's own error, a line for each problem."""
    from nnspec_runtime.errors import RunError

    try:
        yield
    except RunError as error:
        raise NnspecError("\n".join(error.problems)) from error


def training_program(recipe: Recipe, device: runtime.Device | None = None) -> runtime.Program:
    """Return the program of a train block, in memory; its step is made for the device, where one is given."""
    from nnspec_runtime import Program
    from nnspec_runtime.program import parse_manifest

    from nnspec.ops import CUDA, PORTABLE
    from nnspec.training import build

    target = PORTABLE
    if device is not None:
        target = CUDA if device.kind == "cuda" else this_cpu()
    with not_collected():
        built = build(recipe, target)
        return Program(
            parse_manifest(built.manifest),
            step=serialize(built.step),
            eval=serialize(built.eval),
            predict=serialize(built.predict),
            state=built.state,
        )


def this_cpu() -> Target:
    """Return the target of steps that are trained here, on the CPU."""
    from nnspec_runtime.layout import channel_block

    from nnspec.ops import Target

    return Target(alone=True, block=channel_block())


def serialize(model: ir.Model) -> bytes:
    """Return a model's bytes; its weights are inputs, so that it is small."""
    import onnx_ir

    content: bytes = onnx_ir.to_proto(model).SerializeToString()
    return content


def predict_program(
    network: Network, weights: Mapping[str, Any], outputs: Sequence[str] | None = None
) -> runtime.Program:
    """Return a program that predicts with weights that fit the network: all outputs, or those named."""
    from nnspec_runtime import Program
    from nnspec_runtime.program import parse_manifest

    from nnspec.training.predictor import predictor

    manifest, model = predictor(network, outputs)
    used = {s["name"]: weights[s["name"]] for s in manifest["state"]}
    return Program(parse_manifest(manifest), predict=serialize(model), state=used)


def read_weights(path: str, network: Network) -> dict[str, Any]:
    """Read a weights file, or the weights of a checkpoint; raise NnspecError where they do not fit the network."""
    from nnspec.export import fit_weights

    with sentences():
        from nnspec_runtime.checkpoint import KEY
        from nnspec_runtime.weights import read_tensors

        arrays, metadata = read_tensors(path)
    if KEY in metadata:
        known = {w.name for w in network.weights}
        arrays = {name: array for name, array in arrays.items() if name in known}
    return fit_weights(network, arrays, path)
