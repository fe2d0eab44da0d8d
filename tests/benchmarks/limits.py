"""What a training step must do at the least, how fast the device can do it, and what part of that a time is.

`python -m tests.benchmarks.limits cpu|cuda THREADS` measures the device with PyTorch and prints its limits as JSON.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .process import ROOT, Failure

if TYPE_CHECKING:
    from nnspec.ir import Network
    from nnspec.recipe import Recipe

FLOAT = 4
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes to and from memory that one step takes at the least."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Limits:
    """What a device reached: operations a second of a large product in each precision, bytes a second of a copy."""

    flops: Mapping[str, float]
    bandwidth: float

    def bound(self, work: Work, precision: str) -> tuple[float, str]:
        """Return the least seconds for some work, and what bounds it."""
        return max((work.flops / self.flops[precision], "arithmetic"), (work.bytes / self.bandwidth, "memory"))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, for `Limits(**data)`."""
        return asdict(self)


def fraction(work: Work, limits: Limits, precision: str, ms: float) -> float:
    """Return what part of the limit a step of `ms` reaches: 1 where it takes the least time that it can."""
    return limits.bound(work, precision)[0] / (ms / 1000)


def step_work(recipe: Recipe) -> Work:
    """Count what a step of a recipe takes at the least, in float32.

    Operations are two for each multiply-accumulate of products and convolutions: forward, for each trained weight's
    gradient, and for each input's gradient that leads to a trained weight. Bytes are those of the trained weights and
    of the optimizer's state, read and written once, of the batch, read once, and of what the layers with products give,
    written forward and read backward. Whatever else a step computes can be fused with that.
    """
    network = recipe.network
    rows = recipe.batch
    trained = sum(_number(w.size) for w in network.weights if w.trainable)
    state = trained * (1 + len(recipe.optimizer.slots()))
    samples = sum(_number(i.type.size) * (FLOAT if i.type.dtype == "float32" else 8) for i in network.inputs)
    kept = sum(_number(n.outputs[0].size) for n, macs in _products(network) if macs) * FLOAT
    return Work(2 * rows * _passes(network), 2 * state * FLOAT + rows * (samples + 2 * kept))


def _passes(network: Network) -> int:
    """Return the multiply-accumulates of one sample, forward and backward."""
    trainable = {w.name for w in network.weights if w.trainable}
    lead: set[str] = set()
    total = 0
    for node, macs in _products(network):
        owns = any(name in trainable for name in node.weights.values())
        gradients = sum(name in lead for name in node.inputs) + owns
        total += macs * (1 + gradients)
        if gradients:
            lead.update(node.output(i) for i in range(len(node.outputs)))
    return total


def _products(network: Network) -> list[tuple[Any, int]]:
    types = network.types()
    return [(n, _number(n.layer.macs(*(types[v] for v in n.inputs)))) for n in network.nodes]


def _number(size: Any) -> int:
    if not isinstance(size, int):
        raise ValueError(f"the size {size} is not a number")
    return size


def device_limits(device: str, threads: int) -> Limits:
    """Measure a device in a process of its own. Raises Failure where PyTorch cannot."""
    command = [sys.executable, "-m", f"{__package__}.limits", device, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise Failure(next(iter(done.stderr.strip().splitlines()[-1:]), f"status {done.returncode}"))
    return Limits(**json.loads(done.stdout))


def _measure(device: str, threads: int) -> Limits:
    import torch

    torch.set_num_threads(threads)
    cuda = device == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    size, repetitions = (8192, 20) if cuda else (2048, 5)
    flops = {}
    # On the CPU only what the cases compute in; on a GPU also what the switches would give.
    for precision in ("float32", "tf32", "bfloat16") if cuda else ("float32",):
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)

        def product(a: Any = a, b: Any = b, out: Any = out) -> None:
            torch.mm(a, b, out=out)

        flops[precision] = 2 * size**3 / _seconds(product, wait, repetitions)
    count = (1024 if cuda else 256) * MEGABYTE
    source = torch.empty(count, dtype=torch.uint8, device=device)
    target = source.fill_(1).clone()  # both written, so that both are there
    return Limits(flops, 2 * count / _seconds(lambda: target.copy_(source), wait, repetitions))


def _seconds(work: Callable[[], object], wait: Callable[[], object], repetitions: int) -> float:
    """Return the median seconds of one repetition in five groups of them, after one for warm-up."""
    found = []
    for _ in range(6):
        wait()
        began = time.perf_counter()
        for _ in range(repetitions):
            work()
        wait()
        found.append((time.perf_counter() - began) / repetitions)
    return statistics.median(found[1:])


def with_fractions(result: Mapping[str, Any], work: Work, limits: Limits, precision: str) -> dict[str, Any]:
    """Return what part of the limit each framework reaches in one case, as plain data."""
    seconds, bound = limits.bound(work, precision)
    times = {"nnspec": result["nnspec_ms"], **result["peers"]}
    return {
        "flops": work.flops,
        "bytes": work.bytes,
        "bound": bound,
        "least_ms": seconds * 1000,
        "fraction": {f: fraction(work, limits, precision, ms) for f, ms in times.items() if ms and math.isfinite(ms)},
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2])).as_json()))
