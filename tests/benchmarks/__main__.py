"""`python -m tests.benchmarks`: prove that all compute the same, then time them in turns, and print the ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from .cases import CASES
from .report import tables
from .summaries import summary_times
from .worker import FRAMEWORKS, THREADS

PEERS = [name for name in FRAMEWORKS if name != "nnspec"]
TOLERANCE = 1e-4


class Worker:
    """A process that serves one framework."""

    def __init__(self, framework: str, case: str) -> None:
        self.framework = framework
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", framework, case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.first_step = float(self._read()["first_step"])

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.framework} stopped")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def in_turns(workers: list[Worker], command: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Time a command in A B A B order; return milliseconds for each repetition and round."""
    counts = {}
    for w in workers:
        once = w.ask(f"{command} 3")["seconds"] / 3
        counts[w.framework] = max(3, min(2000, int(seconds / max(once, 1e-6))))
        w.ask(f"{command} {counts[w.framework]}")  # warm-up
    times: dict[str, list[float]] = {w.framework: [] for w in workers}
    for _ in range(rounds):
        for w in workers:
            count = counts[w.framework]
            times[w.framework].append(w.ask(f"{command} {count}")["seconds"] / count * 1000)
    return times


def measure(name: str, frameworks: list[str], rounds: int, seconds: float, inference: bool) -> dict[str, Any]:
    """Return one case's results; `same` says whether all trained to the same loss."""
    workers: list[Worker] = []
    absent: list[str] = []
    try:
        for framework in frameworks:
            try:
                workers.append(Worker(framework, name))
            except RuntimeError:
                # A peer may be unable to run a network, as Inductor is with PyTorch 2.13's LSTM on the CPU.
                if framework == "nnspec":
                    raise
                absent.append(framework)
        frameworks = [w.framework for w in workers]
        losses = {w.framework: w.ask("losses 10")["losses"] for w in workers}
        reference = losses["nnspec"][-1]
        worst = max(abs(v[-1] - reference) / max(abs(reference), 1e-6) for v in losses.values())
        result: dict[str, Any] = {"case": name, "same": worst <= TOLERANCE, "loss_difference": worst, "absent": absent}
        times = in_turns(workers, "steps", rounds, seconds)
        median = {f: statistics.median(v) for f, v in times.items()}
        peers = {f: median[f] for f in frameworks if f != "nnspec"}
        result |= {"nnspec_ms": median["nnspec"], "peers": peers, "ratio": min(peers.values()) / median["nnspec"]}
        result["spread"] = {f: [min(v), max(v)] for f, v in times.items()}
        result["first_step_s"] = {w.framework: w.first_step for w in workers}
        result["peak_bytes"] = {w.framework: w.ask("memory")["bytes"] for w in workers}
        if inference:
            for batch in (1, 32):
                found = in_turns(workers, f"infer {batch}", rounds, seconds / 2)
                medians = {f: statistics.median(v) for f, v in found.items()}
                fastest = min(v for f, v in medians.items() if f != "nnspec")
                result[f"infer_{batch}"] = {"ms": medians, "ratio": fastest / medians["nnspec"]}
        return result
    finally:
        for w in workers:
            w.close()


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = {}
    for package in ("onnxruntime", "torch", "jax"):
        try:
            versions[package] = __import__(package).__version__
        except ImportError:
            versions[package] = None
    return {"cpu": cpu, "threads": THREADS, "python": platform.python_version(), "versions": versions}


def main() -> int:
    """Run the cases; return 1 where one does not compute the same."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", help="cases whose name contains this; several with commas")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers to run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long one turn takes, about")
    parser.add_argument("--no-inference", action="store_true")
    parser.add_argument("--no-summary", action="store_true", help="leave out `summary` beside torchinfo and Keras")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables of the README")
    parser.add_argument("--gpu", action="store_true", help="on CUDA, beside PyTorch eager and compiled")
    arguments = parser.parse_args()
    if arguments.gpu:
        from nnspec_runtime.session import why_no_cuda

        missing = why_no_cuda()
        if missing:
            print(f"no GPU here: {missing}; nothing was measured")
            return 0
        os.environ["NNSPEC_BENCH_DEVICE"] = "cuda"
        arguments.peers = ",".join(p for p in arguments.peers.split(",") if p.startswith("torch"))
    wanted = arguments.only.split(",") if arguments.only else [""]
    names = [c.name for c in CASES if any(w in c.name for w in wanted)]
    frameworks = ["nnspec", *arguments.peers.split(",")]
    results = []
    print(f"{'case':20} {'nnspec':>9} " + " ".join(f"{p:>14}" for p in frameworks[1:]) + f" {'ratio':>7}  same")
    for name in names:
        try:
            r = measure(name, frameworks, arguments.rounds, arguments.seconds, not arguments.no_inference)
        except RuntimeError as error:
            print(f"{name:20} {error}")
            results.append({"case": name, "same": False, "error": str(error)})
            continue
        results.append(r)
        cells = " ".join(f"{r['peers'][p]:14.3f}" if p in r["peers"] else f"{'fails':>14}" for p in frameworks[1:])
        print(f"{name:20} {r['nnspec_ms']:9.3f} {cells} {r['ratio']:6.2f}x  {'yes' if r['same'] else 'NO'}", flush=True)
    ratios = [r["ratio"] for r in results if "ratio" in r]
    if ratios:
        print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}x over {len(ratios)} cases")
    summaries = [] if arguments.no_summary or arguments.gpu else summary_times(names)
    for one in summaries:
        print(f"summary of {one['case']}: " + ", ".join(f"{k} {v:.2f} s" for k, v in one["seconds"].items()))
    found = {"machine": machine(), "cases": results, "summary": summaries}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n")
    if arguments.markdown:
        Path(arguments.markdown).write_text(tables(found))
    return 0 if all(r["same"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
