"""How each framework trains a case and predicts with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from .backends import Jax, Params, Torch
from .cases import TINY, Case


@dataclass(frozen=True)
class Setup:
    """Where and how all frameworks compute; `weights` is the folder with what each case starts from."""

    weights: str
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 2
    tf32: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, for `Setup(**data)`."""
        return asdict(self)

    def load(self, case: Case) -> tuple[Params, Params]:
        """Return the trained weights and the buffers that a case starts from."""
        with np.load(Path(self.weights) / f"{case.name}.npz") as file:
            arrays = {name: file[name] for name in file.files}
        found: tuple[Params, Params] = ({}, {})
        for name, array in arrays.items():
            kind, _, weight = name.partition("/")
            found[kind != "trained"][weight] = array
        return found


def save_weights(case: Case, folder: Path) -> None:
    """Draw what a case starts from with nnspec's own initialisers, so that no peer's process has to load nnspec."""
    from nnspec.compile import initial_weights

    network = case.network()
    trained = {w.name for w in network.weights if w.trainable}
    arrays = {f"{'trained' if k in trained else 'kept'}/{k}": v for k, v in initial_weights(network).items()}
    np.savez(folder / f"{case.name}.npz", **arrays)  # type: ignore[arg-type]


class Runner(Protocol):
    """One framework at work on one case."""

    def reset(self) -> None:
        """Put weights and optimizer back to their start."""

    def steps(self, count: int) -> list[float]:
        """Train on the case's batch and return each step's loss, which is read at every step."""

    def predictor(self, batch: int) -> Callable[[], Any]:
        """Return a function that predicts one batch with the initial weights and returns the logits as an array."""


class Nnspec:
    """The training program of nnspec in ONNX Runtime."""

    def __init__(self, case: Case, setup: Setup) -> None:
        from nnspec_runtime import Device, TrainingSession

        from nnspec.cli.runtime import training_program
        from nnspec.training.cuda_graph import examine

        self.case, self.setup = case, setup
        self._initial: Mapping[str, Any] | None = None
        recipe = case.recipe()
        recorded = setup.device == "cuda" and examine(recipe).possible
        self.device = Device(setup.device, threads=setup.threads, tf32=setup.tf32, cuda_graph=recorded)
        program = training_program(recipe, self.device)
        self.session = TrainingSession(program, self.device)
        batch = dict(zip(("x", "label"), case.data(), strict=True))
        for slot in self.session.slots:
            # The slots keep the batch: loading data is not what is timed, for nobody here.
            slot.put([batch[one.name] for one in self.session.inputs])

    def reset(self) -> None:
        if self._initial is None:
            from nnspec.cli.runtime import training_program

            # Drawn anew, because where memory is measured nothing may hold what only this needs.
            self._initial = training_program(self.case.recipe(), self.device).initial_state()
        self.session.load(self._initial)

    def steps(self, count: int) -> list[float]:
        advance = self.session.advance
        return [advance()[0] for _ in range(count)]

    def predictor(self, batch: int) -> Callable[[], Any]:
        import onnx_ir as ir
        import onnxruntime as ort

        from nnspec.compile import export_model, initial_weights

        network = self.case.network()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.setup.threads
        model = ir.to_proto(export_model(network, initial_weights(network))).SerializeToString()
        session = ort.InferenceSession(model, options, providers=self.device.providers())
        x = self.case.data(batch)[0]
        if self.setup.device == "cpu":
            return lambda: session.run(None, {"x": x})[0]
        binding = session.io_binding()  # the input lies on the device, as the peers' does
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x, self.setup.device))
        binding.bind_output(session.get_outputs()[0].name)

        def predict() -> Any:
            session.run_with_iobinding(binding)
            return binding.copy_outputs_to_cpu()[0]

        return predict


class TorchPeer:
    """PyTorch, eager or compiled; `channels_last` is the layout that its guide advises for convolutions."""

    def __init__(self, case: Case, setup: Setup, compiled: bool = False, channels_last: bool = False) -> None:
        import torch

        torch.set_num_threads(setup.threads)
        torch.set_float32_matmul_precision("high" if setup.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = setup.tf32
        self.torch, self.case, self.setup = torch, case, setup
        self.compiled, self.channels_last = compiled, channels_last
        # Inductor records CUDA graphs in this mode.
        self.mode = "reduce-overhead" if setup.device == "cuda" else None
        x, label = case.data()
        self.x, self.label = self._tensor(x), self._tensor(label)
        trained, kept = setup.load(case)
        self.weights = {k: self._tensor(v).requires_grad_() for k, v in trained.items()}
        self.p = {**self.weights, **{k: self._tensor(v) for k, v in kept.items()}}
        if compiled and setup.device == "cuda":
            for tensor in self.p.values():
                # As for a module's parameters: a replay reads them where they are instead of copying them.
                torch._dynamo.mark_static_address(tensor)
        backend = Torch(compiled=compiled)

        def loss(x: Any, label: Any) -> Any:
            return backend.cross_entropy(case.forward(backend, self.p, x), label)

        self.loss = torch.compile(loss, mode=self.mode) if compiled else loss
        self.optimizer = self._optimizer()

    def _tensor(self, array: Any) -> Any:
        tensor = self.torch.from_numpy(array).to(self.setup.device)
        last = self.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=self.torch.channels_last) if last else tensor

    def _optimizer(self) -> Any:
        # The fused ones are the fastest that PyTorch has for these networks, on the CPU too.
        make = self.torch.optim.SGD if self.case.optimizer == "sgd" else self.torch.optim.Adam
        return make(list(self.weights.values()), lr=self.case.lr, fused=True)

    def reset(self) -> None:
        trained, kept = self.setup.load(self.case)
        with self.torch.no_grad():
            for name, array in {**trained, **kept}.items():
                self.p[name].copy_(self.torch.from_numpy(array))
            for state in self.optimizer.state.values():
                for tensor in state.values():  # moments, and the number of steps
                    tensor.zero_()

    def steps(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.x, self.label)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def predictor(self, batch: int) -> Callable[[], Any]:
        torch, backend = self.torch, Torch(training=False, compiled=self.compiled)
        trained, kept = self.setup.load(self.case)
        p = {k: self._tensor(v) for k, v in {**trained, **kept}.items()}
        x = self._tensor(self.case.data(batch)[0])

        def forward(x: Any) -> Any:
            return self.case.forward(backend, p, x)

        run = torch.compile(forward, mode=self.mode) if self.compiled else forward

        def predict() -> Any:
            with torch.inference_mode():
                return run(x).cpu().numpy()

        return predict


class JaxPeer:
    """JAX, the whole step jitted with donated buffers."""

    def __init__(self, case: Case, setup: Setup) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.np, self.case, self.setup = jax, jnp, case, setup
        x, label = case.data()
        self.x, self.label = jnp.asarray(x), jnp.asarray(label)
        lr, backend = case.lr, Jax()

        def loss(p: Params, kept: Params, x: Any, label: Any) -> Any:
            backend.moved = {}
            value = backend.cross_entropy(case.forward(backend, {**p, **kept}, x), label)
            return value, backend.moved

        def sgd(state: Any, x: Any, label: Any) -> Any:
            (value, kept), g = jax.value_and_grad(loss, has_aux=True)(state["p"], state["kept"], x, label)
            return {"p": jax.tree.map(lambda w, d: w - lr * d, state["p"], g), "kept": kept}, value

        def adam(state: Any, x: Any, label: Any) -> Any:
            (value, kept), g = jax.value_and_grad(loss, has_aux=True)(state["p"], state["kept"], x, label)
            t = state["t"] + 1
            m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, state["m"], g)
            v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d * d, state["v"], g)
            a, c = lr / (1 - 0.9**t), jnp.sqrt(1 - 0.999**t)
            p = jax.tree.map(lambda w, m, v: w - a * m / (jnp.sqrt(v) / c + 1e-8), state["p"], m, v)
            return {"p": p, "kept": kept, "m": m, "v": v, "t": t}, value

        self.jitted = jax.jit(sgd if case.optimizer == "sgd" else adam, donate_argnums=0)
        self.state: Any = None
        self.reset()

    def reset(self) -> None:
        jnp = self.np
        self.state = None  # the old state must not be held beside the new one
        trained, kept = self._arrays()
        self.state = {"p": trained, "kept": kept}
        if self.case.optimizer != "sgd":
            for moment in ("m", "v"):
                self.state[moment] = {k: jnp.zeros_like(w) for k, w in trained.items()}
            self.state["t"] = jnp.float32(0)

    def _arrays(self) -> list[Params]:
        # Copies: JAX on the CPU may otherwise go on using NumPy's memory, which cannot be donated.
        return [{k: self.np.array(v) for k, v in part.items()} for part in self.setup.load(self.case)]

    def steps(self, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            self.state, loss = self.jitted(self.state, self.x, self.label)
            losses.append(float(loss))
        return losses

    def predictor(self, batch: int) -> Callable[[], Any]:
        backend = Jax(training=False)
        trained, kept = self._arrays()
        p, x = {**trained, **kept}, self.np.asarray(self.case.data(batch)[0])
        run = self.jax.jit(lambda p, x: self.case.forward(backend, p, x))
        return lambda: np.asarray(run(p, x))


FRAMEWORKS: dict[str, Callable[[Case, Setup], Runner]] = {
    "nnspec": Nnspec,
    "torch-eager": TorchPeer,
    "torch-compile": lambda case, setup: TorchPeer(case, setup, compiled=True),
    "torch-channels-last": lambda case, setup: TorchPeer(case, setup, channels_last=True),
    "jax": JaxPeer,
}
PEERS = ("torch-eager", "torch-compile", "jax")
"""What nnspec is measured against unless others are asked for."""


def load_framework(framework: str, setup: Setup) -> None:
    """Load all that a framework loads for any training: it trains a network of 30 weights for a step."""
    FRAMEWORKS[framework](TINY, setup).steps(1)
