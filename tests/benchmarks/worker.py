"""One framework, one case, one process: read commands on stdin, answer each with a line of JSON.

Commands: `losses N` trains N steps from the start and answers their losses; `predict B` answers the logits of a batch
of B; `steps N` and `infer B N` answer the seconds of N training steps from the start, and of N predictions. What goes
wrong is answered as `error`. In the mode `memory` it answers what training takes of memory, and ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

from .cases import CASES, Case
from .frameworks import FRAMEWORKS, Runner, Setup, load_framework
from .memory import Meter

MEMORY_STEPS = 5


def main(framework: str, name: str, mode: str, setup: Setup) -> None:
    """Serve one framework and case until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not mix with the answers
    if setup.device == "cpu":
        hold_to(setup.threads)
    case = next(c for c in CASES if c.name == name)
    if mode == "memory":
        _answer(out, lambda: memory(framework, case, setup))
        return
    served: list[Server] = []

    def first_step() -> dict[str, Any]:
        runner = FRAMEWORKS[framework](case, setup)
        runner.steps(1)
        served.append(Server(runner))
        return {}

    if _answer(out, first_step):
        for line in sys.stdin:
            command, *numbers = line.split()
            _answer(out, partial(served[0].do, command, *map(int, numbers)))


class Server:
    """Do what commands say with one framework at work on one case."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._predictors: dict[int, Callable[[], Any]] = {}

    def do(self, command: str, *numbers: int) -> dict[str, Any]:
        """Return the answer to a command."""
        if command in ("losses", "steps"):
            self.runner.reset()
            start = time.perf_counter()
            losses = self.runner.steps(numbers[0])
            return {"losses": losses} if command == "losses" else {"seconds": time.perf_counter() - start}
        if command == "predict":
            return {"logits": self._predictor(numbers[0])().ravel().tolist()}
        if command == "infer":
            predict, count = self._predictor(numbers[0]), numbers[1]
            start = time.perf_counter()
            for _ in range(count):
                predict()
            return {"seconds": time.perf_counter() - start}
        raise ValueError(f"unknown command {command}")

    def _predictor(self, batch: int) -> Callable[[], Any]:
        if batch not in self._predictors:
            self._predictors[batch] = self.runner.predictor(batch)
        return self._predictors[batch]


def memory(framework: str, case: Case, setup: Setup) -> dict[str, Any]:
    """Return what training a case takes of memory."""
    load_framework(framework, setup)
    meter = Meter()
    runner = FRAMEWORKS[framework](case, setup)
    runner.steps(1)
    meter.steps_begin()
    runner.steps(MEMORY_STEPS)
    return meter.memory().as_json()


def hold_to(threads: int) -> None:
    """Give this process as many CPUs as threads: XLA takes a thread for each CPU and cannot be told otherwise."""
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    cores = list({_core(cpu): cpu for cpu in reversed(allowed)}.values())[::-1]
    chosen = [*cores, *(cpu for cpu in allowed if cpu not in cores)][:threads]
    os.sched_setaffinity(0, chosen)


def _core(cpu: int) -> str:
    """Return which CPUs share a core with this one."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text().strip() if siblings.exists() else str(cpu)


def _answer(out: IO[str], what: Callable[[], dict[str, Any]]) -> bool:
    """Write an answer or what went wrong; return whether all went well."""
    try:
        answer = what()
    except Exception as error:
        print(repr(error), file=sys.stderr)
        answer = {"error": reason_of(error)}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    return "error" not in answer


def reason_of(error: Exception) -> str:
    """Return the type and the first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


if __name__ == "__main__":
    _framework, _case, _mode, _setup = sys.argv[1:]
    main(_framework, _case, _mode, Setup(**json.loads(_setup)))
