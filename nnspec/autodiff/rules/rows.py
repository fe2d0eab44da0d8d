"""Adding rows of a gradient to the rows of a table, where one row of the table may be named many times.

ONNX Runtime's ScatterElements adds element by element on one thread, and its ScatterND, which takes rows and all
threads, loses updates on a CPU where an index comes twice. For a small table one product with one-hot vectors adds up
all. For a large one equal indices are brought together by sorting, and added up by products of one-hot blocks, so that
each row of the table is written once.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from nnspec.autodiff.terms import Term

FEW_ROWS = 192
"""Rows of a table up to which a product with one-hot vectors is faster than adding element by element."""
_BLOCK = 32
"""Sorted rows that one product adds up: the work grows with it, the rows left for adding one by one shrink with it."""
_FEW = 2**15
"""Elements up to which adding them one by one is faster than sorting their rows."""
_NARROW = 16
"""Columns below which sorting the rows costs more than adding their elements."""


def by_one_hot(dy: Term, index: Term, rows: int) -> Term:
    """Return [rows, columns] as the product of one-hot columns [rows, N] with dy [N, columns]."""
    which = _from_front(index, rows).reshape([1, -1]).equals(dy.op.const(np.arange(rows).reshape(rows, 1)))
    return which.cast(dy.dtype) @ dy.reshape([-1, int(dy.dims[-1])])  # type: ignore[arg-type]


def worth_sorting(dy: Term, columns: int) -> bool:
    """Return whether the elements are so many that sorting their rows pays; a symbolic size is taken to be large."""
    if columns < _NARROW or dy.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return False
    return dy.static is None or math.prod(dy.static) > _FEW


def by_sorting(dy: Term, index: Term, rows: int, columns: int) -> Term:
    """Return [rows, columns]: for each row the sum of the rows of dy [N, columns] that have its index.

    The sorted indices s are cut into blocks of B. Within a block the product with e[i, j] = (s[i] = s[j]) gives every
    row the block's sum for its index. The first row of each index is then set as a whole; what a block has of an index
    that an earlier block began, which is one row at most, is added afterwards.
    """
    op = dy.op
    flat = _from_front(index, rows).reshape([-1])
    count = flat.shape()
    # Filled up to whole blocks with an index that no row has; it sorts behind all others.
    missing = op.Mod(-count, op.const([_BLOCK]))
    filled = op.Pad(flat, op.Concat([0], missing, axis=0), op.const(np.int64(rows)))
    s, at = op.many("TopK", 2, filled, filled.shape(), largest=0)
    picked = op.Gather(dy.reshape([-1, columns]), op.Min(at, count - 1), axis=0)
    blocks = s.reshape([-1, _BLOCK])
    same = blocks.unsqueeze([2]).equals(blocks.unsqueeze([1])).cast(dy.dtype)
    sums = same @ picked.reshape([-1, _BLOCK, columns])
    before = op.Concat([-1], s.slice(0, 0, -1), axis=0)
    real, begins = s < rows, op.Not(s.equals(before))
    once = op.And(begins, real)
    table = op.ScatterND(
        op.Expand(dy.like(0), [rows, columns]),
        op.Compress(s, once, axis=0).unsqueeze([1]),
        op.Compress(sums.reshape([-1, columns]), once, axis=0),
    )
    heads = op.And(op.Not(begins), real).reshape([-1, _BLOCK]).slice(1, 0, 1).squeeze([1])
    goes_on = op.Compress(sums.slice(1, 0, 1).squeeze([1]), heads, axis=0)
    where = op.Compress(blocks.slice(1, 0, 1), heads, axis=0)
    return op.ScatterElements(table, where.expand(goes_on), goes_on, axis=0, reduction="add")


def _from_front(index: Term, rows: int) -> Term:
    """Return indices as int64, those from the end as those from the front."""
    index64 = index.cast(ir.DataType.INT64)
    if index.array is not None and not (index.array < 0).any():
        return index64
    return (index64 < 0).where(index64 + rows, index64)
