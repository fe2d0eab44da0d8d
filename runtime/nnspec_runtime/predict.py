"""Outputs of a network for a data set, batch by batch, through the predict graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.data import Dataset
from nnspec_runtime.errors import ProgramError
from nnspec_runtime.evaluate import GraphRunner
from nnspec_runtime.program import Program
from nnspec_runtime.session import Device

Array = NDArray[Any]


def predict(
    program: Program, data: Dataset, weights: Mapping[str, Array] | None = None, *, device: Device | None = None
) -> dict[str, Array]:
    """Return the outputs by name, one row for each sample of `data`, in its order.

    Batches of sequences are cut to their own longest; where their results differ in size the shorter ones are
    filled with zeros at the end. Without `weights` the initial ones are used. Raises WeightsError, ProgramError.
    """
    runner = GraphRunner(program, "predict", device or Device())
    runner.bind_arrays(weights)
    names = [one.name for one in program.manifest.outputs]
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for chosen, outputs in runner.run(data, names):
        for name, output in zip(names, outputs, strict=True):
            if output.ndim == 0 or len(output) != len(chosen):
                raise ProgramError(
                    f"the output '{name}' has no batch axis: {list(output.shape)} for {len(chosen)} samples"
                )
            parts[name].append(np.array(output))
    return {name: _join(arrays) for name, arrays in parts.items()}


def _join(parts: list[Array]) -> Array:
    """Concatenate batches, each filled with zeros up to the largest size of every axis."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    sizes = np.max([part.shape[1:] for part in parts], axis=0)
    whole = np.zeros((sum(len(part) for part in parts), *sizes), parts[0].dtype)
    at = 0
    for part in parts:
        whole[(slice(at, at + len(part)), *(slice(0, size) for size in part.shape[1:]))] = part
        at += len(part)
    return whole
