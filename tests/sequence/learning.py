"""Train an example on data that its script makes, and run what it learned on other data."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from nnspec_runtime import Trainer, load_data

from nnspec.cli.runtime import training_program
from nnspec.compile import compile_network, compile_recipe
from nnspec.lower import forward_model
from tests.sequence.graphs import Arrays, session, tensors

EXAMPLES = Path(__file__).parents[2] / "examples"


@cache
def data_script() -> ModuleType:
    """Load examples/data/make_transductions.py."""
    found = importlib.util.spec_from_file_location("make_transductions", EXAMPLES / "data" / "make_transductions.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def make(task: str, count: int, seed: int, **options: Any) -> Arrays:
    """Return the data of a task."""
    arrays: Arrays = data_script().TASKS[task](np.random.default_rng(seed), count, **options)
    return arrays


class Learned:
    """An example trained on data; `outputs` runs the exported model with the weights that came out."""

    def __init__(self, name: str, data: Arrays, **changes: Any) -> None:
        path = EXAMPLES / "sequence" / f"{name}.nn"
        recipe = compile_recipe(path).model_copy(update=changes)
        program = training_program(recipe)
        self.result = Trainer(
            program, load_data(program, {k: v for k, v in data.items() if k in program_inputs(program)})
        ).fit()
        self.network = compile_network(path).network

    def outputs(self, data: Arrays, *names: str) -> Arrays:
        """Return outputs for data, from a model that has these outputs alone."""
        weights = {w.name: np.asarray(self.result.weights[w.name]) for w in self.network.weights}
        opened = session(forward_model(self.network, tensors(weights), outputs=names))
        feed = {i.name: data[i.name] for i in opened.get_inputs()}
        return dict(zip(names, opened.run(list(names), feed), strict=True))


def program_inputs(program: Any) -> set[str]:
    """Return the names of the data that a program takes."""
    return {i.name for i in program.manifest.inputs}
