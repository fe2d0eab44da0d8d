"""Dynamic loss scaling: float16 gradients are lifted out of the underflow, and a step that overflows is skipped.

The scale is a power of two, so that it rounds nothing: 2^16 times two to the power of a counter, which therefore starts
at zero as all counters do. The scheme is that of Micikevicius et al. 2018 and PyTorch's `GradScaler`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from nnspec.ops import Ops

FIRST = 16
"""The scale starts at two to the power of this."""
LOWEST, HIGHEST = -24, 24
"""The bounds of the scale's exponent."""
GOOD_STEPS = 2000
"""After so many steps in a row without an overflow the scale doubles."""


class LossScale:
    """The scale in a step graph; `exponent` counts how often it doubled, less how often it halved.

    `good` counts the steps since the scale moved last; both are int64 scalars of the state.
    """

    def __init__(self, ops: Ops, exponent: ir.Value, good: ir.Value) -> None:
        self._ops = ops
        self._exponent, self._good = exponent, good
        self._finite: ir.Value | None = None
        powers = np.arange(LOWEST, HIGHEST + 1, dtype=np.float32)
        at = ops.Add(exponent, ops.constant(FIRST - LOWEST))
        # Tables are exact on every device, as `Pow` need not be.
        self.value: ir.Value = ops.Gather(ops.constant(np.exp2(powers)), at)
        """What the loss is multiplied with: a float32 scalar."""
        self._inverse = ops.Gather(ops.constant(np.exp2(-powers)), at)

    def unscale(self, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the gradients of the loss itself, and remember whether all of them are finite."""
        op = self._ops
        true = [op.Mul(g, self._inverse) for g in gradients]
        # A sum is finite where its terms are; one that overflows float32 is no gradient to follow either.
        sums = [op.ReduceSum(g, keepdims=0) for g in true]
        total = op.Sum(*sums) if len(sums) > 1 else sums[0]
        self._finite = op.Equal(op.Sub(total, total), op.constant(0.0, total.dtype))
        return true

    def kept(self, before: ir.Value, after: ir.Value) -> ir.Value:
        """Return `after`, or `before` where a gradient is not finite."""
        assert self._finite is not None
        value: ir.Value = self._ops.Where(self._finite, after, before)
        return value

    def counters(self) -> tuple[ir.Value, ir.Value]:
        """Return what `exponent` and `good` are after the step."""
        op = self._ops
        assert self._finite is not None
        one, none = op.constant(1), op.constant(0)
        counted = op.Add(self._good, one)
        full = op.Equal(counted, op.constant(GOOD_STEPS))
        doubled = op.Min(op.Add(self._exponent, one), op.constant(HIGHEST - FIRST))
        halved = op.Max(op.Sub(self._exponent, one), op.constant(LOWEST - FIRST))
        exponent = op.Where(self._finite, op.Where(full, doubled, self._exponent), halved)
        good = op.Where(self._finite, op.Where(full, none, counted), none)
        return exponent, good
