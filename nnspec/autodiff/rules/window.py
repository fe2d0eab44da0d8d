"""The geometry of convolution and pooling windows, with automatic padding resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnspec.autodiff.terms import NodeView, Term


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, strides, dilations and zeros before and after, one of each per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """How many places the dilated kernel spans along each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def tiles(self) -> bool:
        """Whether windows neither overlap nor leave gaps nor see padding (rows may be left over at the end)."""
        return self.kernel == self.strides and self.extent == self.kernel and not any(self.begins + self.ends)

    @staticmethod
    def of(n: NodeView, kernel: Sequence[int | str | None], x: Term, y: Term) -> Window:
        """Read the attributes of `n`, whose window slides over `x` and gives `y` (a ConvTranspose: the reverse)."""
        axes = len(kernel)
        if not all(isinstance(k, int) for k in kernel):
            raise n.error("the kernel's size is unknown")
        size = tuple(int(k) for k in kernel)  # type: ignore[arg-type]
        strides = tuple(n.attr("strides") or [1] * axes)
        dilations = tuple(n.attr("dilations") or [1] * axes)
        auto = n.attr("auto_pad", "NOTSET") or "NOTSET"
        if auto == "VALID":
            return Window(size, strides, dilations, (0,) * axes, (0,) * axes)
        if auto == "NOTSET" and not n.attr("output_shape"):
            pads = n.attr("pads") or [0] * (2 * axes)
            return Window(size, strides, dilations, tuple(pads[:axes]), tuple(pads[axes:]))
        begins, ends = [], []
        for i in range(axes):
            extent = dilations[i] * (size[i] - 1) + 1
            total = _total_padding(
                n, x.dims[2 + i], y.dims[2 + i], strides[i], extent, _at(n.attr("output_padding"), i)
            )
            less = total // 2
            begins.append(total - less if auto == "SAME_LOWER" else less)
            ends.append(total - begins[-1])
        if n.node.op_type == "ConvTranspose" and auto == "NOTSET":
            # Without auto_pad, ConvTranspose puts the larger half first.
            begins, ends = ends, begins
        return Window(size, strides, dilations, tuple(begins), tuple(ends))

    def reaches(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return how many windows fit along axes of `size`."""
        return tuple(
            (s + b + e - k) // t + 1
            for s, b, e, k, t in zip(size, self.begins, self.ends, self.extent, self.strides, strict=True)
        )


def _at(values: Sequence[int] | None, i: int) -> int:
    return 0 if not values else int(values[i])


def _total_padding(
    n: NodeView, size: int | str | None, count: int | str | None, stride: int, extent: int, extra: int
) -> int:
    """Return how much padding makes `count` windows of a stride fill an axis of `size`."""
    if isinstance(size, int) and isinstance(count, int):
        return max(0, (count - 1) * stride + extent + extra - size)
    if stride == 1 and not n.attr("output_shape"):
        return extent - 1
    raise n.error("automatic padding of an axis of unknown size with a stride has no gradient rule")
