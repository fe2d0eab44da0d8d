"""Types and shapes of new nodes: ONNX's own inference, remembered; short cuts where it is slow or loses symbols."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import onnx
import onnx.shape_inference
import onnx_ir as ir

from nnspec.ops.shapedata import known, product

Dims = tuple[int | str | None, ...]
"""The dims of a tensor: numbers, names of symbolic sizes, None where nothing is known."""
Inferred = tuple[ir.DataType, Dims | None]

_SAME = frozenset(
    """Abs Neg Sign Exp Log Sqrt Reciprocal Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Tanh Sigmoid
    HardSigmoid Relu LeakyRelu PRelu Elu Selu Celu Gelu Softplus Softsign Mish HardSwish ThresholdedRelu Erf Clip Not
    Floor Ceil Round Identity Softmax LogSoftmax CumSum Trilu LRN LpNormalization InstanceNormalization
    GroupNormalization MeanVarianceNormalization ScatterElements ScatterND""".split()  # noqa: SIM905
)
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Min", "Max", "Sum", "Mean"})
_COMPARE = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_WINDOW = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool"})
_DATA_LIMIT = 64

_cache: dict[tuple[Any, ...], list[Inferred | None]] = {}


def dims_of(value: ir.Value) -> Dims | None:
    """Return the dims of a value, or None where not even the rank is known."""
    shape = value.shape
    return None if shape is None else tuple(d if type(d) is int else d.value for d in shape.dims)  # type: ignore[union-attr]


def numbers(dims: Iterable[int | str | None]) -> list[int]:
    """Return dims of which the caller knows that they are numbers."""
    return [int(d) for d in dims]  # type: ignore[arg-type]


def broadcast(shapes: Sequence[Dims]) -> Dims:
    """Return the dims that NumPy's broadcasting gives; None for a dim that cannot be told."""
    rank = max(map(len, shapes))
    return tuple(
        _broadcast_dim({s[i - rank + len(s)] for s in shapes if i - rank + len(s) >= 0} - {1}) for i in range(rank)
    )


def _broadcast_dim(dims: set[int | str | None]) -> int | str | None:
    if len(dims) <= 1:
        return dims.pop() if dims else 1
    # A number above 1 wins over a symbol, which then must be 1 or that number.
    return next((d for d in dims if isinstance(d, int)), None)


def infer(
    op_type: str, values: Sequence[ir.Value | None], attrs: Sequence[ir.Attr], outputs: int, opset: int
) -> list[Inferred | None]:
    """Return type and dims of each output, or None for one of which nothing is known."""
    if any(v is not None and v.dtype is None for v in values):
        return [None] * outputs
    given = [v for v in values if v is not None]
    if outputs == 1 and given and (quick := _elementwise(op_type, given, attrs)) is not None:
        return [quick]
    if op_type in ("Scan", "Loop", "If"):
        return _control_flow(op_type, given, attrs, outputs)
    types = tuple(None if v is None else (v.dtype, dims_of(v)) for v in values)
    data = tuple(_data_key(v) for v in values)
    key = (op_type, outputs, opset, types, data, tuple((a.name, _attr_key(a)) for a in attrs))
    found = _cache.get(key)
    if found is None:
        found = _infer_by_onnx(op_type, values, attrs, outputs, opset)
        if op_type in _WINDOW:
            found = _name_window_dims(values, attrs, found)
        elif op_type in ("Reshape", "Expand", "ConstantOfShape"):
            found = _from_shape_data(op_type, given, attrs, found)
        elif op_type == "Range":
            found = _range_length(given, found)
        if len(_cache) > 50_000:
            _cache.clear()
        _cache[key] = found
    return found


def _elementwise(op_type: str, given: Sequence[ir.Value], attrs: Sequence[ir.Attr]) -> Inferred | None:
    first = given[0]
    assert first.dtype is not None
    if op_type in _SAME:
        return first.dtype, dims_of(first)
    if op_type == "Cast":
        return ir.DataType(next(a.as_int() for a in attrs if a.name == "to")), dims_of(first)
    if op_type == "Where":
        assert given[1].dtype is not None
        dtype = given[1].dtype
    elif op_type in _ARITHMETIC:
        dtype = first.dtype
    elif op_type in _COMPARE:
        dtype = ir.DataType.BOOL
    else:
        return None
    shapes = [dims_of(v) for v in given]
    return dtype, None if None in shapes else _checked_broadcast(op_type, tuple(s for s in shapes if s is not None))


@lru_cache(maxsize=10_000)
def _checked_broadcast(op_type: str, shapes: Sequence[Dims]) -> Dims:
    rank = max(map(len, shapes))
    for axis in range(1, rank + 1):
        sizes = {s[-axis] for s in shapes if axis <= len(s) and isinstance(s[-axis], int)} - {1}
        if len(sizes) > 1:
            raise ValueError(f"{op_type}: shapes {', '.join(map(str, shapes))} do not broadcast")
    return broadcast(shapes)


def _data_key(value: ir.Value | None) -> Any:
    """What of a value's content the shape of a result may depend on."""
    if value is None:
        return None
    data = known(value)
    if data is not None:
        return data
    tensor = value.const_value
    return tensor.tobytes() if tensor is not None and tensor.size <= _DATA_LIMIT else None


def _attr_key(attr: ir.Attr) -> Any:
    if attr.type == ir.AttributeType.TENSOR:
        tensor = attr.as_tensor()
        return tensor.dtype, tuple(tensor.shape), tensor.tobytes() if tensor.size <= _DATA_LIMIT else id(tensor)
    return tuple(attr.value) if isinstance(attr.value, (list, tuple)) else attr.value


@cache
def _schema(op_type: str, opset: int) -> Any:
    return onnx.defs.get_schema(op_type, opset, "")


@cache
def _type_proto(dtype: int, dims: Dims | None) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(dtype, dims)


def _infer_by_onnx(
    op_type: str, values: Sequence[ir.Value | None], attrs: Sequence[ir.Attr], outputs: int, opset: int
) -> list[Inferred | None]:
    proto = onnx.NodeProto(op_type=op_type)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for i, value in enumerate(values):
        proto.input.append("" if value is None else f"i{i}")
        if value is None:
            continue
        assert value.dtype is not None
        types[f"i{i}"] = _type_proto(int(value.dtype), dims_of(value))
        if value.const_value is not None and value.const_value.size <= _DATA_LIMIT:
            data[f"i{i}"] = ir.to_proto(value.const_value)
    proto.output.extend(f"o{i}" for i in range(outputs))
    proto.attribute.extend(ir.to_proto(a) for a in attrs)
    inferred = onnx.shape_inference.infer_node_outputs(
        _schema(op_type, opset), proto, types, data, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    return [_read(inferred.get(f"o{i}")) for i in range(outputs)]


def _read(found: onnx.TypeProto | None) -> Inferred | None:
    if found is None or not found.HasField("tensor_type"):
        return None
    tensor = found.tensor_type
    dims = tuple(d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim)
    return ir.DataType(tensor.elem_type), dims if tensor.HasField("shape") else None


def _name_window_dims(
    values: Sequence[ir.Value | None], attrs: Sequence[ir.Attr], found: list[Inferred | None]
) -> list[Inferred | None]:
    """Give spatial dims that a convolution or pooling makes of symbolic ones a name, the same for the same window."""
    first, x = found[0], values[0]
    assert x is not None
    source = dims_of(x)
    if first is None or first[1] is None or source is None or None not in first[1][2:]:
        return found
    at = {a.name: a.value for a in attrs}
    axes = len(source) - 2
    kernel: Any = at.get("kernel_shape")
    if kernel is None:
        weight = values[1] if len(values) > 1 else None
        shape = None if weight is None else dims_of(weight)
        if shape is None:
            return found
        kernel = shape[2:]
    if at.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return found
    strides, dilations = at.get("strides") or [1] * axes, at.get("dilations") or [1] * axes
    pads = [0] * (2 * axes) if at.get("auto_pad") == "VALID" else at.get("pads") or [0] * (2 * axes)
    rounding = "ceil" if at.get("ceil_mode") else "floor"
    dims = list(first[1])
    for i in range(axes):
        size = source[2 + i]
        if dims[2 + i] is not None or not isinstance(size, str) or not isinstance(kernel[i], int):
            continue
        less = dilations[i] * (kernel[i] - 1) - pads[i] - pads[i + axes]
        if strides[i] != 1:
            inner = f"({size} - {less + 1})" if less + 1 > 0 else f"({size} + {-less - 1})"
            dims[2 + i] = f"{rounding}({inner if less + 1 else size}/{strides[i]}) + 1"
        else:
            dims[2 + i] = size if less == 0 else f"{size} - {less}" if less > 0 else f"{size} + {-less}"
    return [(out[0], tuple(dims)) if out is not None and out[1] is not None else out for out in found]


def _from_shape_data(
    op_type: str, given: Sequence[ir.Value], attrs: Sequence[ir.Attr], found: list[Inferred | None]
) -> list[Inferred | None]:
    """Use a target shape that is known in part, as `[batch, 3 * 4]` is."""
    data = known(given[-1])
    if found[0] is None or data is None or data.scalar:
        return found
    dtype, before = found[0]
    dims: list[int | str | None] = list(data.items)
    source = dims_of(given[0])
    if op_type == "Expand" and source is not None:
        return [(dtype, broadcast([source, tuple(dims)]))]
    if op_type == "Reshape":
        allow_zero = any(a.name == "allowzero" and a.value for a in attrs)
        for i, dim in enumerate(dims):
            if dim == 0 and not allow_zero:
                dims[i] = source[i] if source is not None and i < len(source) else None
        if -1 in dims:
            at = dims.index(-1)
            rest = dims[:at] + dims[at + 1 :]
            dims[at] = _quotient(source, rest)
    if before is not None and len(before) == len(dims):
        dims = [b if isinstance(b, int) or d is None else d for b, d in zip(before, dims, strict=True)]
    return [(dtype, tuple(dims))]


def _range_length(given: Sequence[ir.Value], found: list[Inferred | None]) -> list[Inferred | None]:
    """Let what counts from 0 to a size that is a symbol be as long as that."""
    first, limit, step = map(known, given)
    counts = first is not None and first.items == (0,) and step is not None and step.items == (1,)
    if found[0] is None or not counts or limit is None or not isinstance(limit.items[0], str):
        return found
    return [(found[0][0], limit.items)]


def _quotient(source: Dims | None, rest: list[int | str | None]) -> int | str | None:
    """Return the dim that fills `rest` up to the size of `source`, if it is a plain product."""
    if source is None or None in source or None in rest:
        return None
    number, left = factors(source)
    over, names = factors(rest)
    for name in names:
        if name not in left:
            return None
        left.remove(name)
    if over == 0 or number % over:
        return None
    return product([*left, number // over])


def factors(dims: Iterable[int | str | None]) -> tuple[int, list[str]]:
    """Return the product of dims as a number and symbols; `64*batch` is a product already."""
    number, names = 1, []
    for dim in dims:
        for factor in str(dim).split("*") if isinstance(dim, int) or not set(dim or "") & set(" +-/(") else [str(dim)]:
            if factor.isdigit():
                number *= int(factor)
            else:
                names.append(factor)
    return number, names


def _control_flow(
    op_type: str, given: Sequence[ir.Value], attrs: Sequence[ir.Attr], outputs: int
) -> list[Inferred | None]:
    at = {a.name: a for a in attrs}
    if op_type == "If":
        branch = at["then_branch"].as_graph(), at["else_branch"].as_graph()
        return [_join(_type_of(a), _type_of(b)) for a, b in zip(branch[0].outputs, branch[1].outputs, strict=True)]
    results = [_type_of(v) for v in at["body"].as_graph().outputs]
    if op_type == "Loop":
        states = len(results) - 1 - (outputs - (len(given) - 2)) if len(given) >= 2 else 0
        results = results[1:]
        return [r if i < states else _stack(r, None, 0) for i, r in enumerate(results)]
    scanned = at["num_scan_inputs"].as_int()
    states = len(given) - scanned
    length: int | str | None = None
    axes = list(at["scan_input_axes"].as_ints()) if "scan_input_axes" in at else [0] * scanned
    for value, axis in zip(given[states:], axes, strict=True):
        dims = dims_of(value)
        if dims is not None and dims[axis] is not None:
            length = dims[axis]
    into = list(at["scan_output_axes"].as_ints()) if "scan_output_axes" in at else [0] * (outputs - states)
    return [r if i < states else _stack(r, length, into[i - states]) for i, r in enumerate(results)]


def _type_of(value: ir.Value) -> Inferred | None:
    return None if value.dtype is None else (value.dtype, dims_of(value))


def _join(a: Inferred | None, b: Inferred | None) -> Inferred | None:
    if a is None or b is None or a[1] is None or b[1] is None or len(a[1]) != len(b[1]):
        return None if a is None else (a[0], None)
    return a[0], tuple(p if p == q else None for p, q in zip(a[1], b[1], strict=True))


def _stack(one: Inferred | None, length: int | str | None, axis: int) -> Inferred | None:
    if one is None or one[1] is None:
        return one
    dims = list(one[1])
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, length)
    return one[0], tuple(dims)
