"""Writing networks as ONNX files, checked before they are in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING, Any

from nnspec.diagnostics import NnspecError, nearest
from nnspec.files import replacing
from nnspec.ir import Network

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from nnspec.recipe import Recipe
    from nnspec.training import Program

INLINE_LIMIT = 2**31 - 2**26
"""Bytes of weights that go into the ONNX file itself: protobuf's limit of 2 GiB, less room for the graph."""


def fit_weights(network: Network, weights: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[np.float32]]:
    """Return the weights in the network's order as float32; `where` names them in messages.

    Raises NnspecError with a line for each that is of another shape or holds no real numbers, one for all that are
    missing, and one for all that are surplus.
    """
    import numpy as np

    known = {w.name: w for w in network.weights}
    surplus = [name for name in weights if name not in known]
    missing = [name for name in known if name not in weights]
    problems = []
    if missing:
        near = nearest(missing[0], surplus)
        hint = f"; it has `{near}`" if near else ""
        problems.append(f"{where} lacks {_names(missing)}, which the network {network.name} has{hint}")
    for name, weight in known.items():
        if name not in weights:
            continue
        if tuple(weights[name].shape) != weight.shape:
            problems.append(
                f"`{name}` in {where} should have the shape {list(weight.shape)}, but has {list(weights[name].shape)}"
            )
        elif not np.can_cast(weights[name].dtype, np.float32, "safe"):
            problems.append(f"`{name}` in {where} should be float32, but is {weights[name].dtype}")
    if surplus:
        problems.append(f"{where} holds {_names(surplus)}, which the network {network.name} does not have")
    if problems:
        raise NnspecError("\n".join(problems))
    return {name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in known}


def _names(names: Sequence[str], limit: int = 4) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def write_model(model: ir.Model, path: Path, *, inline_limit: int = INLINE_LIMIT) -> list[Path]:
    """Write a model to `path`; return the files written.

    Weights of more than `inline_limit` bytes go to a file beside it, `NAME.data`. The model passes the ONNX checker
    with strict shape inference before it takes its place. Raises NnspecError where it cannot be written.
    """
    import onnx_ir as ir

    if path.is_dir():
        raise NnspecError(f"{path} is a folder; name the file to write, such as {path / 'model.onnx'}")
    external = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value) > inline_limit
    with replacing(path.parent, last=path.name) as folder:
        file = folder / path.name
        ir.save(model, file, format="protobuf", external_data=f"{path.name}.data" if external else None)
        check(file)
        return sorted((path.parent / written.name for written in folder.iterdir()), key=lambda p: p != path)


def check(file: Path) -> None:
    """Raise RuntimeError where the ONNX checker or strict shape inference refuses a file: a mistake of the compiler."""
    import onnx

    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise RuntimeError(f"the ONNX checker refuses the model: {error}") from error


def save_network(
    network: Network,
    weights: Mapping[str, NDArray[Any]],
    path: str | Path,
    *,
    unroll: bool = False,
    outputs: Sequence[str] | None = None,
    inline_limit: int = INLINE_LIMIT,
) -> list[Path]:
    """Write a network with its weights as an ONNX model; return the files written.

    Opset 21, IR version 10, a symbolic batch axis; `weights` maps every weight's name to an array of its shape. With
    `unroll` recurrences become straight-line graphs; with `outputs` the model has these alone, and the inputs that they
    need. Raises NnspecError where the weights do not fit, a sequence to unroll has no fixed length, the network has no
    such output, or the file cannot be written.
    """
    from importlib.metadata import version

    import onnx_ir as ir

    from nnspec.lower import forward_model

    fitted = fit_weights(network, weights, "the given weights")
    tensors = {name: ir.tensor(array, name=name) for name, array in fitted.items()}
    model = forward_model(network, tensors, unroll=unroll, outputs=outputs)
    model.producer_version = version("nnspec")
    model.metadata_props["nnspec.network"] = network.name
    return write_model(model, Path(path), inline_limit=inline_limit)


def save_program(training: Recipe | Program, prefix: str | Path) -> list[Path]:
    """Write a training program: PREFIX.json, the three graphs and the initial state beside it; return the files.

    The graphs pass the ONNX checker first. Raises GradientError where an operator has no gradient rule, NnspecError
    where a file cannot be written.
    """
    from nnspec.recipe import Recipe
    from nnspec.training import build, save

    program = build(training) if isinstance(training, Recipe) else training
    prefix = Path(prefix)
    manifest = f"{prefix.name}.json"
    with replacing(prefix.parent, last=manifest) as folder:
        save(program, folder / prefix.name)
        for graph in folder.glob("*.onnx"):
            check(graph)
        for file in folder.iterdir():
            # The safetensors library lets no one but the owner read what it writes.
            copymode(folder / manifest, file)
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: (name != manifest, name))
    return [prefix.parent / name for name in names]
