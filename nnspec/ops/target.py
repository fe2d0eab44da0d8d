"""What a graph is made for: CPUs in general, the CPU of the machine at hand, or CUDA."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Say which of several forms of one computation is wanted, and which operators may be used.

    `cpu` asks for the forms that ONNX Runtime's CPU kernels compute fastest; they are standard ONNX that CUDA runs too.
    `alone` allows standard operators that have kernels on the CPU alone. `block` is the number of channels that lie
    together in the layout of ONNX Runtime's own convolutions, which differs between processors; 0 leaves that layout
    out. A graph made with a block fits processors of the same block only, so it is never written to a file.
    `batch` is the number of samples that most batches have, 0 where unknown.
    """

    cpu: bool = True
    alone: bool = False
    block: int = 0
    batch: int = 0

    def fits(self, channels: int, filters: int) -> bool:
        """Return whether a convolution without groups gains by the layout of blocks."""
        if not self.block or min(channels, filters) < self.block:
            return False
        return not self.wastes(channels, filters)

    def wastes(self, *sizes: int) -> bool:
        """Return whether filling up each of the sizes to whole blocks makes too many products."""
        return math.prod(map(self.whole, sizes)) > _WASTE * math.prod(sizes)

    def whole(self, channels: int) -> int:
        """Return how many channels there are when the last block is filled up."""
        return -(-channels // self.block) * self.block


_WASTE = 1.45
"""How many times the products may be, channels filled up to whole blocks, before the plain kernel is as fast."""

PORTABLE = Target()
CUDA = Target(cpu=False)
