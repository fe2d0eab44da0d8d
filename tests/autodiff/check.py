"""Check a gradient rule against central differences, and its graph in ONNX Runtime.

Along a random direction v and for a random weight u of the output, `<u, (f(x + h v) - f(x - h v)) / 2h>` has to equal
`<vjp(u), v>`. Both are computed in float64: by ONNX Runtime where it has the kernels, else by ONNX's reference
evaluator. The same gradient graph in float32 then has to run in ONNX Runtime and to give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from nnspec.autodiff import differentiate
from nnspec.ops import IR_VERSION, OPSET, Ops
from tests.autodiff.reference import OVERRIDES

Build = Callable[..., Any]
Array = Any


@dataclass(frozen=True)
class Case:
    """One use of an operator: `build(ops, *inputs)` gives the output, or several of which all floating ones count.

    `symbolic` names which axes get names instead of numbers in the further variants: "batch" the first of each input
    (or of those in `batched`), "all" every one, each its own. `float64` says whether any evaluator has the operator in
    double precision; where none has, the step is wide and the tolerance that of float32.
    """

    op: str
    label: str
    build: Build
    inputs: tuple[Array, ...]
    wrt: tuple[int, ...] = ()
    symbolic: tuple[str, ...] = ("batch",)
    batched: tuple[int, ...] | None = None
    float32_tolerance: float = 2e-5
    float32_runs: bool = True
    opset: int = OPSET
    step: float = 1e-5
    tolerance: float = 2e-7
    float64: bool = True

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"


CASES: list[Case] = []


def case(op: str, label: str, build: Build, *inputs: Any, **settings: Any) -> None:
    """Register a case; floating inputs are differentiated unless `wrt` says which."""
    arrays = tuple(np.asarray(i) for i in inputs)
    wrt = settings.pop("wrt", tuple(i for i, a in enumerate(arrays) if a.dtype == np.float64))
    CASES.append(replace(Case(op, label, build, arrays, wrt), **settings))


def rand(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Array:
    """Return reproducible uniform numbers."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def away(*shape: int, seed: int = 0, gap: float = 0.05, low: float = -1.0, high: float = 1.0) -> Array:
    """Return numbers of which no two are nearer than some gap: no step of a central difference changes their order."""
    count = int(np.prod(shape))
    order = np.random.default_rng([seed, *shape]).permutation(count)
    values = low + (high - low) * (order + 0.5) / max(1, count)
    return values.reshape(shape)


def variants(cases: Sequence[Case]) -> list[tuple[Case, str]]:
    """Return every case with every way to declare the dims of its inputs."""
    return [(c, v) for c in cases for v in ("static", *c.symbolic)]


def check(case: Case, variant: str) -> None:
    """Assert that the gradients of a case are right."""
    rng = np.random.default_rng(7)
    wide = np.float64 if case.float64 else np.float32
    probe = Program(case, variant, wide)
    arrays = [a.astype(wide) if a.dtype == np.float64 else a for a in case.inputs]
    outputs = probe.forward(arrays)
    weights = [(rng.uniform(0.5, 1.5, o.shape) * rng.choice([-1, 1], o.shape)).astype(wide) for o in outputs]
    directions = {i: rng.uniform(-1, 1, arrays[i].shape) for i in case.wrt}
    gradients = probe.gradients(arrays, weights)
    for i, gradient in zip(case.wrt, gradients, strict=True):
        assert gradient.shape == arrays[i].shape, f"input {i}"
        h = case.step if case.float64 else 1e-2
        moved = [list(arrays), list(arrays)]
        for side, sign in zip(moved, (1, -1), strict=True):
            side[i] = (arrays[i] + sign * h * directions[i]).astype(wide)
        above, below = probe.forward(moved[0]), probe.forward(moved[1])
        numeric = sum(float(np.sum(u * (a - b))) / (2 * h) for u, a, b in zip(weights, above, below, strict=True))
        exact = float(np.sum(gradient * directions[i]))
        scale = max(1.0, float(np.sum(np.abs(gradient * directions[i]))))
        # Without float64: rounding 2^-24 of the outputs over the step, and the curvature times its square.
        tolerance = case.tolerance if case.float64 else 2e-3
        assert abs(numeric - exact) <= tolerance * scale, f"input {i}: central difference {numeric}, rule {exact}"
    if not case.float32_runs or not case.float64:
        return
    single = Program(case, variant, np.float32)
    found = single.gradients([_narrow(a) for a in arrays], [_narrow(w) for w in weights])
    for i, a, b in zip(case.wrt, gradients, found, strict=True):
        assert b.dtype == np.float32
        assert b.shape == a.shape
        scale = max(1.0, float(np.max(np.abs(a), initial=0.0)))
        np.testing.assert_allclose(b, a, rtol=0, atol=case.float32_tolerance * scale, err_msg=f"input {i} in float32")


def _narrow(a: Array) -> Array:
    return a.astype(np.float32) if a.dtype == np.float64 else a


class Program:
    """The forward graph of a case and its gradient graph, in one floating-point type."""

    def __init__(self, case: Case, variant: str, dtype: Any) -> None:
        self.case, self.dtype = case, dtype
        self.values = [
            _declare(i, a, variant if case.batched is None or i in case.batched else "static", dtype)
            for i, a in enumerate(case.inputs)
        ]
        graph = ir.Graph(self.values, [], nodes=[], opset_imports={"": case.opset}, name="case")
        self.ops = Ops(graph, case.opset)
        made = case.build(self.ops, *self.values)
        made = made if isinstance(made, tuple | list) else [made]
        self.outputs = [v for v in made if v.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)]
        graph.outputs.extend(self.outputs)
        self._forward = runner(ir.Model(graph, ir_version=IR_VERSION), dtype)

    def forward(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs."""
        return self._forward({f"x{i}": a for i, a in enumerate(arrays)})

    def gradients(self, arrays: Sequence[Array], weights: Sequence[Array]) -> list[Array]:
        """Return the gradients of the weighted sum of the outputs; zeros where there is no path."""
        graph = self.ops.graph
        kind = ir.DataType.DOUBLE if self.dtype == np.float64 else ir.DataType.FLOAT
        total: list[list[Array]] = []
        feeds = {f"x{i}": a for i, a in enumerate(arrays)}
        wanted = [self.values[i] for i in self.case.wrt]
        for k, (out, weight) in enumerate(zip(self.outputs, weights, strict=True)):
            seed = ir.Value(name=f"seed{k}", type=ir.TensorType(kind), shape=out.shape)
            graph.inputs.append(seed)
            feeds[f"seed{k}"] = weight
            found = differentiate(self.ops, out, wanted, seed)
            graph.outputs[:] = [g for g in found if g is not None]
            results = iter(runner(ir.Model(graph, ir_version=IR_VERSION), self.dtype)(feeds))
            total.append(
                [
                    np.zeros_like(arrays[i]) if g is None else next(results)
                    for i, g in zip(self.case.wrt, found, strict=True)
                ]
            )
        return [np.sum(parts, axis=0, dtype=self.dtype) for parts in zip(*total, strict=True)]


def _declare(i: int, array: Array, variant: str, dtype: Any) -> ir.Value:
    dims: list[int | str] = list(array.shape)
    if variant == "batch" and dims:
        dims[0] = f"N{dims[0]}"
    elif variant == "all":
        dims = [f"d{i}_{axis}" for axis in range(len(dims))]
    kind = array.dtype if array.dtype != np.float64 else np.dtype(dtype)
    return ir.Value(name=f"x{i}", type=ir.TensorType(ir.DataType.from_numpy(kind)), shape=ir.Shape(dims))


@cache
def _options() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return options


def runner(model: ir.Model, dtype: Any) -> Callable[[dict[str, Array]], list[Array]]:
    """Return what runs the model: ONNX Runtime, or in float64 the reference evaluator where a kernel is missing."""
    proto = ir.to_proto(model)
    names = [i.name for i in proto.graph.input]
    try:
        session = ort.InferenceSession(proto.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        if dtype != np.float64 or not _lacks_float64(error):
            raise
        onnx.checker.check_model(proto)
        evaluator = ReferenceEvaluator(proto, new_ops=OVERRIDES)
        return lambda feeds: [np.asarray(r) for r in evaluator.run(None, {k: feeds[k] for k in names})]
    return lambda feeds: session.run(None, {k: np.asarray(feeds[k]) for k in names})


def _lacks_float64(error: Exception) -> bool:
    return "NOT_IMPLEMENTED" in str(error) or "INVALID_GRAPH" in str(error) or "NotImplemented" in type(error).__name__
