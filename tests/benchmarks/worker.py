"""One framework, one case, one process: read commands on stdin, answer each with a line of JSON.

Commands: `steps N` runs N training steps and answers seconds; `losses N` trains anew and answers the losses;
`infer B N` runs N predictions of batch B; `memory` answers the peak in bytes; `quit`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from .backends import Jax, Torch
from .cases import CASES, Case

THREADS = 2
DEVICE: Literal["cpu", "cuda"] = "cuda" if os.environ.get("NNSPEC_BENCH_DEVICE") == "cuda" else "cpu"


class Nnspec:
    """The training program of nnspec in ONNX Runtime."""

    def __init__(self, case: Case) -> None:
        from nnspec_runtime import Device, TrainingSession

        from nnspec.cli.runtime import training_program
        from nnspec.compile import compile_recipe
        from nnspec.source import Source
        from nnspec.training.cuda_graph import examine

        self.case = case
        recipe = compile_recipe(Source(f"{case.name}.nn", case.text))
        self.program = training_program(recipe)
        recorded = DEVICE == "cuda" and examine(recipe).possible
        self.device = Device(DEVICE, threads=THREADS, cuda_graph=recorded)
        self.session = TrainingSession(self.program, self.device)
        self.batch = dict(zip(("x", "label"), case.data(), strict=True))

    def steps(self, count: int) -> None:
        session = self.session
        for slot in session.slots:
            # The slots keep the batch: loading data is not what is timed, for nobody here.
            slot.put([self.batch[one.name] for one in session.inputs])
        for _ in range(count):
            session.advance()

    def losses(self, count: int) -> list[float]:
        from nnspec_runtime import TrainingSession

        session = TrainingSession(self.program, self.device)
        return [session.step(self.batch)["loss"] for _ in range(count)]

    def predictor(self, batch: int) -> Callable[[], object]:
        import onnx_ir as ir
        import onnxruntime as ort

        from nnspec.compile import compile_network, export_model, initial_weights
        from nnspec.source import Source

        network = compile_network(Source("case.nn", self.case.text)).network
        weights = initial_weights(network)
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        model = ir.to_proto(export_model(network, weights)).SerializeToString()
        session = ort.InferenceSession(model, options, providers=self.device.providers())
        x = self.case.data(batch)[0]
        return lambda: session.run(None, {"x": x})


class Peer:
    """What PyTorch and JAX share: initial weights from nnspec's own initialisers."""

    def __init__(self, case: Case) -> None:
        from nnspec.compile import compile_network, initial_weights
        from nnspec.source import Source

        self.case = case
        network = compile_network(Source(f"{case.name}.nn", case.text)).network
        trained = {w.name for w in network.weights if w.trainable}
        self.start = {k: v for k, v in initial_weights(network).items() if k in trained}


class TorchPeer(Peer):
    """PyTorch, eager or compiled."""

    def __init__(self, case: Case, compiled: bool) -> None:
        super().__init__(case)
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.b = Torch()
        self.compiled = compiled
        x, label = case.data()
        self.x, self.label = torch.from_numpy(x).to(DEVICE), torch.from_numpy(label).to(DEVICE)
        self.reset()

    def reset(self) -> None:
        torch, case = self.torch, self.case
        self.p = {k: torch.from_numpy(v.copy()).to(DEVICE).requires_grad_() for k, v in self.start.items()}
        weights = list(self.p.values())
        self.optimizer = (
            torch.optim.SGD(weights, lr=case.lr)
            if case.optimizer == "sgd"
            else torch.optim.Adam(weights, lr=case.lr, fused=True)
        )

        mode = "reduce-overhead" if DEVICE == "cuda" else None

        def loss(x: Any, label: Any) -> Any:
            return self.b.cross_entropy(case.forward(self.b, self.p, x), label)

        self.loss = torch.compile(loss, mode=mode) if self.compiled else loss

    def step(self) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.x, self.label)
        loss.backward()
        self.optimizer.step()
        return loss

    def steps(self, count: int) -> None:
        for _ in range(count):
            loss = self.step()
            loss.item()

    def losses(self, count: int) -> list[float]:
        self.reset()
        return [self.step().item() for _ in range(count)]

    def predictor(self, batch: int) -> Callable[[], object]:
        torch, x = self.torch, self.torch.from_numpy(self.case.data(batch)[0]).to(DEVICE)

        def forward(x: Any) -> Any:
            return self.case.forward(self.b, self.p, x)

        run = torch.compile(forward) if self.compiled else forward

        def predict() -> object:
            with torch.inference_mode():
                return run(x).cpu().numpy()

        return predict


class JaxPeer(Peer):
    """JAX, the whole step jitted with donated buffers."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        import jax
        import jax.numpy as jnp

        self.jax, self.b = jax, Jax()
        x, label = case.data()
        self.x, self.label = jnp.asarray(x), jnp.asarray(label)
        lr = case.lr

        def loss(p: Any, x: Any, label: Any) -> Any:
            return self.b.cross_entropy(case.forward(self.b, p, x), label)

        def sgd(state: Any, x: Any, label: Any) -> Any:
            value, g = jax.value_and_grad(loss)(state["p"], x, label)
            return {"p": jax.tree.map(lambda w, d: w - lr * d, state["p"], g)}, value

        def adam(state: Any, x: Any, label: Any) -> Any:
            value, g = jax.value_and_grad(loss)(state["p"], x, label)
            t = state["t"] + 1
            m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, state["m"], g)
            v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d * d, state["v"], g)
            a, c = lr / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
            p = jax.tree.map(lambda w, m, v: w - a * m / (jnp.sqrt(v) / c + 1e-8), state["p"], m, v)
            return {"p": p, "m": m, "v": v, "t": t}, value

        self.jitted = jax.jit(sgd if case.optimizer == "sgd" else adam, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        jnp = self.b.np
        p = {k: jnp.asarray(v) for k, v in self.start.items()}
        zeros = {k: jnp.zeros_like(v) for k, v in p.items()}
        self.state: Any = {"p": p}
        if self.case.optimizer != "sgd":
            self.state |= {"m": zeros, "v": {k: jnp.zeros_like(v) for k, v in p.items()}, "t": jnp.float32(0)}

    def step(self) -> Any:
        self.state, loss = self.jitted(self.state, self.x, self.label)
        return loss

    def steps(self, count: int) -> None:
        for _ in range(count):
            float(self.step())

    def losses(self, count: int) -> list[float]:
        self.reset()
        return [float(self.step()) for _ in range(count)]

    def predictor(self, batch: int) -> Callable[[], object]:
        import numpy as np

        x = self.b.np.asarray(self.case.data(batch)[0])
        run = self.jax.jit(lambda p, x: self.case.forward(self.b, p, x))
        p = self.state["p"]
        return lambda: np.asarray(run(p, x))


FRAMEWORKS: dict[str, Callable[[Case], Any]] = {
    "nnspec": Nnspec,
    "torch-eager": lambda case: TorchPeer(case, False),
    "torch-compile": lambda case: TorchPeer(case, True),
    "jax": JaxPeer,
}


def main() -> None:
    """Serve one framework and case until `quit`."""
    framework, name = sys.argv[1:]
    began = time.perf_counter()
    case = next(c for c in CASES if c.name == name)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints must not mix with the answers
    runner = FRAMEWORKS[framework](case)
    runner.steps(1)
    _answer(out, {"first_step": time.perf_counter() - began})
    predictors: dict[int, Callable[[], object]] = {}
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "quit":
            return
        if command == "memory":
            _answer(out, {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
        elif command == "losses":
            _answer(out, {"losses": runner.losses(int(numbers[0]))})
        elif command == "steps":
            start = time.perf_counter()
            runner.steps(int(numbers[0]))
            _answer(out, {"seconds": time.perf_counter() - start})
        elif command == "infer":
            batch, count = int(numbers[0]), int(numbers[1])
            if batch not in predictors:
                predictors[batch] = runner.predictor(batch)
                predictors[batch]()
            start = time.perf_counter()
            for _ in range(count):
                predictors[batch]()
            _answer(out, {"seconds": time.perf_counter() - start})


def _answer(out: Any, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
