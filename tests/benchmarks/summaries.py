"""`nnspec summary` beside torchinfo and Keras on the same network: the whole process, from start to exit."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .cases import CASES

_TORCHINFO = {
    "mlp-500": "n.Sequential(n.Linear(784,500),n.ReLU(),n.Linear(500,500),n.ReLU(),n.Linear(500,10)), (1,784)",
    "lecture-cnn": "n.Sequential(n.Conv2d(1,25,3),n.ReLU(),n.MaxPool2d(2),n.Conv2d(25,50,3),n.ReLU(),n.MaxPool2d(2),"
    "n.Flatten(),n.Linear(1250,100),n.ReLU(),n.Linear(100,10)), (1,1,28,28)",
}
_KERAS = {
    "mlp-500": "[k.Input((784,)),l.Dense(500,'relu'),l.Dense(500,'relu'),l.Dense(10)]",
    "lecture-cnn": "[k.Input((28,28,1)),l.Conv2D(25,3,activation='relu'),l.MaxPool2D(),"
    "l.Conv2D(50,3,activation='relu'),l.MaxPool2D(),l.Flatten(),l.Dense(100,'relu'),l.Dense(10)]",
}


def summary_times(names: list[str], rounds: int = 5) -> list[dict[str, Any]]:
    """Return median seconds for each case that all three have; a tool that is not installed is left out."""
    found = []
    for case in (c for c in CASES if c.name in names and c.name in _TORCHINFO):
        with tempfile.TemporaryDirectory() as folder:
            spec = Path(folder) / "case.nn"
            spec.write_text(case.text)
            torchinfo = f"import torch.nn as n; from torchinfo import summary as s; print(s({_TORCHINFO[case.name]}))"
            keras = f"import keras as k; l=k.layers; k.Sequential({_KERAS[case.name]}).summary()"
            commands = {
                "nnspec": [sys.executable, "-m", "nnspec", "summary", str(spec)],
                "torchinfo": [sys.executable, "-c", torchinfo],
                "keras (jax)": [sys.executable, "-c", keras],
            }
            times: dict[str, list[float]] = {}
            for _ in range(rounds):
                for tool, command in commands.items():
                    began = time.perf_counter()
                    done = subprocess.run(command, capture_output=True, env={**os.environ, "KERAS_BACKEND": "jax"})
                    if done.returncode == 0:
                        times.setdefault(tool, []).append(time.perf_counter() - began)
            found.append({"case": case.name, "seconds": {t: statistics.median(v) for t, v in times.items()}})
    return found
