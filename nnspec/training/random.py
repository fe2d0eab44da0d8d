"""Random numbers as a pure function of (seed, step, layer, element), in a graph without state or bitwise operators.

A stream of a generator would have to be stored and would differ between providers. Hashing a counter needs neither: a run
that resumes at a step draws what the first run drew, on every device.

Each tensor is a matrix of rows and columns. A row and a column get four numbers each, from four polynomials of degree 3
over GF(2^31 - 1), which makes any four rows or columns independent (Wegman and Carter 1981); the element is the inner
product of the row's and the column's numbers modulo 2^24 (a Vazirani inner-product hash), over 2^24. So the costly integer
work is done for rows + columns only; an element costs one product of a [rows, 4] and a [4, columns] matrix in float64, in
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
        """Return float32 multiples of 2^-24 in [0, 1) in the shape of `like`, other ones for each name and each call."""
        drawn = self._drawn[name] = self._drawn.get(name, 0) + 1
        return uniform(op, like, self._coefficients(f"{name}:{drawn}"))

    def _coefficients(self, name: str) -> ir.Value:
        """Return the polynomials' coefficients for a layer: [degree, polynomial, 1]."""
        if self._state is None:
            self._state = _mix(self._ops, self._seed, self._step)
        op = self._ops
        factor, offset = _residues(name, 2)
        keys = op.Mod(op.Add(op.Mul(self._state, factor), offset), PRIME)
        value: ir.Value = op.Reshape(keys, [TERMS, TERMS, 1])
        return value


def _residues(name: str, rows: int) -> list[np.ndarray]:
    """Return arrays of fixed, random-looking nonzero residues that a name stands for."""
    found: list[int] = []
    block = 0
    while len(found) < rows * _KEYS:
        digest = hashlib.blake2b(f"nnspec.random/{name}/{block}".encode(), digest_size=64).digest()
        found += [int.from_bytes(digest[i : i + 8], "little") % (PRIME - 1) + 1 for i in range(0, 64, 8)]
        block += 1
    return [np.array(found[i * _KEYS : (i + 1) * _KEYS], np.int64) for i in range(rows)]


def _mix(op: Ops, seed: ir.Value, step: ir.Value) -> ir.Value:
    """Return 16 residues that depend on seed and step through polynomials of degree 8."""
    low, high, by_step, *offsets = _residues("state", 7)
    parts = [
        op.Mod(op.Mul(op.Mod(seed, PRIME), low), PRIME),
        op.Mod(op.Mul(op.Mod(op.Div(seed, PRIME), PRIME), high), PRIME),
        op.Mod(op.Mul(op.Mod(step, PRIME), by_step), PRIME),
    ]
    state = op.Add(op.Add(parts[0], parts[1]), parts[2])
    for offset in offsets[:-1]:
        state = op.Mod(op.Add(state, offset), PRIME)
        state = op.Mod(op.Mul(state, state), PRIME)
    value: ir.Value = op.Mod(op.Add(state, offsets[-1]), PRIME)
    return value


def uniform(op: Ops, like: ir.Value, coefficients: ir.Value) -> ir.Value:
    """Return uniform float32 numbers in [0, 1) in the shape of `like`; `coefficients` is int64 [degree, polynomial, 1]."""
    rank = len(like.shape) if like.shape is not None else 1
    rows, columns = (_size(op, like, axes) for axes in (range(rank // 2 or min(rank, 1)), range(rank // 2 or 1, rank)))
    total = op.Add(rows, columns)
    index = op.Range(op.constant(0), op.Squeeze(total, [0]), op.constant(1))
    degrees = op.Split(coefficients, [1] * TERMS, axis=0, outputs=TERMS)
    hashed = op.Squeeze(degrees[0], [0])
    for degree in degrees[1:]:
        hashed = op.Mod(op.Add(op.Mul(hashed, index), op.Squeeze(degree, [0])), PRIME)
    hashed = op.Cast(op.Mod(hashed, 2**BITS), to=int(ir.DataType.DOUBLE))
    hashed = op.Mul(hashed, 2.0 ** -(BITS // 2))
    left, right = op.Split(hashed, op.Concat(rows, columns, axis=0), axis=1, outputs=2)
    products = op.MatMul(op.Transpose(left, perm=[1, 0]), right)
    fraction = op.Cast(op.Sub(products, op.Floor(products)), to=int(ir.DataType.FLOAT))
    value: ir.Value = op.Reshape(fraction, op.Shape(like))
    return value


def _size(op: Ops, like: ir.Value, axes: Sequence[int]) -> ir.Value:
    if not axes:
        return op.constant([1])
    dims = op.Shape(like, start=axes[0], end=axes[-1] + 1)
    value: ir.Value = dims if len(axes) == 1 else op.ReduceProd(dims, keepdims=1)
    return value
