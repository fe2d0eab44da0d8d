"""Operators that ONNX's reference evaluator computes in single precision or wrongly, for checks in double precision."""

import math

import numpy as np
from onnx.reference.op_run import OpRun


class Erf(OpRun):
    """The error function; onnx's own rounds to float32."""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


class Gelu(OpRun):
    """The Gaussian error linear unit; onnx's own rounds to float32."""

    def _run(self, x, approximate="none"):
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x * math.sqrt(0.5))),)


class LRN(OpRun):
    """Local response normalisation; onnx's own fills only as many channels as there are images."""

    def _run(self, x, alpha=1e-4, beta=0.75, bias=1.0, size=1):
        before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
        wide = np.pad(x**2, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(wide[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * total) ** beta,)


class GlobalMaxPool(OpRun):
    """The maximum over space; onnx's own is right for images alone."""

    def _run(self, x):
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


OVERRIDES = [Erf, Gelu, LRN, GlobalMaxPool]
