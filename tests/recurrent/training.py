"""Train examples on data that their generators make."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from nnspec_runtime import Device, Program, Result, Trainer, evaluate, load_data
from numpy.typing import NDArray

from examples.data import make_sequences
from nnspec.compile import compile_recipe
from nnspec.recipe import Recipe
from nnspec.training import build

EXAMPLES = Path(__file__).parents[2] / "examples" / "recurrent"
Arrays = dict[str, NDArray[Any]]


def recipe_of(file: str, network: str | None = None, **settings: Any) -> Recipe:
    """Compile an example's train block."""
    return compile_recipe(EXAMPLES / f"{file}.nn", network, settings=settings)


def program_of(recipe: Recipe) -> Program:
    """Build a training program in memory."""
    built = build(recipe)
    graphs = {kind: ir.to_proto(getattr(built, kind)).SerializeToString() for kind in ("step", "eval", "predict")}
    return Program(built.manifest, state=built.state, **graphs)


def arrays_of(task: str, count: int, seed: int, **options: Any) -> Arrays:
    """Return a task's data."""
    return make_sequences.TASKS[task](np.random.Generator(np.random.PCG64(seed)), count, **options)


def train(program: Program, data: Arrays, held: Arrays, **options: Any) -> tuple[Result, dict[str, float]]:
    """Train on the CPU; return the result, and the figures of held-out data."""
    device = Device.choose("cpu")
    names = {i.name for i in program.manifest.inputs}
    training, test = (load_data(program, {k: v for k, v in d.items() if k in names}) for d in (data, held))
    with tempfile.TemporaryDirectory() as folder:
        result = Trainer(program, training, out=folder, device=device, **options).fit()
    return result, evaluate(program, test, result.weights, device=device)
