"""`Program`: a training step as an artefact: graphs, initial state, and the manifest that names what they hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FORMAT = "nnspec-training"
VERSION = 1


class Start(Mapping[str, NDArray[Any]]):
    """The state that training starts from, by name; each tensor is made whenever it is asked for, and always the same.

    So nobody holds the weights of a large network twice while it is trained.
    """

    def __init__(self, made_by: Mapping[str, Callable[[], NDArray[Any]]]) -> None:
        self._made_by = made_by

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._made_by[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made_by)

    def __len__(self) -> int:
        return len(self._made_by)


@dataclass(frozen=True)
class Program:
    """Hold what it takes to train a network with any ONNX runtime.

    `step` maps a batch and the state to the next state, the loss and the metrics; `eval` maps a batch and the weights
    to loss and metrics; `predict` maps inputs and weights to the network's outputs. `state` is where training starts.
    """

    manifest: dict[str, Any]
    step: ir.Model
    eval: ir.Model
    predict: ir.Model
    state: Mapping[str, NDArray[Any]] = field(repr=False)


def save(program: Program, prefix: str | Path) -> Path:
    """Write PREFIX.json, the three graphs and the initial state beside it; return the path of the JSON.

    Raise OSError where a file cannot be written.
    """
    from safetensors.numpy import save_file

    prefix = Path(prefix)
    stem = prefix.name
    files = {kind: f"{stem}.{kind}.onnx" for kind in ("step", "eval", "predict")}
    for kind, name in files.items():
        ir.save(getattr(program, kind), prefix.with_name(name))
    files["state"] = f"{stem}.state.safetensors"
    save_file({name: np.asarray(a, order="C") for name, a in program.state.items()}, prefix.with_name(files["state"]))
    path = prefix.with_name(f"{stem}.json")
    path.write_text(json.dumps({**program.manifest, "files": files}, indent=2) + "\n", encoding="utf-8")
    return path
