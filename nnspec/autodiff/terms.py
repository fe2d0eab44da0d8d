"""What gradient rules are written in: `Term`, a value with operators, and `NodeView`, the node at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from nnspec.autodiff import algebra
from nnspec.autodiff.errors import GradientError
from nnspec.ops import Dims, Ops, Target, dims_of

Number = int | float


class Emit:
    """`Ops` for terms: `op.Exp(t)` gives a term; equal nodes are emitted once."""

    __slots__ = ("ops",)

    def __init__(self, ops: Ops) -> None:
        self.ops = ops

    @property
    def target(self) -> Target:
        """What the graph is made for."""
        return self.ops.target

    def __getattr__(self, op_type: str) -> Callable[..., Term]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def emit(*inputs: Any, **attributes: Any) -> Term:
            return self.term(self.ops.shared(op_type, [plain(v) for v in inputs], attributes))

        return emit

    def many(self, op_type: str, outputs: int, *inputs: Any, **attributes: Any) -> tuple[Term, ...]:
        """Emit a node with several outputs."""
        made = self.ops.shared(op_type, [plain(v) for v in inputs], attributes, outputs=outputs)
        return tuple(self.term(v) for v in ([made] if outputs == 1 else made))

    def term(self, value: ir.Value) -> Term:
        """Wrap a value."""
        return Term(value, self)

    def size(self, of: Term, axis: int) -> Term:
        """Return the size of an axis as an int64 scalar; axes of one symbol are asked once."""
        symbol = of.dims[axis]
        found = self.ops.sizes.get(symbol) if isinstance(symbol, str) else None
        if found is None:
            found = plain(self.Squeeze(of.shape(axis, axis + 1), [0]))
            if isinstance(symbol, str):
                self.ops.sizes[symbol] = found
        return self.term(found)

    def const(self, value: Any, dtype: ir.DataType | None = None) -> Term:
        """Return a constant; lists of ints are int64."""
        return Term(self.ops.constant(value, dtype), self)


def plain(operand: Any) -> Any:
    """Return what `Ops` takes for a term, a sequence of numbers or anything it takes already."""
    return operand.value if isinstance(operand, Term) else operand


class Term:
    """A value in a gradient rule: NumPy's operators and broadcasting, Python numbers in its own element type."""

    __slots__ = ("op", "value")

    def __init__(self, value: ir.Value, op: Emit) -> None:
        self.value = value
        self.op = op

    @property
    def dtype(self) -> ir.DataType:
        """The element type."""
        if self.value.dtype is None:
            raise GradientError(f"the element type of {self.value.name} is unknown", self.value.producer())
        return self.value.dtype

    @property
    def dims(self) -> Dims:
        """The dims; a GradientError where not even the rank is known."""
        dims = dims_of(self.value)
        if dims is None:
            raise GradientError(f"the rank of {self.value.name} is unknown", self.value.producer())
        return dims

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.dims)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The dims where all are numbers, else None."""
        dims = dims_of(self.value)
        return dims if dims is not None and all(isinstance(d, int) for d in dims) else None  # type: ignore[return-value]

    @property
    def number(self) -> float | None:
        """The content, if the term is a constant scalar of rank 0."""
        tensor = self.value.const_value
        return float(tensor.numpy()) if tensor is not None and not len(tensor.shape) else None

    @property
    def array(self) -> np.ndarray | None:
        """The content, if the term is a constant."""
        tensor = self.value.const_value
        return None if tensor is None else tensor.numpy()

    def shape(self, start: int | None = None, end: int | None = None) -> Term:
        """Return the shape, or a part of it, as an int64 vector."""
        return self.op.Shape(self, start=start, end=end)

    def like(self, value: Number) -> Term:
        """Return a scalar constant of this element type."""
        return self.op.const(value, self.dtype)

    def _binary(self, op_type: str, left: Any, right: Any) -> Term:
        a, b = (v if isinstance(v, Term) else self.like(v) for v in (left, right))
        p, q = a.number, b.number
        if p is not None and q is not None and op_type in _PYTHON and not (op_type == "Div" and q == 0):
            return self.like(_PYTHON[op_type](p, q))
        if op_type == "Mul" and (p == 1 or q == 1):
            return b if p == 1 else a
        if op_type == "Mul" and (p == -1 or q == -1):
            return -(b if p == -1 else a)
        if (op_type == "Add" and p == 0) or (op_type in ("Add", "Sub") and q == 0) or (op_type == "Div" and q == 1):
            return b if p == 0 and op_type == "Add" else a
        if op_type == "Div" and algebra.is_small(dims_of(b.value), dims_of(a.value)):
            return a * b.op.Reciprocal(b)
        if op_type == "Mul":
            return _product(a, b)
        if op_type == "Add" and (node := algebra.producer(b.value, "Neg")) is not None:
            return self.op.Sub(a, node.inputs[0])
        return self.op.__getattr__(op_type)(a, b)

    def __add__(self, other: Any) -> Term:
        return self._binary("Add", self, other)

    def __radd__(self, other: Any) -> Term:
        return self._binary("Add", other, self)

    def __sub__(self, other: Any) -> Term:
        return self._binary("Sub", self, other)

    def __rsub__(self, other: Any) -> Term:
        return self._binary("Sub", other, self)

    def __mul__(self, other: Any) -> Term:
        return self._binary("Mul", self, other)

    def __rmul__(self, other: Any) -> Term:
        return self._binary("Mul", other, self)

    def __truediv__(self, other: Any) -> Term:
        return self._binary("Div", self, other)

    def __rtruediv__(self, other: Any) -> Term:
        return self._binary("Div", other, self)

    def __pow__(self, other: Any) -> Term:
        return self * self if other == 2 else self._binary("Pow", self, other)

    def __matmul__(self, other: Term) -> Term:
        return self.op.MatMul(self, other)

    def __neg__(self) -> Term:
        return self.like(-self.number) if self.number is not None else self.op.Neg(self)

    def __gt__(self, other: Any) -> Term:
        return self._binary("Greater", self, other)

    def __ge__(self, other: Any) -> Term:
        return self._binary("GreaterOrEqual", self, other)

    def __lt__(self, other: Any) -> Term:
        return self._binary("Less", self, other)

    def __le__(self, other: Any) -> Term:
        return self._binary("LessOrEqual", self, other)

    def equals(self, other: Any) -> Term:
        """Return where the elements are equal (`==` is kept for Python)."""
        return self._binary("Equal", self, other)

    def where(self, yes: Any, no: Any) -> Term:
        """Return `yes` where this condition holds, else `no`; one of both is a term."""
        like = yes if isinstance(yes, Term) else no
        a, b = (v if isinstance(v, Term) else like.like(v) for v in (yes, no))
        return self.op.Where(self, a, b)

    def cast(self, dtype: ir.DataType) -> Term:
        """Return this in another element type."""
        if self.number is not None:
            return self.op.const(self.number, dtype)
        return self if self.value.dtype == dtype else self.op.Cast(self, to=int(dtype))

    def sum(self, axes: Sequence[int] | None = None, keepdims: bool = True) -> Term:
        """Return the sum over the axes, or over all."""
        if axes is not None and not len(axes):
            return self
        if axes is not None:
            axes = [a + self.rank if a < 0 else a for a in axes]
            parts = algebra.pulled_out(self.value, axes)
            if parts is not None:
                inside, outside = parts
                total = math.prod((self.op.term(f) for f in inside[1:]), start=self.op.term(inside[0])).sum(axes)
                factor = math.prod(f if isinstance(f, int) else self.op.term(f) for f in outside)
                return total * factor if keepdims else (total * factor).squeeze(axes)
        return self.op.ReduceSum(self, None if axes is None else list(axes), keepdims=int(keepdims))

    def reshape(self, dims: Sequence[int] | Term) -> Term:
        """Return this with other dims; -1 once for the rest, 0 keeps the dim of that place."""
        target = dims if isinstance(dims, Term) else self.op.const(list(dims))
        wanted = target.array
        source = self
        if wanted is not None and 0 not in wanted:
            source = self.op.term(algebra.viewed(self.value))
            if source.static == tuple(wanted.tolist()):
                return source
        return self.op.Reshape(source, target)

    def reshape_like(self, other: Term) -> Term:
        """Return this with the dims of `other`, which has as many elements."""
        dims = dims_of(other.value)
        mine = dims_of(self.value)
        if dims is None or 0 in dims:
            return self.op.Reshape(self, other.shape(), allowzero=1)
        if mine == dims and None not in dims:
            return self
        unknown = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        # Where a symbolic dim stands at the same place, 0 copies it; one other may be -1.
        kept = [i for i in unknown if mine is not None and i < len(mine) and mine[i] is not None and mine[i] == dims[i]]
        if len(unknown) == 1:
            kept = []
        if len(unknown) - len(kept) <= 1:
            return self.reshape([d if isinstance(d, int) else 0 if i in kept else -1 for i, d in enumerate(dims)])
        return self.op.Reshape(self, other.shape(), allowzero=1)

    def squeeze(self, axes: Sequence[int]) -> Term:
        """Return this without the axes, whose size is 1."""
        return self.op.Squeeze(self, list(axes)) if axes else self

    def unsqueeze(self, axes: Sequence[int]) -> Term:
        """Return this with new axes of size 1, numbered as in the result."""
        return self.op.Unsqueeze(self, list(axes)) if axes else self

    def transpose(self, perm: Sequence[int]) -> Term:
        """Return this with the axes permuted."""
        return self if list(perm) == list(range(len(perm))) else self.op.Transpose(self, perm=list(perm))

    def swap(self) -> Term:
        """Return this with its last two axes exchanged."""
        order = list(range(self.rank))
        return self.transpose([*order[:-2], order[-1], order[-2]])

    def slice(self, axis: int, start: int, end: int, step: int = 1) -> Term:
        """Return a part along one axis."""
        return self.op.Slice(self, [start], [end], [axis], [step])

    def zeros(self) -> Term:
        """Return zeros of this shape and element type."""
        return self.like(0).expand(self)

    def expand(self, like: Term) -> Term:
        """Return this broadcast to the shape of `like`."""
        return self.op.Expand(self, like.shape())


def _product(a: Term, b: Term) -> Term:
    """Return a b; small factors of a large one go together."""
    large, small = (a, b) if algebra.is_small(dims_of(b.value), dims_of(a.value)) else (b, a)
    dims, few = dims_of(large.value), dims_of(small.value)
    if dims is not None and few is not None and algebra.is_small(few, dims):
        for node in (algebra.producer(large.value, "Neg"), algebra.producer(large.value, "Mul")):
            if node is None:
                continue
            inputs = [a.op.term(v) for v in node.inputs if v is not None]
            if len(inputs) == 1:
                return inputs[0] * -small
            for inner, factor in (inputs, inputs[::-1]):
                if dims_of(inner.value) == dims and algebra.is_small(dims_of(factor.value), dims):
                    both = algebra.joined(few, factor.dims)
                    if algebra.is_small(both, dims):
                        return inner * (factor * small)
    return a.op.Mul(a, b)


_PYTHON: dict[str, Callable[[float, float], float]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
}


class NodeView:
    """A node as its gradient rule sees it: inputs `x`, outputs `ys`, their gradients `dys`, attributes."""

    __slots__ = ("active", "dys", "node", "op", "wanted", "x", "ys")

    def __init__(
        self,
        node: ir.Node,
        op: Emit,
        dys: Sequence[Term | None],
        wanted: Sequence[bool],
        active: Collection[ir.Value] = (),
    ) -> None:
        self.node = node
        self.op = op
        # An input left out is None; the rules ask `input` for those that may be.
        self.x: list[Term] = [None if v is None else Term(v, op) for v in node.inputs]  # type: ignore[misc]
        self.ys = [Term(v, op) for v in node.outputs]
        self.dys = dys
        self.wanted = wanted
        self.active = active

    @property
    def y(self) -> Term:
        """The first output."""
        return self.ys[0]

    def input(self, i: int) -> Term | None:
        """Return an input, None where it is left out."""
        return self.x[i] if i < len(self.x) else None

    def output(self, i: int, name: str, dtype: ir.DataType) -> Term:
        """Return an optional output, which the node is made to give where it does not yet."""
        if i >= len(self.node.outputs):
            have = len(self.node.outputs)
            self.node.resize_outputs(i + 1)
            for out in self.node.outputs[have:]:
                out.name = f"{self.node.outputs[0].name}/{name}{out.index()}"
        out = self.node.outputs[i]
        if not out.name:
            out.name = f"{self.node.outputs[0].name}/{name}"
        if out.dtype is None:
            out.dtype = dtype
        return Term(out, self.op)

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value, or `default` where it is not given."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def axis(self, default: int, of: Term | None = None) -> int:
        """Return the attribute `axis`, from 0."""
        rank = (self.x[0] if of is None else of).rank
        axis = int(self.attr("axis", default))
        return axis + rank if axis < 0 else axis

    def ints(self, i: int) -> list[int] | None:
        """Return the content of a constant integer input, None where it is left out; a GradientError otherwise."""
        value = self.input(i)
        if value is None:
            return None
        if value.array is None:
            raise self.error(f"input {i} ({value.value.name}) has to be a constant")
        return [int(v) for v in value.array.reshape(-1)]

    def error(self, message: str) -> GradientError:
        """Return an error that names this node."""
        return GradientError(message, self.node)
