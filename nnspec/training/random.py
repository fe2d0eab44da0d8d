"""Random numbers as a pure function of (seed, step, layer, element), in a graph without state or bitwise operators.

A stream of a generator would have to be stored and would differ between providers. Hashing a counter needs neither: a
run that resumes at a step draws what the first run drew, on every device.

Each tensor is a matrix of rows and columns. A row and a column get four numbers each, from four polynomials of degree 3
over GF(2^31 - 1), which makes any four rows or columns independent (Wegman and Carter 1981); the element is the inner
product of the row's and the column's numbers modulo 2^24 (an inner-product hash), over 2^24. So the costly integer work
is done for rows + columns only; an element costs one product of a [rows, 4] and a [4, columns] matrix in float64, in
which all sums are below 2^53 and therefore exact, whatever the order of summation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from nnspec.ops import Ops

PRIME = 2**31 - 1
"""A Mersenne prime; a product of two residues fits int64."""
BITS = 24
"""What a float32 in [0, 1) holds exactly."""
TERMS = 4
"""Length of the inner product, and how many numbers are independent of each other."""
_KEYS = TERMS * TERMS


class Random:
    """Draw uniform numbers for layers; `seed` and `step` are int64 scalars of the graph of `ops`."""

    def __init__(self, ops: Ops, seed: ir.Value, step: ir.Value) -> None:
        self._ops = ops
        self._seed = seed
        self._step = step
        self._state: ir.Value | None = None
        self._drawn: dict[str, int] = {}

    def __call__(self, op: Ops, like: ir.Value, name: str) -> ir.Value:
        """Return float32 multiples of 2^-24 in [0, 1) in the shape of `like`, others for each name and call."""
        drawn = self._drawn[name] = self._drawn.get(name, 0) + 1
        return uniform(op, like, self._coefficients(f"{name}:{drawn}"))

    def _coefficients(self, name: str) -> ir.Value:
        """Return the polynomials' coefficients for a layer: int64 [degree, polynomial, 1]."""
        if self._state is None:
            self._state = _mix(self._ops, self._seed, self._step)
        op = self._ops
        factor, offset = _residues(name, 2)
        value: ir.Value = op.Mod(op.Add(op.Mul(self._state, factor), offset), PRIME)
        return value


def _residues(name: str, rows: int) -> list[np.ndarray]:
    """Return arrays of fixed, random-looking nonzero residues that a name stands for."""
    found: list[int] = []
    block = 0
    while len(found) < rows * _KEYS:
        digest = hashlib.blake2b(f"nnspec.random/{name}/{block}".encode(), digest_size=64).digest()
        found += [int.from_bytes(digest[i : i + 8], "little") % (PRIME - 1) + 1 for i in range(0, 64, 8)]
        block += 1
    shape = (TERMS, TERMS, 1)
    return [np.array(found[i * _KEYS : (i + 1) * _KEYS], np.int64).reshape(shape) for i in range(rows)]


def _mix(op: Ops, seed: ir.Value, step: ir.Value) -> ir.Value:
    """Return 16 residues that depend on seed and step through polynomials of degree 8; seeds count modulo the prime."""
    by_seed, by_step, *offsets = _residues("state", 5)
    # A step is far below 2^31, so that its product fits int64 beside the seed's.
    state = op.Mod(op.Add(op.Mul(op.Mod(seed, PRIME), by_seed), op.Mul(step, by_step)), PRIME)
    for offset in offsets:
        state = op.Mod(op.Add(op.Mul(state, state), offset), PRIME)
    value: ir.Value = state
    return value


def uniform(op: Ops, like: ir.Value, coefficients: ir.Value) -> ir.Value:
    """Return uniform float32 numbers in [0, 1) in the shape of `like`, from coefficients [degree, polynomial, 1]."""
    rank = len(like.shape) if like.shape is not None else 1
    half = rank // 2 or 1
    rows, columns = _size(op, like, range(min(half, rank))), _size(op, like, range(half, rank))
    index = op.Range(op.constant(0), op.Squeeze(op.Add(rows, columns), [0]), op.constant(1))
    # Horner's scheme on [1, polynomial, index].
    hashed, *rest = op.Split(coefficients, [1] * TERMS, axis=0, outputs=TERMS)
    for coefficient in rest:
        hashed = op.Mod(op.Add(op.Mul(hashed, index), coefficient), PRIME)
    hashed = op.Cast(op.Mod(hashed, 2**BITS), to=int(ir.DataType.DOUBLE))
    hashed = op.Mul(hashed, 2.0 ** -(BITS // 2))
    left, right = op.Split(hashed, op.Concat(rows, columns, axis=0), axis=2, outputs=2)
    products = op.MatMul(op.Transpose(left, perm=[0, 2, 1]), right)
    fraction = op.Cast(op.Sub(products, op.Floor(products)), to=int(ir.DataType.FLOAT))
    value: ir.Value = op.Reshape(fraction, op.Shape(like))
    return value


def _size(op: Ops, like: ir.Value, axes: Sequence[int]) -> ir.Value:
    if not axes:
        return op.constant([1])
    dims = op.Shape(like, start=axes[0], end=axes[-1] + 1)
    value: ir.Value = dims if len(axes) == 1 else op.ReduceProd(dims, keepdims=1)
    return value
