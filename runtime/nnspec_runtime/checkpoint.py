"""Checkpoints: the whole state of a training run in one safetensors file, written atomically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from nnspec_runtime.errors import CheckpointError, WeightsError, listing, nearest, shape_text
from nnspec_runtime.program import Program, State
from nnspec_runtime.weights import read_tensors, write_tensors

Array = NDArray[Any]

KEY = "nnspec_training"
WEIGHT_KINDS = ("weight", "frozen", "buffer")


class Position(BaseModel):
    """Where a run stands, and what must be the same for it to go on.

    `epoch` and `batch_index` count from 0: the next batch to train on is number `batch_index` of epoch `epoch`, in
    the order that (seed, epoch) gives. `sums`, `weights` and `samples` are the running averages of that epoch.
    """

    # Figures may be infinite or NaN: written as null they could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    network: str
    train: str | None = None
    seed: int
    batch: int
    samples_total: int
    step: int = 0
    epoch: int = 0
    batch_index: int = 0
    sums: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    samples: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int | None = None
    history: tuple[dict[str, Any], ...] = ()

    def must_match(self, other: Position, path: Path) -> None:
        """Raise CheckpointError unless `other`, the run about to go on, trains the same thing in the same order."""
        problems = []
        for field, what in (
            ("network", "the network"), ("train", "the train block"), ("seed", "the seed"),
            ("batch", "a batch size of"), ("samples_total", "a number of training samples of"),
        ):  # fmt: skip
            then, now = getattr(self, field), getattr(other, field)
            if then != now:
                problems.append(f"{path} was made with {what} {then}, this run has {now}: resume with the same")
        if problems:
            raise CheckpointError(*problems)


def save_checkpoint(path: str | PathLike[str], state: Mapping[str, Array], position: Position) -> None:
    """Write state and position, atomically: a crash at any moment leaves the checkpoint before. Raises OutputError."""
    write_tensors(path, state, {KEY: position.model_dump_json()})


def load_checkpoint(path: str | PathLike[str], program: Program) -> tuple[dict[str, Array], Position]:
    """Read a checkpoint of a program. Raises CheckpointError with one sentence for each thing wrong."""
    path = Path(path)
    tensors, metadata = read_tensors(path, CheckpointError)
    if KEY not in metadata:
        raise CheckpointError(
            f"{path} is not a checkpoint of nnspec: it holds tensors, but no position in a training run"
        )
    try:
        position = Position.model_validate_json(metadata[KEY])
    except ValidationError as error:
        raise CheckpointError(f"{path} holds a position that cannot be read: {error.errors()[0]['msg']}") from None
    problems = fit_problems(program, program.manifest.state, tensors, str(path))
    if problems:
        raise CheckpointError(*problems)
    return tensors, position


def fit_weights(program: Program, weights: Mapping[str, Array], where: str = "the weights") -> dict[str, Array]:
    """Check weights (trained, frozen and buffers) against a program and return them in its dtypes.

    Every weight must be there under its own name and with its own shape, and nothing else; float16 is widened to
    float32 where that is declared. Raises WeightsError with one sentence for each thing wrong.
    """
    wanted = [one for one in program.manifest.state if one.kind in WEIGHT_KINDS]
    problems = fit_problems(program, wanted, weights, where, widen=True)
    if problems:
        raise WeightsError(*problems)
    return {one.name: np.asarray(weights[one.name]).astype(one.numpy, copy=False) for one in wanted}


def fit_problems(
    program: Program, wanted: Iterable[State], tensors: Mapping[str, Array], where: str, *, widen: bool = False
) -> list[str]:
    """Return one sentence for each missing, surplus or wrong tensor; `widen` allows casts that lose nothing.

    Tensors of other kinds that the program knows (optimizer state) are no surplus: a checkpoint serves as weights.
    """
    known = {one.name: one for one in wanted}
    every = {one.name for one in program.manifest.state}
    surplus = [name for name in tensors if name not in every]
    problems = []
    for name, one in known.items():
        if name not in tensors:
            problems.append(
                f"{where} lacks '{name}', {one.dtype} of shape {shape_text(one.shape)}{nearest(name, surplus)}"
            )
            continue
        found, shape = tensors[name], program.state_shape(one)
        if one.kind == "carry" and shape and isinstance(one.shape[0], str):
            shape = (found.shape[0], *shape[1:]) if found.ndim else shape
        if found.shape != shape:
            problems.append(
                f"'{name}' in {where} should have the shape {shape_text(shape)}, but has {shape_text(found.shape)}"
            )
        elif found.dtype != one.numpy and not (widen and np.can_cast(found.dtype, one.numpy, "safe")):
            problems.append(f"'{name}' in {where} should be {one.dtype}, but is {found.dtype}")
    if surplus:
        problems.append(f"{where} holds {listing(surplus)}, which the program does not have")
    return problems
