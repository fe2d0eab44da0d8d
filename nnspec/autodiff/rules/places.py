"""Operators that copy elements: send the place of every element through the operator, then add up by place.

This is right for whatever copies, but scatters; the rules use it where no plainer way exists.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnspec.autodiff.terms import Term


def places_of(x: Term) -> Term:
    """Return an int64 tensor of the shape of `x` that numbers its elements in order."""
    op = x.op
    if x.static is not None:
        return op.const(np.arange(int(np.prod(x.static, dtype=np.int64)), dtype=np.int64).reshape(x.static))
    return op.Reshape(op.Range(op.const(np.int64(0)), op.Size(x), op.const(np.int64(1))), x.shape())


def add_at(places: Term, dy: Term, x: Term, *, unique: bool = False) -> Term:
    """Return zeros of the shape of `x` with each element of `dy` added at its place."""
    op = x.op
    count = op.const([int(np.prod(x.static, dtype=np.int64))]) if x.static is not None else op.Reshape(op.Size(x), [1])
    zeros = op.Expand(dy.like(0), count)
    flat = op.ScatterElements(
        zeros, places.reshape([-1]), dy.reshape([-1]), axis=0, reduction=None if unique else "add"
    )
    return flat.reshape_like(x)


def through_places(dy: Term, x: Term, copy: Callable[[Term], Term], *, unique: bool = False) -> Term:
    """Return the gradient of `x`, from which `copy` takes elements; `unique` if each at most once."""
    return add_at(copy(places_of(x)), dy, x, unique=unique)
