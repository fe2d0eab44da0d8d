"""`nnspec summary` beside torchinfo and Keras on the same networks: the whole process, from start to exit."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cases import Case
from .process import ROOT


def summary_times(cases: Sequence[Case], rounds: int = 3) -> list[dict[str, Any]]:
    """Return the seconds of each tool for each network, medians of rounds in turns; `absent` says why one is missing.

    `parameters` are what each tool counts. PyTorch's and Keras's recurrent layers may have a second bias.
    """
    return [_one(case, rounds) for case in cases if case.optimizer == "sgd"]


def _one(case: Case, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "case.nn"
        spec.write_text(case.text)
        commands = {
            "nnspec": ["-m", "nnspec", "summary", str(spec)],
            "torchinfo": ["-m", f"{__package__}.torch_models", case.name],
            "keras": ["-m", f"{__package__}.keras_models", case.name],
        }
        times: dict[str, list[float]] = {}
        outputs: dict[str, str] = {}
        absent: dict[str, str] = {}
        for _ in range(rounds):
            for tool, command in commands.items():
                if tool in absent:
                    continue
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, *command],
                    capture_output=True, text=True, cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "jax"},
                )  # fmt: skip
                if done.returncode:
                    absent[tool] = next(iter(done.stderr.strip().splitlines()[-1:]), f"status {done.returncode}")
                    continue
                times.setdefault(tool, []).append(time.perf_counter() - began)
                outputs[tool] = done.stdout
    return {
        "case": case.name,
        "seconds": {tool: statistics.median(found) for tool, found in times.items()},
        "parameters": {tool: _parameters(text) for tool, text in outputs.items()},
        "absent": absent,
    }


def _parameters(output: str) -> int:
    """Read the number of parameters: nnspec's line says so, the others print it last."""
    for line in output.splitlines():
        if line.startswith("parameters "):
            return int(line.split()[1].replace(",", ""))
    return int(output.split()[-1])
