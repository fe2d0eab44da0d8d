"""Convolutions over 1, 2 or 3 spatial axes, and their transposes."""

import math
from collections.abc import Mapping
from typing import Any

from nnspec.dims import Dim, product
from nnspec.initializers import HE_NORMAL, ZEROS
from nnspec.layers.base import (
    AnyInitializer,
    Layer,
    Lowering,
    Natural,
    Padding,
    Positive,
    ShapeError,
    Size,
    TensorType,
    WeightSpec,
    Window,
    check_fits,
    hide_padding,
    pads_of,
    per_axis,
    window_out,
)


def _spatial(layer: Layer, x: TensorType) -> tuple[Dim, ...]:
    if not 2 <= x.rank <= 4:
        raise ShapeError(
            f"`{layer.keyword}` needs channels and 1, 2 or 3 spatial axes, and gets {x}",
            input=0,
            label=f"gives {x}",
            help="images are channels-first, such as [3, 224, 224]; a sequence [T, features] needs `transpose` before",
        )
    if x.dtype != "float32":
        raise ShapeError(f"`{layer.keyword}` needs real numbers and gets {x}", input=0, label=f"gives {x}")
    return x.shape[1:]


def _channels(layer: Layer, x: TensorType) -> int:
    channels = x.shape[0]
    if not isinstance(channels, int):
        raise ShapeError(
            f"`{layer.keyword}` needs a fixed number of channels, and gets `{channels}`",
            input=0,
            label=f"gives {x}",
            help="channels come first: a sequence [T, features] needs `transpose` before",
        )
    return channels


def _check_groups(groups: int, channels: int, filters: int) -> None:
    for count, name in ((channels, "input channel"), (filters, "filter")):
        if count % groups:
            common = math.gcd(channels, filters)
            fitting = [str(d) for d in range(1, min(common, 1024) + 1) if common % d == 0]
            raise ShapeError(
                f"{count} {name}{'s' * (count > 1)} cannot be split into {groups} groups",
                field="groups",
                label=f"does not divide {count}",
                help=f"the channels, {channels}, and the filters, {filters}, can be split into {', '.join(fitting)}",
            )


class Conv(Layer, keyword="conv"):
    """Convolution over 1, 2 or 3 spatial axes: `conv(64, 3x3, stride = 2, pad = 1)`.

    y[f, p] = bias[f] + sum over c, k of weight[f, c, k] x[c, p stride + k dilation - pad]: a cross-correlation, as in
    all frameworks. [C, *spatial] becomes [filters, *windows] with windows = floor((padded - extent) / stride) + 1.
    """

    filters: Positive
    """Number of output channels."""
    kernel: Size
    """Size of the kernel: a number for all axes, or `3x5`."""
    stride: Size = 1
    """Step between windows."""
    pad: Padding = 0
    """Zeros around the image: a number, a size, a list of begins and ends, `same` or `valid`."""
    dilation: Size = 1
    """Distance between the kernel's taps."""
    groups: Positive = 1
    """Channels are split into this many groups that do not see each other; equal to the channels: depthwise."""
    bias: bool = True
    """Whether a bias is added to each output channel."""
    init: AnyInitializer = HE_NORMAL
    """How the kernel starts."""
    bias_init: AnyInitializer = ZEROS
    """How the bias starts."""

    def _geometry(
        self, x: TensorType
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[Dim], list[Dim]]:
        spatial = _spatial(self, x)
        n = len(spatial)
        kernel, stride, dilation = (per_axis(getattr(self, f), n, f) for f in ("kernel", "stride", "dilation"))
        begins, ends = pads_of(self.pad, spatial, kernel, stride, dilation)
        return kernel, stride, dilation, begins, ends

    def infer(self, *x: TensorType) -> TensorType:
        (image,) = x
        kernel, stride, dilation, begins, ends = self._geometry(image)
        channels = _channels(self, image)
        _check_groups(self.groups, channels, self.filters)
        spatial = image.shape[1:]
        padded = [s + b + e for s, b, e in zip(spatial, begins, ends, strict=True)]
        check_fits(kernel, dilation, padded, spatial, image)
        out = tuple(
            window_out(p, d * (k - 1) + 1, s) for p, k, s, d in zip(padded, kernel, stride, dilation, strict=True)
        )
        return image.with_shape((self.filters, *out))

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        kernel = self._geometry(x[0])[0]
        shape = (self.filters, _channels(self, x[0]) // self.groups, *kernel)
        specs = {"weight": WeightSpec(shape=shape, init=self.init, decay=True)}
        if self.bias:
            specs["bias"] = WeightSpec(shape=(self.filters,), init=self.bias_init)
        return specs

    def macs(self, *x: TensorType) -> Dim:
        kernel = self._geometry(x[0])[0]
        return product(self.infer(*x).shape) * (_channels(self, x[0]) // self.groups * math.prod(kernel))

    def window(self, *x: TensorType) -> Window:
        kernel, stride, dilation, _, _ = self._geometry(x[0])
        return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)), stride

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        kernel, stride, dilation, begins, ends = self._geometry(ctx.inputs[0])
        return ctx.op.Conv(
            hide_padding(ctx, x[0], [i for i, k in enumerate(kernel, 1) if k > 1]),
            w["weight"],
            w.get("bias"),
            kernel_shape=list(kernel),
            strides=list(stride),
            dilations=list(dilation),
            group=self.groups,
            pads=[*begins, *ends],
        )


class ConvTranspose(Layer, keyword="conv_transpose"):
    """Transposed convolution, the adjoint of `conv`: `conv_transpose(32, 4x4, stride = 2, pad = 1)`.

    Out = (in - 1) stride + dilation (kernel - 1) + 1 - pads + output_pad. The weight is [in, filters / groups, *k].
    """

    filters: Positive
    """Number of output channels."""
    kernel: Size
    """Size of the kernel."""
    stride: Size = 1
    """Upsampling factor."""
    pad: Padding = 0
    """What is cut from each side of the result; `same` makes out = in x stride."""
    output_pad: Natural | tuple[Natural, ...] = 0
    """Rows added at the end, to choose between the sizes that a strided convolution maps to one; below the stride."""
    dilation: Size = 1
    """Distance between the kernel's taps."""
    groups: Positive = 1
    """Number of groups of channels."""
    bias: bool = True
    """Whether a bias is added to each output channel."""
    init: AnyInitializer = HE_NORMAL
    """How the kernel starts."""
    bias_init: AnyInitializer = ZEROS
    """How the bias starts."""

    def _geometry(self, x: TensorType) -> tuple[tuple[int, ...], ...]:
        n = len(_spatial(self, x))
        kernel, stride, dilation, extra = (
            per_axis(getattr(self, f), n, f) for f in ("kernel", "stride", "dilation", "output_pad")
        )
        if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
            raise ShapeError(
                "`output_pad` must be below the stride",
                field="output_pad",
                label=f"stride is {'x'.join(map(str, stride))}",
            )
        begins: tuple[int, ...]
        ends: tuple[int, ...]
        if self.pad == "same":
            amounts = [d * (k - 1) + 1 + e - s for k, s, d, e in zip(kernel, stride, dilation, extra, strict=True)]
            if any(a < 0 for a in amounts):
                raise ShapeError("`pad = same` needs a kernel at least as large as the stride", field="pad")
            begins, ends = tuple(a // 2 for a in amounts), tuple(a - a // 2 for a in amounts)
        else:
            b, e = pads_of(self.pad, (1,) * n, kernel, stride, dilation)
            begins, ends = tuple(int(v) for v in b), tuple(int(v) for v in e)  # type: ignore[arg-type]
        return kernel, stride, dilation, extra, begins, ends

    def infer(self, *x: TensorType) -> TensorType:
        (image,) = x
        kernel, stride, dilation, extra, begins, ends = self._geometry(image)
        channels = _channels(self, image)
        _check_groups(self.groups, channels, self.filters)
        out = tuple(
            (size - 1) * s + d * (k - 1) + 1 + e - b - f
            for size, k, s, d, e, b, f in zip(
                image.shape[1:], kernel, stride, dilation, extra, begins, ends, strict=True
            )
        )
        if any(isinstance(o, int) and o < 1 for o in out):
            raise ShapeError("`pad` cuts everything away", field="pad", label=f"leaves {list(out)}")
        return image.with_shape((self.filters, *out))

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        kernel = self._geometry(x[0])[0]
        channels, taps = _channels(self, x[0]), math.prod(kernel)
        specs = {
            "weight": WeightSpec(
                shape=(channels, self.filters // self.groups, *kernel),
                init=self.init,
                decay=True,
                fan=(channels // self.groups * taps, self.filters // self.groups * taps),
            )
        }
        if self.bias:
            specs["bias"] = WeightSpec(shape=(self.filters,), init=self.bias_init)
        return specs

    def macs(self, *x: TensorType) -> Dim:
        kernel = self._geometry(x[0])[0]
        return product(x[0].shape) * (self.filters // self.groups * math.prod(kernel))

    def window(self, *x: TensorType) -> Window:
        from fractions import Fraction

        kernel, stride, dilation, _, _, _ = self._geometry(x[0])
        # Each output sees the inputs whose kernels reach it: ceil(extent / stride) of them.
        extents = tuple(-(-(d * (k - 1) + 1) // s) for k, d, s in zip(kernel, dilation, stride, strict=True))
        return extents, tuple(Fraction(1, s) for s in stride)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        kernel, stride, dilation, extra, begins, ends = self._geometry(ctx.inputs[0])
        return ctx.op.ConvTranspose(
            hide_padding(ctx, x[0], [i for i, k in enumerate(kernel, 1) if k > 1]),
            w["weight"],
            w.get("bias"),
            kernel_shape=list(kernel),
            strides=list(stride),
            dilations=list(dilation),
            group=self.groups,
            output_padding=list(extra),
            pads=[*begins, *ends],
        )
