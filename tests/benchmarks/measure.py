"""Prove that all frameworks compute the same, then time them in turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from .process import Failure

TOLERANCE = 1e-4
PROOF_STEPS = 10
INFER_BATCHES = (1, 32)
MOST_REPETITIONS = 2000
FEWEST_REPETITIONS = 3

Answers = dict[str, dict[str, Any]]


class Asked(Protocol):
    """One framework at work on one case: a Worker, or what stands in for it in a test."""

    first: dict[str, Any]
    first_step: float

    def ask(self, command: str) -> dict[str, Any]: ...

    def close(self) -> None: ...


Start = Callable[[str, str], Asked]
"""Start a framework in a mode: `serve`, `exact` (to prove that it computes the same) or `memory`. Raises Failure."""


@dataclass(frozen=True)
class Plan:
    """What to measure of each case; `rounds` turns of about `seconds` each."""

    rounds: int = 7
    seconds: float = 0.5
    time: bool = True
    inference: bool = True
    memory: bool = True
    apart: bool = False
    """Prove in processes of their own, because those that are timed compute with less precision."""


class Crew:
    """The frameworks of one case at work. A peer that fails is left out from there on; nnspec must not fail."""

    def __init__(self, frameworks: Sequence[str], start: Start, mode: str, absent: dict[str, str]) -> None:
        self.workers: dict[str, Asked] = {}
        self._absent = absent
        for framework in frameworks:
            if framework not in absent:
                self._try(framework, partial(self._start, framework, start, mode))

    def _start(self, framework: str, start: Start, mode: str) -> dict[str, Any]:
        self.workers[framework] = start(framework, mode)
        return {}

    def ask(self, framework: str, command: str) -> dict[str, Any] | None:
        """Return one answer; None from a peer that fails, now or earlier."""
        worker = self.workers.get(framework)
        return None if worker is None else self._try(framework, lambda: worker.ask(command))

    def everyone(self, command: str) -> Answers:
        """Return the answers of all that have one."""
        answers = {framework: self.ask(framework, command) for framework in list(self.workers)}
        return {framework: answer for framework, answer in answers.items() if answer is not None}

    def _try(self, framework: str, what: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return what()
        except Failure as failure:
            if framework == "nnspec":
                raise
            self._absent[framework] = str(failure)
            worker = self.workers.pop(framework, None)
            if worker is not None:
                worker.close()
            return None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for worker in self.workers.values():
            worker.close()


def measure(case: str, frameworks: Sequence[str], start: Start, plan: Plan) -> dict[str, Any]:
    """Return one case's results as plain data; `absent` says why a peer is missing. Raises Failure for nnspec's own."""
    absent: dict[str, str] = {}
    result: dict[str, Any] = {"case": case, "nnspec_ms": None, "peers": {}, "ratio": None, "absent": absent}
    if plan.time and plan.apart:
        with Crew(frameworks, start, "exact", absent) as crew:
            result |= prove(crew, plan.inference)
    if plan.time:
        with Crew(frameworks, start, "serve", absent) as crew:
            if not plan.apart:
                result |= prove(crew, plan.inference)
            result["first_step_s"] = {f: w.first_step for f, w in crew.workers.items()}
            times = in_turns(crew, "steps", plan)
            result |= compare(times)
            result["spread"] = {f: [min(v), max(v)] for f, v in times.items()}
            if plan.inference:
                result["inference"] = [
                    {"batch": batch, **compare(in_turns(crew, f"infer {batch}", plan))} for batch in INFER_BATCHES
                ]
    if plan.memory:
        result["memory"] = memory_in_turns(frameworks, start, absent)
    return result


def prove(crew: Crew, inference: bool) -> dict[str, Any]:
    """Return whether all have the same loss after ten steps, and the same logits where predictions are timed too."""
    losses = {f: a["losses"][-1:] for f, a in crew.everyone(f"losses {PROOF_STEPS}").items()}
    found = {"loss_difference": difference(losses)}
    if inference:
        logits = crew.everyone(f"predict {max(INFER_BATCHES)}")
        found["logits_difference"] = difference({f: a["logits"] for f, a in logits.items()})
    return {"same": all(one <= TOLERANCE for one in found.values()), **found}


def difference(values: Mapping[str, Sequence[float]]) -> float:
    """Return the largest difference of a peer's numbers from nnspec's, in parts of nnspec's largest."""
    reference = values["nnspec"]
    scale = max((abs(v) for v in reference), default=0.0) or 1.0
    worst = 0.0
    for peer in values.values():
        if len(peer) != len(reference):
            return math.inf
        apart = [abs(a - b) / scale for a, b in zip(peer, reference, strict=True)]
        if not all(map(math.isfinite, (*apart, scale))):
            return math.inf
        worst = max([worst, *apart])
    return worst


def in_turns(crew: Crew, command: str, plan: Plan) -> dict[str, list[float]]:
    """Time a command in the order A B A B, warm-up excluded; return milliseconds of one repetition for each round."""
    counts = {}
    for framework in list(crew.workers):
        tried = crew.ask(framework, f"{command} {FEWEST_REPETITIONS}")
        if tried is None:
            continue
        once = tried["seconds"] / FEWEST_REPETITIONS
        count = max(FEWEST_REPETITIONS, min(MOST_REPETITIONS, int(plan.seconds / max(once, 1e-6))))
        if crew.ask(framework, f"{command} {count}"):
            counts[framework] = count
    times: dict[str, list[float]] = {framework: [] for framework in counts}
    for _ in range(plan.rounds):
        for framework, count in counts.items():
            answer = crew.ask(framework, f"{command} {count}")
            if answer:
                times[framework].append(answer["seconds"] / count * 1000)
    return {framework: found for framework, found in times.items() if framework in crew.workers}


def compare(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the medians, and the ratio of the fastest peer's to nnspec's: above 1 nnspec is faster."""
    medians = {framework: statistics.median(found) for framework, found in times.items()}
    own = medians.pop("nnspec")
    return {"nnspec_ms": own, "peers": medians, "ratio": min(medians.values()) / own if medians else None}


def memory_in_turns(frameworks: Sequence[str], start: Start, absent: dict[str, str]) -> Answers:
    """Return what training takes of memory in each framework, one process after the other."""
    found: Answers = {}
    for framework in frameworks:
        with Crew([framework], start, "memory", absent) as crew:
            found |= {f: w.first for f, w in crew.workers.items()}
    return found
