"""Measure the peak of a training step's memory in a fresh process: `python measure.py FIRST.json PROGRAM.json`.

FIRST is a small program that is trained beforehand: the code and threads that it needs are not counted. Prints JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from nnspec_runtime import Device, Program, TrainingSession
from numpy.typing import NDArray


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def batch_of(program: Program) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    batch = {}
    for one in program.manifest.inputs:
        shape = [program.settings.batch if isinstance(d, str) else d for d in one.shape]
        real = one.dtype == "float32"
        drawn = rng.normal(size=shape) if real else rng.integers(0, one.classes or 2, shape)
        batch[one.name] = drawn.astype(one.numpy)
    return batch


def train(program: Program, batch: dict[str, NDArray[Any]]) -> None:
    training = TrainingSession(program, Device(threads=2))
    for _ in range(3):
        training.step(batch)


def main() -> None:
    first, program = (Program.load(path) for path in sys.argv[1:])
    train(first, batch_of(first))
    batch = batch_of(program)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    train(program, batch)
    print(json.dumps({"peak": status("VmHWM") - before}))


if __name__ == "__main__":
    main()
