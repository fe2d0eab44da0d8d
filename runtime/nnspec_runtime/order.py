"""The order of an epoch's samples: a pure function of the seed, the epoch and, for sequences, the lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]

# Batches sorted by length within one pool: long enough that a batch holds nearly equal lengths, short enough
# that an epoch still mixes the samples.
POOL = 64


def epoch_order(
    count: int, batch: int, seed: int, epoch: int, *, shuffle: bool = True, lengths: NDArray[Any] | None = None
) -> Indices:
    """Return the order of `count` samples in an epoch, to be cut into batches of `batch` from the front.

    Shuffling sorts the raw 64-bit numbers of Philox4x64-10 with the key (seed, epoch): those are the same in every
    version of NumPy and easy to repeat in another language, which the shuffles of a Generator are not. Given
    `lengths`, samples of about equal length share a batch: pools of 64 batches are sorted by length, then the batches
    shuffled. The smaller last batch stays last and holds samples drawn from all lengths.
    """
    if not shuffle:
        return np.arange(count, dtype=np.intp)
    source = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    order = _sorted_by(source.random_raw(count))
    if lengths is None:
        return order
    whole = count - count % batch
    body = order[:whole].copy()
    for start in range(0, whole, POOL * batch):
        pool = body[start : start + POOL * batch]
        pool[:] = pool[_sorted_by(lengths[pool])]
    batches = body.reshape(-1, batch)
    mixed = batches[_sorted_by(source.random_raw(len(batches)))] if len(batches) else batches
    return np.concatenate([mixed.reshape(-1), order[whole:]])


def _sorted_by(keys: NDArray[Any]) -> Indices:
    return np.argsort(keys, kind="stable").astype(np.intp, copy=False)
