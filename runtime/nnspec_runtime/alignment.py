"""Labels that a CTC loss has to align with the steps of a network: whether each sample's steps can hold its label."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.program import Alignment, Input

Array = NDArray[Any]

_OPERATORS: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def alignment_faults(columns: Mapping[str, tuple[Input, Array]]) -> list[str]:
    """Return a sentence for each label that cannot be what a CTC loss takes, naming its first such sample.

    `columns` are the arrays of a data set with what is declared of them, lengths included.
    """
    labels = {name: (one, data) for name, (one, data) in columns.items() if one.alignment is not None}
    if not labels:
        return []
    sizes: dict[str, Array] = {}
    for one, data in columns.values():
        for axis, dim in enumerate(one.shape):
            if not axis or not isinstance(dim, str):
                continue
            if axis == 1 and one.lengths is not None and one.lengths in columns:
                sizes[dim] = np.asarray(columns[one.lengths][1], np.int64)
            sizes.setdefault(dim, np.full(len(data), data.shape[axis], np.int64))
    faults = []
    for name, (one, data) in labels.items():
        assert one.alignment is not None
        lengths = sizes.get(str(one.shape[1]), np.full(len(data), data.shape[1], np.int64))
        faults += _faults(name, np.asarray(data), lengths, one.alignment, sizes)
    return faults


def _faults(name: str, label: Array, lengths: Array, wanted: Alignment, sizes: Mapping[str, Array]) -> list[str]:
    faults = []
    inside = np.arange(label.shape[1]) < lengths[:, None]
    wrong = ((label == wanted.blank) & inside).any(1)
    if wrong.any():
        faults.append(f"'{name}' holds the blank, {wanted.blank}, in sample {int(np.argmax(wrong))}")
    if wanted.zero_infinity:
        return faults
    # Between a symbol and its equal there has to be a blank.
    twice = ((label[:, 1:] == label[:, :-1]) & inside[:, 1:]).sum(1)
    steps = np.maximum(np.broadcast_to(evaluate(wanted.steps, sizes), lengths.shape), 0)
    short = steps < lengths + twice
    if short.any():
        at = int(np.argmax(short))
        symbols, blanks = int(lengths[at]), int(twice[at])
        between = f" and {blanks} blank{'s' * (blanks > 1)} between equal ones" if blanks else ""
        faults.append(
            f"'{name}' is too long in sample {at}: {symbols} symbols{between} cannot be aligned with {steps[at]} steps"
        )
    return faults


def evaluate(size: int | str, sizes: Mapping[str, Array]) -> Array:
    """Return the value of a size such as `(T - 1)//2 + 1` for each sample; raise ValueError for anything else."""
    return _value(ast.parse(str(size), mode="eval").body, sizes)


def _value(node: ast.expr, sizes: Mapping[str, Array]) -> Array:
    match node:
        case ast.Constant(value=int(value)):
            return np.array(value)
        case ast.Name(id=name) if name in sizes:
            return sizes[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, sizes)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, sizes), _value(right, sizes))
    raise ValueError(f"not a size: {ast.unparse(node)}")
