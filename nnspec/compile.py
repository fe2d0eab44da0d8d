"""The whole pipeline on one screen: text, tree, IR, graph, training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnspec.diagnostics import Code, Diagnostic, NnspecError
from nnspec.elaborate import (
    DEFAULT_LIMIT,
    Compiled,
    check_module,
    elaborate,
    elaborate_recipe,
    load_module,
    survey_module,
)
from nnspec.source import Source

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from nnspec.ir import Network
    from nnspec.recipe import Recipe


def read_source(path: str | Path) -> Source:
    """Read a .nn file; raise NnspecError in one sentence where that cannot be."""
    try:
        return Source(str(path), Path(path).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise NnspecError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise NnspecError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise NnspecError(f"{path} cannot be read: {error.strerror}") from None


def compile_network(
    path: str | Path | Source,
    network: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Compiled:
    """text -> tree -> Network. Raises SpecError with every independent error of the file."""
    source = path if isinstance(path, Source) else read_source(path)
    return elaborate(load_module(source), network, settings, limit)


def compile_recipe(
    path: str | Path | Source,
    network: str | None = None,
    train: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Recipe:
    """text -> tree -> Network with loss and metrics, and how to train it."""
    source = path if isinstance(path, Source) else read_source(path)
    return elaborate_recipe(load_module(source), network, train, settings, limit)[0]


def check_file(
    path: str | Path | Source, settings: Mapping[str, Any] | None = None, limit: int = DEFAULT_LIMIT
) -> list[Diagnostic]:
    """Return every finding on a file: on its text, each of its networks, and each of its train blocks.

    A setting goes to the networks that have a parameter of its name. Raises NnspecError where the file cannot be read.
    """
    source = path if isinstance(path, Source) else read_source(path)
    module, found = survey_module(source)
    if any(d.code in (Code.SYNTAX, Code.IMPORT, Code.CYCLE) for d in found):
        return found  # what is missing would make errors of its own
    return [*found, *check_module(module, settings, limit)]


def initial_weights(network: Network, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Draw every weight's start from a seed."""
    from nnspec.initializers import sample

    return {w.name: sample(w.init, w.shape, w.fan, w.name, seed) for w in network.weights}


def export_model(
    network: Network, weights: Mapping[str, NDArray[np.float32]], outputs: Sequence[str] | None = None
) -> ir.Model:
    """Network -> forward graph with its weights inside; of some outputs alone, with the inputs that these need."""
    import onnx_ir

    from nnspec.lower import forward_model

    tensors = {name: onnx_ir.tensor(array, name=name) for name, array in weights.items()}
    return forward_model(network, tensors, outputs=outputs)
