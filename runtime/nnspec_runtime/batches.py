"""Cut an epoch into batches and write them into slots, in a thread of its own where that pays."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.data import Column, Dataset
from nnspec_runtime.errors import DataError, listing
from nnspec_runtime.order import Indices
from nnspec_runtime.program import Input
from nnspec_runtime.slots import Shapes, Slot

Array = NDArray[Any]

# A batch smaller than this is copied faster than another thread is woken up.
THREAD_BYTES = 1 << 20


class Batches:
    """Gather the batches of one order after another from a data set, for the inputs that a graph declares."""

    def __init__(self, data: Dataset, inputs: Sequence[Input], batch: int) -> None:
        missing = [one.name for one in inputs if one.name not in data.columns]
        if missing:
            raise DataError(f"the data lack {listing(missing)}, which the graph needs")
        self.batch = min(batch, data.size)
        self.count = -(-data.size // self.batch)
        self.last = data.size - (self.count - 1) * self.batch
        self._columns: list[Column] = [data.columns[one.name] for one in inputs]
        self._bounds = data.bounds
        # For each column, which axes are cut: a column without any has the same shape in every batch.
        self._axes = [
            [
                (axis, dim)
                for axis, dim in enumerate(c.input.shape)
                if axis and isinstance(dim, str) and dim in data.bounds
            ]
            for c in self._columns
        ]
        self._plain = not any(self._axes)
        self._takes = None if any(c.cast for c in self._columns) or not self._plain else [
            c.data.take for c in self._columns
        ]  # fmt: skip
        self._whole = tuple((self.batch, *c.data.shape[1:]) for c in self._columns)
        self._tail = tuple((self.last, *c.data.shape[1:]) for c in self._columns)
        self._order: Indices = np.arange(data.size, dtype=np.intp)

    @property
    def threaded(self) -> bool:
        """Whether gathering is slow enough for a thread: large batches, files on disk."""
        size = sum(c.data[:1].nbytes for c in self._columns) * self.batch
        return size >= THREAD_BYTES or any(c.on_disk for c in self._columns)

    def begin(self, order: Indices) -> None:
        """Take the order of a new epoch."""
        self._order = order

    def rows(self, index: int) -> int:
        """Return the number of samples in a batch."""
        return self.batch if index < self.count - 1 else self.last

    def indices(self, index: int) -> Indices:
        """Return which samples a batch holds."""
        return self._order[index * self.batch : (index + 1) * self.batch]

    def shapes(self, index: int) -> Shapes:
        """Return the shapes of a batch's arrays, cut to the longest of its own samples."""
        whole = self._whole if index < self.count - 1 else self._tail
        if self._plain:
            return whole
        chosen = self.indices(index)
        longest = {dim: max(int(one[chosen].max()) for one in lengths) for dim, lengths in self._bounds.items()}
        cut = [list(shape) for shape in whole]
        for shape, axes in zip(cut, self._axes, strict=True):
            for axis, dim in axes:
                shape[axis] = longest[dim]
        return tuple(tuple(shape) for shape in cut)

    def fill(self, index: int, arrays: Sequence[Array]) -> None:
        """Write a batch into arrays of the shapes that `shapes` gives."""
        chosen = self._order[index * self.batch : (index + 1) * self.batch]
        if self._takes is not None:
            for take, array in zip(self._takes, arrays, strict=True):
                take(chosen, 0, array, "clip")  # the mode that writes straight into `out`; all indices are in range
            return
        for column, axes, array in zip(self._columns, self._axes, arrays, strict=True):
            if axes:
                cut: tuple[Any, ...] = (chosen, *(slice(0, size) for size in array.shape[1:]))
                array[...] = column.data[cut]
            elif column.cast:
                array[...] = column.data[chosen]
            else:
                column.data.take(chosen, 0, array, "clip")


class Loader:
    """Write batches into slots at once, in the caller's thread."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def start(self, index: int, slot: Slot) -> None:
        """Begin to write a batch into a slot that no running step reads."""
        slot.reshape(self._batches.shapes(index))
        self._batches.fill(index, slot.arrays)
        slot.send()

    def finish(self) -> None:
        """Wait until the batch begun last is in its slot."""

    def close(self) -> None:
        """Give back what the loader holds."""


class ThreadedLoader(Loader):
    """Write batches into slots in a thread, while the step before runs."""

    def __init__(self, batches: Batches) -> None:
        super().__init__(batches)
        self._asked: SimpleQueue[tuple[int, Slot] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._open = 0
        self._thread = threading.Thread(target=self._work, name="nnspec-loader", daemon=True)
        self._thread.start()

    def start(self, index: int, slot: Slot) -> None:
        slot.reshape(self._batches.shapes(index))
        self._open += 1
        self._asked.put((index, slot))

    def finish(self) -> None:
        if not self._open:
            return
        self._open -= 1
        error = self._done.get()
        if error is not None:
            raise error

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._asked.get()) is not None:
            index, slot = job
            try:
                self._batches.fill(index, slot.arrays)
                slot.send()
            except BaseException as error:  # handed to the thread that waits for the batch
                self._done.put(error)
            else:
                self._done.put(None)


def open_loader(batches: Batches) -> Loader:
    """Return the loader that suits the size of the batches."""
    return ThreadedLoader(batches) if batches.threaded else Loader(batches)
