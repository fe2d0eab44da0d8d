"""What a graph is made for: CPUs in general, the CPU of the machine at hand, or CUDA."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Say which of several forms of one computation is wanted, and which operators beyond ONNX may be used.

    `cpu` asks for the forms that ONNX Runtime's CPU kernels compute fastest; they are standard ONNX, which any runtime
    and device takes. `block` is the number of channels that lie together in the layout of its own convolutions, which
    differs between processors; 0 leaves that layout out. A graph made with a block fits processors of the same block
    only, so it is never written to a file.
    """

    cpu: bool = True
    block: int = 0


PORTABLE = Target()
CUDA = Target(cpu=False)
