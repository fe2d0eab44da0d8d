"""Pooling over windows and over whole images."""

from typing import Any

from nnspec.dims import Dim
from nnspec.layers.base import (
    Layer,
    Lowering,
    Padding,
    ShapeError,
    Size,
    TensorType,
    Window,
    check_fits,
    hide_padding,
    pads_of,
    per_axis,
    window_out,
)


class Pool(Layer):
    """Base of the window pools."""

    kernel: Size
    """Size of the window."""
    stride: Size | None = None
    """Step between windows; the window's size where it is not given."""
    pad: Padding = 0
    """Border around the image: a number, a size, a list of begins and ends, `same` or `valid`."""
    ceil: bool = False
    """Whether a last, partial window counts."""

    def _geometry(self, x: TensorType) -> tuple[tuple[int, ...], tuple[int, ...], list[Dim], list[Dim]]:
        n = x.rank - 1
        if not 1 <= n <= 3:
            raise ShapeError(
                f"`{self.keyword}` needs channels and 1, 2 or 3 spatial axes, and gets {x}", input=0, label=f"gives {x}"
            )
        kernel = per_axis(self.kernel, n, "kernel")
        stride = kernel if self.stride is None else per_axis(self.stride, n, "stride")
        begins, ends = pads_of(self.pad, x.shape[1:], kernel, stride, (1,) * n)
        if any(isinstance(p, int) and p >= k for pads in (begins, ends) for p, k in zip(pads, kernel, strict=True)):
            raise ShapeError(
                "`pad` must be smaller than the window",
                field="pad",
                label=f"the window is {'x'.join(map(str, kernel))}",
            )
        return kernel, stride, begins, ends

    def infer(self, *x: TensorType) -> TensorType:
        (image,) = x
        kernel, stride, begins, ends = self._geometry(image)
        spatial = image.shape[1:]
        padded = [s + b + e for s, b, e in zip(spatial, begins, ends, strict=True)]
        check_fits(kernel, (1,) * len(kernel), padded, spatial, image)
        out = []
        for size, p, b, e, k, s in zip(spatial, padded, begins, ends, kernel, stride, strict=True):
            count = window_out(p, k, s, ceil=self.ceil)
            # A window that would start in the padding behind the image does not count.
            if self.ceil and isinstance(e, int) and s + e > k:
                if not isinstance(count, int) or not isinstance(size, int) or not isinstance(b, int):
                    raise ShapeError(
                        f"with `ceil`, the number of windows needs to know the size, and `{size}` is symbolic",
                        field="ceil",
                        help="make stride and padding together at most the window, or declare fixed sizes",
                    )
                count -= (count - 1) * s >= size + b
            out.append(count)
        return image.with_shape((image.shape[0], *out))

    def window(self, *x: TensorType) -> Window:
        kernel, stride, _, _ = self._geometry(x[0])
        return kernel, stride

    def _attributes(self, ctx: Lowering) -> dict[str, Any]:
        kernel, stride, begins, ends = self._geometry(ctx.inputs[0])
        ceil = False
        if self.ceil:
            counts, sizes = ctx.outputs[0].shape[1:], ctx.inputs[0].shape[1:]
            windows = zip(counts, stride, kernel, sizes, begins, strict=True)
            exact = [(c - 1) * s + k - n - b for c, s, k, n, b in windows]
            fixed = all(isinstance(e, int) for e in exact)
            partial = [not isinstance(x, int) or x > e for x, e in zip(exact, ends, strict=True)]  # type: ignore[operator]
            # ONNX's shape inference counts a last window that starts behind the image, and ONNX Runtime does not:
            # an end that fits leaves no doubt. Zeros that count in a mean must not become more, though.
            ceil = any(partial) and (self._counts_pad or not fixed)
            if ceil:
                ends = [e if p else max(x, 0) for x, e, p in zip(exact, ends, partial, strict=True)]  # type: ignore[type-var]
            else:
                ends = [x if p else e for x, e, p in zip(exact, ends, partial, strict=True)]
        return {
            "kernel_shape": list(kernel),
            "strides": list(stride),
            "pads": [*begins, *ends],
            "ceil_mode": int(ceil),
        }

    @property
    def _counts_pad(self) -> bool:
        return False


class MaxPool(Pool, keyword="maxpool"):
    """Maximum of each window: `maxpool(2)`, overlapping as `maxpool(3, stride = 2)`."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        image = hide_padding(ctx, x[0], range(1, ctx.inputs[0].rank), -3.0e38)
        return ctx.op.MaxPool(image, **self._attributes(ctx))


class AvgPool(Pool, keyword="avgpool"):
    """Mean of each window: `avgpool(2)`."""

    count_pad: bool = False
    """Whether the padding's zeros count in the mean."""

    @property
    def _counts_pad(self) -> bool:
        return self.count_pad

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        image = hide_padding(ctx, x[0], range(1, ctx.inputs[0].rank))
        return ctx.op.AveragePool(image, count_include_pad=int(self.count_pad), **self._attributes(ctx))


class GlobalPool(Layer):
    """Base of the pools over the whole image: [C, *spatial] becomes [C]."""

    def infer(self, *x: TensorType) -> TensorType:
        if x[0].rank < 2:
            raise ShapeError(
                f"`{self.keyword}` needs channels and spatial axes, and gets {x[0]}", input=0, label=f"gives {x[0]}"
            )
        return x[0].with_shape(x[0].shape[:1])

    def window(self, *x: TensorType) -> str:
        return "all"


class GlobalAvgPool(GlobalPool, keyword="global_avgpool"):
    """Mean of each channel: `global_avgpool` makes [C, H, W] a vector [C]; masked steps do not count."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axes = list(range(2, ctx.inputs[0].rank + 1))
        keep = ctx.mask(x[0], ctx.inputs[0])
        if keep is None:
            return ctx.op.ReduceMean(x[0], axes, keepdims=0)
        count = ctx.op.ReduceSum(ctx.op.Expand(keep, ctx.op.Shape(x[0])), axes, keepdims=0)
        return ctx.op.Div(ctx.op.ReduceSum(ctx.op.Mul(x[0], keep), axes, keepdims=0), count)


class GlobalMaxPool(GlobalPool, keyword="global_maxpool"):
    """Maximum of each channel: `global_maxpool` makes [C, H, W] a vector [C]; masked steps do not count."""

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axes = list(range(2, ctx.inputs[0].rank + 1))
        keep = ctx.mask(x[0], ctx.inputs[0])
        y = x[0] if keep is None else ctx.op.Where(ctx.op.Greater(keep, 0.5), x[0], -3.0e38)
        return ctx.op.ReduceMax(y, axes, keepdims=0)
