"""`python -m tests.benchmarks`: prove that all compute the same, then time them in turns, and print the ratios."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cases import CASES, TINY, Case
from .frameworks import FRAMEWORKS, PEERS, Setup, save_weights
from .machine import machine
from .measure import Asked, Plan, Start, measure
from .process import Failure, Worker
from .report import geometric_mean, report

Starter = Callable[[str, str, Setup, str], Asked]


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--only", metavar="NAME,...", help="cases whose name contains one of these, and no overhead")
    add("--json", metavar="FILE", help="write the results as JSON")
    add("--markdown", metavar="FILE", help="write the results as tables")
    add("--peers", default=",".join(PEERS), help=f"which of {', '.join(FRAMEWORKS)} to run beside nnspec")
    add("--rounds", type=int, default=7, help="how often each is timed, in turns")
    add("--seconds", type=float, default=0.5, help="how long one turn takes, about")
    add("--threads", type=int, default=2, help="for every framework")
    add("--inference", action=switch, default=True, help="time predictions too")
    add("--summary", action=switch, default=True, help="time `summary` beside torchinfo and Keras")
    add("--memory", action=switch, help="measure memory alone, or leave it out")
    add("--overhead", action=switch, help="measure what nnspec costs beside the arithmetic alone, or leave it out")
    add("--limits", action="store_true", help="tell what part of the device's limit is reached, as on a GPU")
    add("--gpu", action="store_true", help="on CUDA, beside PyTorch eager and compiled")
    add("--tf32", action="store_true", help="with --gpu: time products in TF32; the proof stays in float32")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None, starter: Starter = Worker) -> int:
    """Run the cases; return 1 where one does not compute the same."""
    a = arguments_of(given)
    if a.gpu:
        from nnspec_runtime.session import why_no_cuda

        missing = why_no_cuda()
        if missing:
            print(f"no GPU here: {missing}; nothing was measured")
            return 0
    peers = [p for p in a.peers.split(",") if p and (not a.gpu or p.startswith("torch"))]
    unknown = [p for p in peers if p not in FRAMEWORKS]
    wanted = a.only.split(",") if a.only else [""]
    cases = [c for c in CASES if any(w in c.name for w in wanted)]
    if unknown or not cases:
        print(f"unknown: {', '.join(unknown) or a.only}", file=sys.stderr)
        return 2
    alone = a.memory or a.overhead
    plan = Plan(
        a.rounds,
        a.seconds,
        time=not alone,
        inference=a.inference,
        memory=bool(a.memory) or not (alone or a.memory is False or a.gpu),
        apart=a.tf32,
    )
    found: dict[str, Any] = {"machine": machine(a.threads, a.gpu), "cases": []}
    if plan.time or plan.memory:
        with tempfile.TemporaryDirectory() as folder:
            setup = Setup(folder, "cuda" if a.gpu else "cpu", a.threads, a.tf32)
            found["cases"] = _run(cases, ["nnspec", *peers], setup, plan, starter)
    if plan.time and (a.gpu or a.limits):
        _add_limits(found, cases, setup)
    if a.summary and plan.time and not a.gpu:
        found["summary"] = _summaries(cases)
    if a.overhead or (a.overhead is None and plan.time and not (a.only or a.gpu)):
        found["overhead"] = _overhead(a.threads, a.rounds)
    if a.json:
        Path(a.json).write_text(json.dumps(found, indent=1) + "\n")
    if a.markdown:
        Path(a.markdown).write_text(report(found))
    return 0 if all(r["same"] for r in found["cases"]) else 1


def _run(cases: list[Case], frameworks: list[str], setup: Setup, plan: Plan, starter: Starter) -> list[Any]:
    """Measure each case and print its line."""
    from nnspec.cli.runtime import this_cpu
    from nnspec.training.memory import training_memory

    save_weights(TINY, Path(setup.weights))
    peers = frameworks[1:]
    head = "".join(f" {p:>14}" for p in peers)
    print(f"{'case':20} {'nnspec':>9}{head} {'ratio':>7}  same" if plan.time else f"{'MiB':20} {'nnspec':>9}{head}")
    results = []
    for case in cases:
        save_weights(case, Path(setup.weights))
        try:
            result = measure(case.name, frameworks, _start(case.name, setup, starter), plan)
        except Failure as failure:
            # Keys as of any case, so that whoever reads the file need not look out for this one.
            result = {"case": case.name, "nnspec_ms": None, "peers": {}, "ratio": None, "same": False, "absent": {}}
            result["error"] = str(failure)
        result.setdefault("same", True)  # only memory was asked for
        if "memory" in result:
            result["memory_predicted"] = training_memory(case.recipe(), target=this_cpu()).peak
        results.append(result)
        print(_line(result, peers, plan), flush=True)
        for peer, reason in result["absent"].items():
            print(f"  {peer} fails: {reason}", flush=True)
    mean = geometric_mean(results)
    if mean is not None:
        print(f"geometric mean of the ratios: {mean:.2f}x over {len(results)} cases")
    return results


def _start(case: str, setup: Setup, starter: Starter) -> Start:
    def start(framework: str, mode: str) -> Asked:
        exact = mode == "exact"
        chosen = replace(setup, tf32=False) if exact else setup
        return starter(framework, case, chosen, "serve" if exact else mode)

    return start


def _line(result: dict[str, Any], peers: list[str], plan: Plan) -> str:
    if "error" in result:
        return f"{result['case']:20} fails: {result['error']}"
    if not plan.time:
        found = {f: one["training"] / (1 << 20) for f, one in result["memory"].items()}
        return f"{result['case']:20} {found['nnspec']:9.1f} " + " ".join(_cell(found.get(p), 1) for p in peers)
    cells = " ".join(_cell(result["peers"].get(p), 3) for p in peers)
    ratio = f"{result['ratio']:6.2f}x" if result["ratio"] is not None else f"{'':7}"
    return f"{result['case']:20} {result['nnspec_ms']:9.3f} {cells} {ratio}  {'yes' if result['same'] else 'NO'}"


def _cell(number: float | None, digits: int) -> str:
    return f"{'fails':>14}" if number is None else f"{number:14.{digits}f}"


def _add_limits(found: dict[str, Any], cases: list[Case], setup: Setup) -> None:
    """Put what part of the device's limit is reached beside each case's times, and print it."""
    from .limits import device_limits, step_work, with_fractions

    try:
        limits = device_limits(setup.device, setup.threads)
    except Failure as failure:
        print(f"the device's limits are not known: {failure}")
        return
    found["machine"]["limits"] = limits.as_json()
    reached = ", ".join(f"{k} {v / 1e12:.2f} TFLOP/s" for k, v in limits.flops.items())
    print(f"limits: {reached}, {limits.bandwidth / 1e9:.0f} GB/s")
    precision = "tf32" if setup.tf32 else "float32"
    for case, result in zip(cases, found["cases"], strict=True):
        if result["nnspec_ms"] is None:
            continue
        result["limit"] = with_fractions(result, step_work(case.recipe()), limits, precision)
        parts = ", ".join(f"{f} {part:.2f}" for f, part in result["limit"]["fraction"].items())
        print(f"{case.name:20} {result['limit']['bound']:>10}-bound, part of the limit: {parts}")


def _summaries(cases: list[Case]) -> list[dict[str, Any]]:
    from .summaries import summary_times

    found = summary_times(cases)
    for one in found:
        print(f"summary of {one['case']}: " + ", ".join(f"{k} {v:.2f} s" for k, v in one["seconds"].items()))
        for tool, reason in one["absent"].items():
            print(f"  {tool} fails: {reason}")
    return found


def _overhead(threads: int, rounds: int) -> dict[str, Any]:
    from .overhead import overhead

    found = overhead(threads, rounds)
    for name, one in found.items():
        print(f"{name} of {one['case']}: " + ", ".join(f"{k} {v:.4g}" for k, v in one.items() if k != "case"))
    return found


if __name__ == "__main__":
    sys.exit(main())
