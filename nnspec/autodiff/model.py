"""Extend a whole ONNX model, also one that nnspec did not make, by gradients."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, overload

import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes.common import AddDefaultAttributesPass, InlinePass, ShapeInferencePass

from nnspec.autodiff.driver import differentiate
from nnspec.autodiff.errors import GradientError
from nnspec.autodiff.registry import GRADIENTS, ZERO
from nnspec.diagnostics import suggest
from nnspec.ops import OPSET, Ops

_FLOATING = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


@overload
def gradient(model: ir.Model, *, of: str, wrt: str | Sequence[str], seed: str | None = None) -> ir.Model: ...
@overload
def gradient(
    model: onnx.ModelProto | str | os.PathLike[str], *, of: str, wrt: str | Sequence[str], seed: str | None = None
) -> onnx.ModelProto: ...
def gradient(
    model: onnx.ModelProto | ir.Model | str | os.PathLike[str],
    *,
    of: str,
    wrt: str | Sequence[str],
    seed: str | None = None,
) -> onnx.ModelProto | ir.Model:
    """Return the model extended by outputs `grad/NAME`, the gradients of `of` by each value named in `wrt`.

    `of` names a floating-point value. Where it is no scalar, its elements are summed, or weighted by a further graph
    input named `seed`, of the same shape. `wrt` names graph inputs, initializers or intermediate values of the main
    graph; a gradient has the shape and element type of its value, and is zero where `of` does not depend on it.

    The model is an onnx.ModelProto, an onnx_ir.Model or the path of a file; what comes back is an onnx_ir.Model for an
    onnx_ir.Model and a ModelProto otherwise, and the argument stays as it was. Functions are inlined, as are operators
    without a rule that ONNX defines as functions; models before opset 21 are converted to it. Raise GradientError,
    which names operator and node, for an operator without a rule on the way, and for unknown or unfit names.
    """
    names = [wrt] if isinstance(wrt, str) else list(wrt)
    extended = _prepare(model)
    graph = extended.graph
    values = {v.name: v for v in _values(graph) if v.name}
    target = _find(values, of)
    wanted = [_find(values, name) for name in names]
    ops = Ops(graph, extended.opset_imports.get("", OPSET))
    weights = None
    if seed is not None:
        if seed in values:
            raise GradientError(f"the model already has a value named {seed}")
        assert target.dtype is not None
        weights = ir.Value(name=seed, type=ir.TensorType(target.dtype), shape=target.shape)
        graph.inputs.append(weights)
    for name, value, found in zip(names, wanted, differentiate(ops, target, wanted, weights), strict=True):
        # An Identity gives the gradient a name of its own: it may be another's gradient too, or the seed itself.
        result = ops.Identity(_zeros(ops, value) if found is None else found)
        if f"grad/{name}" in values:
            raise GradientError(f"the model already has a value named grad/{name}")
        result.name = f"grad/{name}"
        if result.shape is None:
            result.shape = value.shape
        graph.outputs.append(result)
    _avoid_shadows(graph, values)
    return extended if isinstance(model, ir.Model) else ir.to_proto(extended)


def _prepare(model: onnx.ModelProto | ir.Model | str | os.PathLike[str]) -> ir.Model:
    """Return a copy without functions, at an opset that the rules know, with the types and shapes that ONNX infers."""
    if isinstance(model, ir.Model):
        found = model.clone()
    elif isinstance(model, onnx.ModelProto):
        found = ir.from_proto(model)
    else:
        found = ir.load(os.fspath(model))
    if found.functions:
        found = InlinePass()(found).model
    version = found.opset_imports.get("", OPSET)
    if version < OPSET:
        try:
            found = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(found), OPSET))
        except Exception as error:
            raise GradientError(f"the model cannot be converted from opset {version} to {OPSET}: {error}") from error
        found.ir_version = max(found.ir_version, 8)
    ShapeInferencePass(check_type=False, strict_mode=False)(found)
    functions = sorted({node.op_type for node in found.graph if _is_function_without_rule(node)})
    if functions:
        # The inliner leaves out constants that a function makes of attributes that are not spelt out.
        AddDefaultAttributesPass()(found)
        proto = onnx.inliner.inline_selected_functions(
            ir.to_proto(found), [("", name) for name in functions], inline_schema_functions=True
        )
        found = ir.from_proto(proto)
        ShapeInferencePass(check_type=False, strict_mode=False)(found)
    for node in ir.traversal.RecursiveGraphIterator(found.graph):
        if node.op_type == "Constant" and not node.domain:
            node.outputs[0].const_value = ir.convenience.get_const_tensor(node.outputs[0])
    return found


def _is_function_without_rule(node: ir.Node) -> bool:
    if node.domain or node.op_type in GRADIENTS or node.op_type in ZERO or not onnx.defs.has(node.op_type):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _find(values: dict[str, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise GradientError(f"the model has no value named {name}; {suggest(name, values)}")
    value = values[name]
    if value.dtype not in _FLOATING:
        kind = "of unknown type" if value.dtype is None else str(value.dtype).lower()
        raise GradientError(f"{name} is {kind}: only floating-point values have gradients", value.producer())
    return value


def _avoid_shadows(graph: ir.Graph, before: Collection[str]) -> None:
    """Rename new values of the main graph that are called as values of a subgraph are."""
    inner = {v.name for sub in graph.subgraphs() for v in (*sub.inputs, *(o for node in sub for o in node.outputs))}
    if not inner:
        return
    for node in graph:
        for out in node.outputs:
            if out.name in inner and out.name not in before:
                out.name = f"{out.name}/outer"


def _zeros(ops: Ops, value: ir.Value) -> ir.Value:
    zero: ir.Value = ops.Expand(ops.constant(0.0, value.dtype), ops.Shape(value))
    return zero
