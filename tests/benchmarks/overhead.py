"""What nnspec itself costs beside the arithmetic: Python around a step, opening sessions, loading data.

`python -m tests.benchmarks.overhead THREADS ROUNDS` measures in this process and prints JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .cases import CASES, Case
from .frameworks import Nnspec, Setup
from .process import ROOT, Failure
from .worker import hold_to

SMALLEST = "mlp-64"
MIDDLE = "mlp-500"
LARGE = ROOT / "examples" / "resnet.nn"
LARGE_BATCH = 32


@dataclass
class Clock:
    """Seconds spent inside ONNX Runtime's library, and how often it was entered."""

    seconds: float = 0.0
    runs: int = 0


@contextmanager
def clocked() -> Iterator[Clock]:
    """Let every session that is opened meanwhile tell the clock how long it runs."""
    from onnxruntime.capi import onnxruntime_inference_collection as python_side

    library = python_side.C
    plain = library.InferenceSession
    clock = Clock()

    class Session(plain):  # type: ignore[misc, valid-type]
        def run_with_iobinding(self, *arguments: Any) -> Any:
            run = super().run_with_iobinding
            began = time.perf_counter()
            result = run(*arguments)
            clock.seconds += time.perf_counter() - began
            clock.runs += 1
            return result

    library.InferenceSession = Session
    try:
        yield clock
    finally:
        library.InferenceSession = plain


def step_split(case: Case, setup: Setup, rounds: int, steps: int) -> dict[str, Any]:
    """Return the microseconds of one step, and how many of them are Python's: medians of rounds in turns.

    Python's are those outside ONNX Runtime's library; the clock's own fraction of a microsecond is among them.
    """
    bare = Nnspec(case, setup)
    with clocked() as clock:
        watched = Nnspec(case, setup)
    whole, outside = [], []
    for at in range(rounds + 1):  # the first is warm-up
        began = time.perf_counter()
        bare.steps(steps)
        took = time.perf_counter() - began
        clock.seconds, clock.runs = 0.0, 0
        began = time.perf_counter()
        watched.steps(steps)
        around = time.perf_counter() - began - clock.seconds
        if clock.runs != steps:
            raise RuntimeError(f"{steps} steps entered ONNX Runtime {clock.runs} times")
        if at:
            whole.append(took / steps * 1e6)
            outside.append(around / steps * 1e6)
    total, python = statistics.median(whole), statistics.median(outside)
    return {"case": case.name, "step_us": total, "python_us": python, "onnxruntime_us": total - python}


def session_creation(setup: Setup, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the seconds from ResNet-50's text to its program, and from there to a session that can train it.

    `settings` are the network's, for another of the family.
    """
    from nnspec_runtime import Device, TrainingSession

    from nnspec.cli.runtime import training_program
    from nnspec.compile import compile_recipe
    from nnspec.source import Source

    text = LARGE.read_text() + (
        "train ResNet {\n  target label: int\n  loss = cross_entropy(logits, label)\n"
        f"  optimizer = sgd(lr = 0.1, momentum = 0.9)\n  batch = {LARGE_BATCH}\n}}\n"
    )
    device = Device(setup.device, threads=setup.threads)
    began = time.perf_counter()
    program = training_program(compile_recipe(Source(LARGE.name, text), settings=settings), device)
    compiled = time.perf_counter()
    TrainingSession(program, device)
    opened = time.perf_counter()
    return {"case": f"resnet-50, batch {LARGE_BATCH}", "compile_s": compiled - began, "session_s": opened - compiled}


def data_loading(case: Case, setup: Setup, rounds: int, steps: int) -> dict[str, Any]:
    """Return milliseconds per step of bare steps on a batch that lies ready, and of a Trainer's epochs over data."""
    from nnspec_runtime import Trainer, load_data

    bare = Nnspec(case, setup)
    x, label = case.data(case.batch * steps)
    program = bare.session.program
    data = load_data(program, {"x": x, "label": label})
    ready, trained = [], []
    for at in range(rounds + 1):  # the first is warm-up
        trainer = Trainer(program, data, device=bare.device, epochs=2)
        epoch = trainer.fit().history[-1]["seconds"]
        bare.reset()
        bare.steps(steps)
        began = time.perf_counter()
        bare.steps(steps)
        if at:
            ready.append((time.perf_counter() - began) / steps * 1000)
            trained.append(epoch / steps * 1000)
    own, epoch = statistics.median(ready), statistics.median(trained)
    return {"case": case.name, "bytes": x[: case.batch].nbytes, "step_ms": own, "epoch_step_ms": epoch}


def overhead(threads: int, rounds: int) -> dict[str, Any]:
    """Measure it all in a process of its own. Raises Failure."""
    command = [sys.executable, "-m", f"{__package__}.overhead", str(threads), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise Failure(next(iter(done.stderr.strip().splitlines()[-1:]), f"status {done.returncode}"))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _measure(threads: int, rounds: int) -> dict[str, Any]:
    hold_to(threads)
    setup = Setup(weights="", threads=threads)
    smallest, middle = (next(c for c in CASES if c.name == name) for name in (SMALLEST, MIDDLE))
    return {
        "step": step_split(smallest, setup, rounds, 1000),
        "session": session_creation(setup),
        "loading": data_loading(middle, setup, rounds, 100),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(*map(int, sys.argv[1:]))))
