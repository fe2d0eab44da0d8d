"""ONNX Runtime's CPU allocator, followed in numbers: what of its memory is touched by a sequence of tensors.

It is a best-fit allocator with coalescing (`BFCArena`, after TensorFlow's): free chunks lie in bins by the power of two
of their size, a chunk is split where at least half would be left over, and regions grow in powers of two. Because a
chunk that is not split is held whole, and none goes over the end of a region, more memory is touched than tensors live
at once. Each region has a table of the chunk that begins at each place, which is filled in when the region is taken.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

_ALIGNMENT = 256
_ENTRY = 8
"""Bytes of a region's table for each place where a chunk may begin."""
FIRST_REGION = 1 << 20
_LARGEST_REGION = 1 << 30
_MOST_LEFT_OVER = 128 << 20
_BINS = 21


@dataclass(eq=False)
class Chunk:
    """A piece of a region."""

    region: int
    start: int
    size: int
    free: bool = True
    before: Chunk | None = None
    after: Chunk | None = None


class Arena:
    """Take and give back memory; `touched` is how many bytes were ever handed out, each counted once.

    The first region has `first` bytes, or as many as the first tensor needs.
    """

    def __init__(self, first: int = FIRST_REGION) -> None:
        self._bins: list[list[tuple[int, int, int, Chunk]]] = [[] for _ in range(_BINS)]
        self._next = first
        self._taken = 0
        self._highest: list[list[tuple[int, int]]] = []

    @property
    def regions(self) -> list[int]:
        """The bytes of each region that were handed out at least once, in the order in which regions were taken."""
        return [sum(end - start for start, end in spans) for spans in self._highest]

    @property
    def touched(self) -> int:
        """The bytes that were handed out at least once."""
        return sum(self.regions)

    @property
    def held(self) -> int:
        """The bytes that were handed out at least once, and those of the tables of all regions."""
        return self.touched + self._taken // _ALIGNMENT * _ENTRY

    def take(self, size: int) -> Chunk:
        """Return memory for a tensor."""
        wanted = max(1, -(-size // _ALIGNMENT)) * _ALIGNMENT
        chunk = self._fit(wanted) or self._extend(wanted)
        if chunk.size >= 2 * wanted or chunk.size - wanted >= _MOST_LEFT_OVER:
            rest = Chunk(chunk.region, chunk.start + wanted, chunk.size - wanted, True, chunk, chunk.after)
            if chunk.after is not None:
                chunk.after.before = rest
            chunk.after, chunk.size = rest, wanted
            self._put(rest)
        chunk.free = False
        self._touch(chunk.region, chunk.start, chunk.start + size)
        return chunk

    def give(self, chunk: Chunk) -> None:
        """Take memory back; free neighbours become one chunk."""
        chunk.free = True
        for other, first in ((chunk.after, True), (chunk.before, False)):
            if other is None or not other.free:
                continue
            self._bins[_bin(other.size)].remove(_entry(other))
            left, right = (chunk, other) if first else (other, chunk)
            left.size += right.size
            left.after = right.after
            if right.after is not None:
                right.after.before = left
            chunk = left
        self._put(chunk)

    def _fit(self, wanted: int) -> Chunk | None:
        for entries in self._bins[_bin(wanted) :]:
            for entry in entries:
                if entry[0] >= wanted:
                    entries.remove(entry)
                    return entry[3]
        return None

    def _extend(self, wanted: int) -> Chunk:
        grown = False
        while self._next < wanted:
            self._next *= 2
            grown = True
        chunk = Chunk(len(self._highest), 0, self._next)
        self._taken += self._next
        if not grown and self._next < _LARGEST_REGION:
            self._next *= 2
        self._highest.append([])
        return chunk

    def _put(self, chunk: Chunk) -> None:
        insort(self._bins[_bin(chunk.size)], _entry(chunk))

    def _touch(self, region: int, start: int, end: int) -> None:
        merged = []
        for span in self._highest[region]:
            if span[1] < start or span[0] > end:
                merged.append(span)
            else:
                start, end = min(start, span[0]), max(end, span[1])
        self._highest[region] = sorted([*merged, (start, end)])


def _bin(size: int) -> int:
    return min(_BINS - 1, max(size // _ALIGNMENT, 1).bit_length() - 1)


def _entry(chunk: Chunk) -> tuple[int, int, int, Chunk]:
    return chunk.size, -chunk.region, chunk.start, chunk
