"""Integers that describe shapes, followed through Shape, Gather, Concat and the like while a graph is built.

Without this, `Reshape(x, Concat(Gather(Shape(x), 0), [-1]))` would lose every dim of its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

Dim = int | str | None
_LIMIT = 64
_KEY = "nnspec.shape_data"


@dataclass(frozen=True, slots=True)
class Data:
    """The content of an int64 scalar or vector: numbers, names of symbolic sizes, None for what is unknown."""

    items: tuple[Dim, ...]
    scalar: bool = False

    @property
    def static(self) -> bool:
        """Whether every item is a number."""
        return all(isinstance(i, int) for i in self.items)

    def array(self) -> Any:
        """Return the numbers, for NumPy."""
        return self.items[0] if self.scalar else list(self.items)


def known(value: ir.Value) -> Data | None:
    """Return what is known of the content of an integer scalar or vector, or None where nothing is."""
    tensor = value.const_value
    if tensor is not None:
        if len(tensor.shape) > 1 or tensor.size > _LIMIT or tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return None
        array = tensor.numpy()
        return Data(tuple(int(i) for i in array.reshape(-1)), array.ndim == 0)
    # Asking for `meta` would make a store for every value of the graph.
    return value.meta.get(_KEY) if value.dtype == ir.DataType.INT64 else None


def remember(value: ir.Value, data: Data) -> None:
    """Note what is known of the content of `value`."""
    value.meta[_KEY] = data


def product(dims: Sequence[Dim]) -> Dim:
    """Return the product of dims, as a number or as a canonical `2*T*batch`."""
    number, names = 1, []
    for dim in dims:
        if dim is None:
            return None
        if isinstance(dim, int):
            number *= dim
        elif any(c in dim for c in " +-/("):
            names.append(f"({dim})" if not dim.startswith("floor(") or "+" in dim else dim)
        else:
            head, *rest = dim.split("*")
            if head.isdigit():
                number *= int(head)
            else:
                rest.insert(0, head)
            names.extend(rest)
    if not names or number == 0:
        return number
    return "*".join(([str(number)] if number != 1 else []) + sorted(names))


def fold(op_type: str, values: Sequence[ir.Value | None], attrs: Sequence[ir.Attr]) -> Data | None:
    """Return what a node of shape arithmetic computes, or None where it is none or nothing is known."""
    if op_type not in _FOLD or not values or values[0] is None:
        return None
    at = {a.name: a.value for a in attrs}
    if op_type in ("Shape", "Size"):
        shape = values[0].shape
        if shape is None:
            return None
        dims: list[Dim] = [d if isinstance(d, int) else d.value for d in shape]
        if op_type == "Size":
            return Data((product(dims),), scalar=True)
        return Data(tuple(dims[slice(at.get("start"), at.get("end"))]))
    if values[0].dtype != ir.DataType.INT64:
        return None
    data = [None if v is None else known(v) for v in values]
    if any(d is None and v is not None for d, v in zip(data, values, strict=True)):
        return None
    found = _FOLD[op_type]([d for d in data if d is not None], at)
    return found if found is None or len(found.items) <= _LIMIT else None


def _gather(data: list[Data], at: dict[str, Any]) -> Data | None:
    items, index = data[0].items, data[1]
    if data[0].scalar or not index.static:
        return None
    picked = [int(i) for i in index.items if i is not None]
    if any(not -len(items) <= i < len(items) for i in picked):
        return None
    return Data(tuple(items[i] for i in picked), index.scalar)


def _slice(data: list[Data], at: dict[str, Any]) -> Data | None:
    if len(data) < 3 or data[0].scalar or any(not d.static or len(d.items) != 1 for d in data[1:]):
        return None
    start, end = data[1].items[0], data[2].items[0]
    step = data[4].items[0] if len(data) > 4 else 1
    if not isinstance(start, int) or not isinstance(end, int) or step != 1:
        return None
    count = len(data[0].items)
    first = min(max(start + count if start < 0 else start, 0), count)
    last = min(max(end + count if end < 0 else end, 0), count)
    return Data(data[0].items[first:last])


def _arithmetic(name: str) -> Callable[[list[Data], dict[str, Any]], Data | None]:
    def one(a: Dim, b: Dim) -> Dim:
        if name == "Mul":
            return product([a, b])
        if not isinstance(a, int) or not isinstance(b, int):
            same = (name in ("Add", "Sub") and b == 0) or (name == "Div" and b == 1)
            return a if same else b if name == "Add" and a == 0 else None
        if name == "Div":
            # ONNX divides integers towards zero.
            return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        if name == "Mod":
            return None if b == 0 else a % b  # like ONNX's, with the sign of the divisor
        return a + b if name == "Add" else a - b if name == "Sub" else max(a, b) if name == "Max" else min(a, b)

    def both(data: list[Data], at: dict[str, Any]) -> Data | None:
        if len(data) != 2 or at.get("fmod"):
            return None
        a, b = data
        count = max(len(a.items), len(b.items))
        if len(a.items) not in (1, count) or len(b.items) not in (1, count):
            return None
        left, right = (d.items * (count // max(1, len(d.items))) for d in data)
        return Data(tuple(one(p, q) for p, q in zip(left, right, strict=False)), a.scalar and b.scalar)

    return both


def _reduce_prod(data: list[Data], at: dict[str, Any]) -> Data | None:
    return Data((product(data[0].items),), scalar=not at.get("keepdims", 1))


_FOLD: dict[str, Callable[[list[Data], dict[str, Any]], Data | None]] = {
    "Shape": lambda data, at: None,
    "Size": lambda data, at: None,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": lambda data, at: None if any(d.scalar for d in data) else Data(tuple(i for d in data for i in d.items)),
    "Squeeze": lambda data, at: Data(data[0].items, scalar=True) if len(data[0].items) == 1 else None,
    "Unsqueeze": lambda data, at: Data(data[0].items) if data[0].scalar and len(data[1].items) == 1 else None,
    "Identity": lambda data, at: data[0],
    "Cast": lambda data, at: data[0] if at.get("to") == ir.DataType.INT64 else None,
    "Reshape": lambda data, at: Data(data[0].items, data[1].items == ()) if len(data[1].items) <= 1 else None,
    "ReduceProd": _reduce_prod,
    "Neg": lambda data, at: Data(tuple(-i if isinstance(i, int) else None for i in data[0].items), data[0].scalar),
    **{name: _arithmetic(name) for name in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")},
}
