"""What all layers share: argument types, the lowering context, and the arithmetic of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from nnspec.dims import Dim, ceil_div, floor_div
from nnspec.initializers import AnyInitializer
from nnspec.ir import Layer, ShapeError, TensorType, WeightSpec, Window

if TYPE_CHECKING:
    import onnx_ir as ir

    from nnspec.ops import Ops

__all__ = [
    "AnyInitializer",
    "Layer",
    "Lowering",
    "Natural",
    "Padding",
    "Positive",
    "ShapeError",
    "Size",
    "TensorType",
    "WeightSpec",
    "Window",
    "axis_of",
    "check_fits",
    "hide_padding",
    "joined",
    "pads_of",
    "per_axis",
    "window_out",
]

Positive = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Size = Positive | Annotated[tuple[Positive, ...], Field(min_length=1)]
"""A number for all spatial axes, or one for each: `3`, `3x5`."""
Padding = Natural | Literal["same", "valid"] | Annotated[tuple[Natural, ...], Field(min_length=1)]
"""A number, a size, a list of begins and ends, `same` or `valid`."""


class Lowering(Protocol):
    """What a layer may ask for while it is lowered."""

    op: Ops
    name: str
    training: bool
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]

    def dim(self, dim: Dim) -> ir.Value:
        """Return a dim as an int64 value of shape [1]: a constant, or computed from the inputs' shapes."""

    def shape(self, type_: TensorType) -> ir.Value:
        """Return the whole shape of a type, batch included, as a 1-D int64 value."""

    def batch_size(self) -> ir.Value:
        """Return the number of samples as an int64 value of shape [1]."""

    def lengths(self, dim: Dim) -> ir.Value | None:
        """Return each sample's own length along a masked dim as int64 [batch], or None where it is not masked."""

    def mask(self, value: ir.Value, type_: TensorType) -> ir.Value | None:
        """Return 1 for steps that count and 0 for padding, broadcastable to `value`; None where nothing is masked."""

    def stop(self, value: ir.Value, op: Ops | None = None) -> ir.Value:
        """Return the same value, through which no gradient flows; in a subgraph where its builder is given."""

    def of_batch(self, value: ir.Value) -> ir.Value:
        """Return the same value, a BatchNormalization whose input has the mean 0 and the variance that it is given.

        Its gradient is then that through the statistics too, though none flows through their own nodes.
        """

    def uniform(self, like: ir.Value) -> ir.Value:
        """Return random numbers in [0, 1) of a value's shape, different in every step and the same on resuming."""

    def recurrence(self, layer: Any, x: Sequence[Any], w: Any) -> tuple[ir.Value, ...]:
        """Run a cell along its sequences."""

    def generate(self, layer: Any) -> tuple[ir.Value, ...]:
        """Let a decoder go on from what it said."""

    def update(self, role: str, value: ir.Value) -> None:
        """Set what the buffer in `role` holds after this step; only in training."""


def per_axis(value: Any, rank: int, field: str) -> tuple[int, ...]:
    """Return a size as one number for each of `rank` spatial axes."""
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        raise ShapeError(
            f"`{field}` has {len(value)} numbers, the input has {rank} spatial {'axis' if rank == 1 else 'axes'}",
            field=field,
            label=f"needs {rank} or a single number",
            help=f"give one number for all axes, or {rank} as in `{'x'.join(['3'] * rank)}`"
            if rank > 1
            else "give a single number",
        )
    return tuple(value)


def pads_of(
    pad: Any, spatial: Sequence[Dim], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[list[Dim], list[Dim]]:
    """Return the begins and ends of a padding, per axis.

    `same` makes out = ceil(in / stride); what is odd goes to the end. With a symbolic axis and a stride above 1 the
    amount depends on the size modulo the stride, which a static pad cannot say: that is a ShapeError.
    """
    rank = len(spatial)
    if pad == "valid":
        return [0] * rank, [0] * rank
    if pad == "same":
        begins: list[Dim] = []
        ends: list[Dim] = []
        for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
            extent = d * (k - 1) + 1
            if isinstance(size, int):
                amount = max((-(-size // s) - 1) * s + extent - size, 0)
            elif s == 1:
                amount = extent - 1
            else:
                raise ShapeError(
                    f"`pad = same` with stride {s} needs to know the size, and `{size}` is symbolic",
                    field="pad",
                    help="give the padding as a number, or declare the input with fixed sizes",
                )
            begins.append(amount // 2)
            ends.append(amount - amount // 2)
        return begins, ends
    if isinstance(pad, int):
        return [pad] * rank, [pad] * rank
    if len(pad) == rank:
        return list(pad), list(pad)
    if len(pad) == 2 * rank:
        return list(pad[:rank]), list(pad[rank:])
    raise ShapeError(
        f"`pad` has {len(pad)} numbers, the input has {rank} spatial axes",
        field="pad",
        label=f"needs 1, {rank} or {2 * rank} numbers",
        help="a number for all sides, a size for each axis, or a list of all begins and then all ends",
    )


def check_fits(
    kernel: Sequence[int], dilation: Sequence[int], padded: Sequence[Dim], image: Sequence[Dim], x: TensorType
) -> None:
    """Raise ShapeError where a window is larger than the padded image."""
    for k, d, p in zip(kernel, dilation, padded, strict=True):
        extent = d * (k - 1) + 1
        if isinstance(p, int) and p < extent:
            size = "x".join(str(k) for k in kernel)
            image_text = "x".join(str(i) for i in image)
            needs = "x".join(str(d * (k - 1) + 1) for k, d in zip(kernel, dilation, strict=True))
            what = "kernel" if len(kernel) > 1 else "wide kernel"
            raise ShapeError(
                f"a {size} {what} does not fit a {image_text} {'image' if len(kernel) > 1 else 'long sequence'}",
                field="kernel",
                label=f"needs at least {needs}",
                help=f"add `pad = {k // 2}`, or remove a pooling or stride above" if k > 1 else "",
            )


def window_out(padded: Dim, extent: int, stride: int, *, ceil: bool = False) -> Dim:
    """Return how many windows fit: floor((padded - extent) / stride) + 1, or with ceil."""
    if ceil:
        return ceil_div(padded - extent, stride) + 1
    return floor_div(padded - extent, stride) + 1


def joined(axes: Sequence[int], x: TensorType) -> str | None:
    """Return the window of a layer that joins whole axes: None for channels and a sequence's features, else `"all"`."""
    features = 0 if x.rank >= 3 else 1
    return None if all(axis_of(a, x.rank) == features for a in axes) else "all"


def axis_of(axis: int, rank: int, field: str = "axis") -> int:
    """Return an axis counted from the front; axes count after the batch, negative ones from the back."""
    if not -rank <= axis < rank:
        raise ShapeError(
            f"axis {axis} is out of range for {rank} {'axis' if rank == 1 else 'axes'}",
            field=field,
            label=f"needs {-rank} to {rank - 1}",
            help="axes are counted from 0 after the batch; negative ones count from the last",
        )
    return axis % rank


def hide_padding(ctx: Lowering, x: Any, axes: Sequence[int], fill: float = 0.0) -> Any:
    """Return the first input with `fill` behind the end of each sample along some axes, counted after the batch.

    Windows that reach past the end of a sequence see there what they see behind the end of the data.
    """
    type_ = ctx.inputs[0]
    keep = ctx.mask(x, type_.with_shape(tuple(d if i in axes else 1 for i, d in enumerate(type_.shape))))
    return x if keep is None else ctx.op.Where(ctx.op.Greater(keep, 0.5), x, ctx.op.constant(fill, x.dtype))
