"""Layers that move elements without changing them: reshape, transpose, concat, split, slice, pad and the like."""

from typing import Annotated, Any, Literal

from pydantic import Field

from nnspec.dims import Dim, floor_div, product, total
from nnspec.layers.base import Layer, Lowering, Positive, ShapeError, Size, TensorType, Window, axis_of, per_axis


class Flatten(Layer, keyword="flatten"):
    """All axes become one: `flatten` makes [C, H, W] a vector [C H W]."""

    def infer(self, *x: TensorType) -> TensorType:
        return x[0].with_shape((x[0].size,))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        size = ctx.outputs[0].shape[0]
        return ctx.op.Reshape(x[0], [0, size if isinstance(size, int) else -1] if ctx.inputs[0].rank else [-1, 1])


class Reshape(Layer, keyword="reshape"):
    """Another shape with as many elements, in the same order: `reshape([7, 7, 64])`; one axis may be -1."""

    shape: tuple[Dim, ...]
    """The new shape, without the batch; -1 for what is left over."""

    def infer(self, *x: TensorType) -> TensorType:
        (t,) = x
        if sum(1 for d in self.shape if d == -1) > 1:
            raise ShapeError("`reshape` can work out one axis only", field="shape", label="has more than one -1")
        if any(isinstance(d, int) and d < -1 for d in self.shape):
            raise ShapeError("`reshape` needs sizes that are not negative", field="shape")
        known = product(d for d in self.shape if d != -1)
        shape = self.shape
        if -1 in self.shape:
            rest = floor_div(t.size, known) if known != 0 else 0
            if rest * known != t.size:
                raise ShapeError(
                    f"`reshape` cannot make {list(map(str, self.shape))} of {t}".replace("'", ""),
                    field="shape",
                    label=f"{t.size} elements do not divide by {known}",
                )
            shape = tuple(rest if d == -1 else d for d in self.shape)
        elif known != t.size:
            raise ShapeError(
                f"`reshape` cannot make {list(map(str, self.shape))} of {t}".replace("'", ""),
                field="shape",
                label=f"has {known} elements, the input {t.size}",
            )
        return t.with_shape(shape)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Reshape(x[0], ctx.shape(ctx.outputs[0]))


class Transpose(Layer, keyword="transpose"):
    """Axes in another order: `transpose` swaps the last two; `transpose([2, 0, 1])` gives the order."""

    axes: tuple[int, ...] | None = None
    """For each new axis the old one, counted after the batch; without it the last two are swapped."""

    def _order(self, rank: int) -> list[int]:
        if self.axes is None:
            if rank < 2:
                raise ShapeError("`transpose` needs at least two axes", input=0)
            return [*range(rank - 2), rank - 1, rank - 2]
        order = [axis_of(a, rank, "axes") for a in self.axes]
        if sorted(order) != list(range(rank)):
            raise ShapeError(f"`axes` must name each of the {rank} axes once", field="axes")
        return order

    def infer(self, *x: TensorType) -> TensorType:
        return x[0].with_shape(tuple(x[0].shape[a] for a in self._order(x[0].rank)))

    def window(self, *x: TensorType) -> str | None:
        # Windows are told by the order of the spatial axes; where it changes, they are no longer known.
        spatial = [a for a in self._order(x[0].rank) if a > 0]
        return None if spatial == sorted(spatial) else "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Transpose(x[0], perm=[0, *(a + 1 for a in self._order(ctx.inputs[0].rank))])


class Concat(Layer, keyword="concat"):
    """Join tensors along an axis: `(a, b) -> concat`; channels of images, features of vectors and sequences."""

    arity = None
    axis: int | None = None
    """The axis to join, counted after the batch; the first of images, the last of vectors and sequences without it."""

    def _axis(self, rank: int) -> int:
        if rank == 0:
            raise ShapeError("`concat` needs an axis, and gets scalars", help="use `stack`")
        return axis_of(self.axis, rank) if self.axis is not None else (0 if rank >= 3 else rank - 1)

    def infer(self, *x: TensorType) -> TensorType:
        if len({t.rank for t in x}) > 1:
            raise ShapeError(
                f"`concat` cannot join {' and '.join(str(t) for t in x)}", help="all must have equally many axes"
            )
        if len({t.dtype for t in x}) > 1:
            raise ShapeError(
                f"`concat` cannot join {' and '.join(str(t) for t in x)}",
                help="use `real` to turn integers into numbers",
            )
        axis = self._axis(x[0].rank)
        for i, t in enumerate(x[1:], 1):
            for a, (left, right) in enumerate(zip(x[0].shape, t.shape, strict=True)):
                if a != axis and left != right:
                    raise ShapeError(
                        f"`concat` along axis {axis} cannot join {x[0]} and {t}",
                        input=(0, i),
                        help=f"axis {a} is {left} in the first and {right} in input {i + 1}; "
                        "all but the joined axis must agree",
                    )
        shape = list(x[0].shape)
        shape[axis] = total(t.shape[axis] for t in x)
        return TensorType(shape=tuple(shape), dtype=x[0].dtype, batch=any(t.batch for t in x))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        if len(x) == 1:
            return x[0]
        return ctx.op.Concat(*x, axis=self._axis(ctx.inputs[0].rank) + 1)


class Stack(Layer, keyword="stack"):
    """Put tensors of one shape side by side along a new axis: `(a, b) -> stack`."""

    arity = None
    axis: int = 0
    """Where the new axis stands, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        if any(t.shape != x[0].shape or t.dtype != x[0].dtype for t in x):
            raise ShapeError(f"`stack` cannot join {' and '.join(str(t) for t in x)}", help="all must have one shape")
        axis = axis_of(self.axis, x[0].rank + 1)
        shape = (*x[0].shape[:axis], len(x), *x[0].shape[axis:])
        return TensorType(shape=shape, dtype=x[0].dtype, batch=any(t.batch for t in x))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axis = axis_of(self.axis, ctx.outputs[0].rank) + 1
        return ctx.op.Concat(*(ctx.op.Unsqueeze(v, [axis]) for v in x), axis=axis)


class Split(Layer, keyword="split"):
    """Cut along an axis into parts: `a, b = x -> split(2)`, `split([10, 20])`."""

    parts: Positive | Annotated[tuple[Positive, ...], Field(min_length=1)]
    """How many equal parts, or the size of each."""
    axis: int | None = None
    """The axis to cut, counted after the batch; the first of images, the last of vectors and sequences without it."""

    def _sizes(self, t: TensorType) -> tuple[int, list[int]]:
        if t.rank == 0:
            raise ShapeError("`split` needs an axis, and gets a scalar", input=0)
        axis = axis_of(self.axis, t.rank) if self.axis is not None else (0 if t.rank >= 3 else t.rank - 1)
        size = t.shape[axis]
        if not isinstance(size, int):
            raise ShapeError(f"`split` needs an axis of fixed size, and gets `{size}`", input=0, label=f"gives {t}")
        if isinstance(self.parts, int):
            if size % self.parts:
                raise ShapeError(
                    f"{size} cannot be cut into {self.parts} equal parts",
                    field="parts",
                    label=f"does not divide {size}",
                )
            return axis, [size // self.parts] * self.parts
        if sum(self.parts) != size:
            raise ShapeError(
                f"the parts add up to {sum(self.parts)}, the axis is {size}",
                field="parts",
                label=f"must add up to {size}",
            )
        return axis, list(self.parts)

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        axis, sizes = self._sizes(x[0])
        return tuple(x[0].with_shape((*x[0].shape[:axis], s, *x[0].shape[axis + 1 :])) for s in sizes)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axis, sizes = self._sizes(ctx.inputs[0])
        if len(sizes) == 1:
            return (x[0],)
        return ctx.op.Split(x[0], sizes, axis=axis + 1, outputs=len(sizes))


class Slice(Layer, keyword="slice"):
    """Part of an axis: `slice(0, 10)` takes the first ten, `slice(-5)` the last five, `slice(0, 28, step = 2)`."""

    begin: int
    """First index; negative ones count from the end."""
    end: int | None = None
    """Index behind the last; to the end without it."""
    step: Annotated[int, Field()] = 1
    """Distance between indices; negative goes backwards."""
    axis: int = 0
    """The axis, counted after the batch."""

    def _range(self, t: TensorType) -> tuple[int, range | None]:
        axis = axis_of(self.axis, t.rank)
        if self.step == 0:
            raise ShapeError("`step` must not be 0", field="step")
        size = t.shape[axis]
        return axis, range(*slice(self.begin, self.end, self.step).indices(size)) if isinstance(size, int) else None

    def infer(self, *x: TensorType) -> TensorType:
        (t,) = x
        axis, indices = self._range(t)
        size = t.shape[axis]
        length: Dim
        if indices is not None:
            length = len(indices)
            if not length:
                raise ShapeError(
                    f"the slice takes nothing of an axis of {size}", field="begin", label=f"the axis has {size}"
                )
        else:
            # A symbolic axis: both ends must count from the same side for the length to be known.
            if self.step < 0:
                raise ShapeError(
                    "a negative `step` needs an axis of fixed size", field="step", help="`reverse` turns an axis around"
                )
            begin: Dim = size + self.begin if self.begin < 0 else self.begin
            end: Dim = size if self.end is None else (size + self.end if self.end < 0 else self.end)
            length = floor_div(end - begin + (self.step - 1), self.step)
            if isinstance(length, int) and length < 1:
                raise ShapeError("the slice takes nothing", field="begin")
        return t.with_shape((*t.shape[:axis], length, *t.shape[axis + 1 :]))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axis, _ = self._range(ctx.inputs[0])
        edge = 2**31 - 1
        end = self.end if self.end is not None else (edge if self.step > 0 else -edge)
        return ctx.op.Slice(x[0], [self.begin], [end], [axis + 1], [self.step])


class Reverse(Layer, keyword="reverse"):
    """Turn an axis around, time by default: `reverse`; of a masked sequence only the steps that count."""

    axis: int = 0
    """The axis, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        axis_of(self.axis, x[0].rank)
        return x[0]

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        axis = axis_of(self.axis, ctx.inputs[0].rank)
        lengths = ctx.lengths(ctx.inputs[0].shape[axis])
        if lengths is not None and axis == 0:
            return ctx.op.ReverseSequence(x[0], lengths, batch_axis=0, time_axis=1)
        return ctx.op.Slice(x[0], [-1], [-(2**31 - 1)], [axis + 1], [-1])


class Pad(Layer, keyword="pad"):
    """Add a border: `pad(2)` around each spatial axis, `pad([1, 0], mode = reflect)`; negative numbers crop."""

    amount: int | tuple[int, ...]
    """A number for all sides, one for each axis, or all begins and then all ends."""
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant"
    """What stands in the border."""
    value: float = 0.0
    """The number for `mode = constant`."""

    def _amounts(self, t: TensorType) -> tuple[int, list[int], list[int]]:
        # Images are padded in space, vectors and sequences along their first axis.
        first = 1 if t.rank >= 3 else 0
        n = t.rank - first if t.rank >= 3 else min(t.rank, 1)
        if isinstance(self.amount, int):
            return first, [self.amount] * n, [self.amount] * n
        if len(self.amount) == n:
            return first, list(self.amount), list(self.amount)
        if len(self.amount) == 2 * n:
            return first, list(self.amount[:n]), list(self.amount[n:])
        raise ShapeError(f"`amount` has {len(self.amount)} numbers", field="amount", label=f"needs 1, {n} or {2 * n}")

    def infer(self, *x: TensorType) -> TensorType:
        first, begins, ends = self._amounts(x[0])
        shape = list(x[0].shape)
        for i, (b, e) in enumerate(zip(begins, ends, strict=True)):
            size = shape[first + i]
            shape[first + i] = size + b + e
            if isinstance(size, int) and size + b + e < 1:
                raise ShapeError("the crop leaves nothing", field="amount", label=f"the axis has {size}")
            if self.mode == "reflect" and isinstance(size, int) and max(b, e) >= size:
                raise ShapeError(
                    "a reflected border must be smaller than the axis", field="amount", label=f"the axis has {size}"
                )
        return x[0].with_shape(tuple(shape))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        first, begins, ends = self._amounts(ctx.inputs[0])
        behind = ctx.inputs[0].rank - first - len(begins)
        front = [0] * (first + 1)
        pads = [*front, *begins, *[0] * behind, *front, *ends, *[0] * behind]
        value = ctx.op.constant(self.value, x[0].dtype) if self.mode == "constant" else None
        return ctx.op.Pad(x[0], pads, value, mode=self.mode)


class Unsqueeze(Layer, keyword="unsqueeze"):
    """Insert an axis of size 1: `unsqueeze(0)`."""

    axis: int = 0
    """Where the new axis stands, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        axis = axis_of(self.axis, x[0].rank + 1)
        return x[0].with_shape((*x[0].shape[:axis], 1, *x[0].shape[axis:]))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Unsqueeze(x[0], [axis_of(self.axis, ctx.outputs[0].rank) + 1])


class Squeeze(Layer, keyword="squeeze"):
    """Take an axis of size 1 away: `squeeze(0)`."""

    axis: int = -1
    """The axis, counted after the batch."""

    def infer(self, *x: TensorType) -> TensorType:
        axis = axis_of(self.axis, x[0].rank)
        if x[0].shape[axis] != 1:
            raise ShapeError(f"axis {axis} has size {x[0].shape[axis]}, not 1", field="axis", label=f"of {x[0]}")
        return x[0].with_shape((*x[0].shape[:axis], *x[0].shape[axis + 1 :]))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.op.Squeeze(x[0], [axis_of(self.axis, ctx.inputs[0].rank) + 1])


class Repeat(Layer, keyword="repeat"):
    """Repeat along a new first axis: `repeat(T)` makes a vector a sequence of T equal steps."""

    count: Dim
    """How often: a number or a symbolic size."""

    def infer(self, *x: TensorType) -> TensorType:
        return x[0].with_shape((self.count, *x[0].shape))

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        ones = [ctx.op.constant([1] * n) for n in (1, ctx.inputs[0].rank) if n]
        target = ctx.op.Concat(ones[0], ctx.dim(self.count), *ones[1:], axis=0)
        return ctx.op.Expand(ctx.op.Unsqueeze(x[0], [1]), target)


class Upsample(Layer, keyword="upsample"):
    """Enlarge an image: `upsample(2)` by nearest neighbour, `upsample(2, mode = linear)` by interpolation."""

    scale: Size
    """Factor for all axes, or one for each."""
    mode: Literal["nearest", "linear"] = "nearest"
    """Nearest neighbour or (bi-, tri-)linear."""

    def infer(self, *x: TensorType) -> TensorType:
        if not 2 <= x[0].rank <= 4:
            raise ShapeError(
                f"`upsample` needs channels and spatial axes, and gets {x[0]}", input=0, label=f"gives {x[0]}"
            )
        scale = per_axis(self.scale, x[0].rank - 1, "scale")
        return x[0].with_shape((x[0].shape[0], *(d * s for d, s in zip(x[0].shape[1:], scale, strict=True))))

    def window(self, *x: TensorType) -> Window:
        from fractions import Fraction

        scale = per_axis(self.scale, x[0].rank - 1, "scale")
        extent = 1 if self.mode == "nearest" else 2
        return (extent,) * len(scale), tuple(Fraction(1, s) for s in scale)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import numpy as np

        scale = per_axis(self.scale, ctx.inputs[0].rank - 1, "scale")
        return ctx.op.Resize(
            x[0],
            None,
            np.array([1, 1, *scale], dtype=np.float32),
            mode=self.mode,
            coordinate_transformation_mode="asymmetric" if self.mode == "nearest" else "half_pixel",
            nearest_mode="floor" if self.mode == "nearest" else None,
        )
