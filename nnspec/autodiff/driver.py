"""Reverse-mode differentiation: walk the graph backwards and ask each node's rule for its part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import onnx_ir as ir

from nnspec.autodiff.broadcast import Grad, add, reduce_to
from nnspec.autodiff.errors import GradientError
from nnspec.autodiff.registry import GRADIENTS, ZERO, Gradient
from nnspec.autodiff.terms import Emit, NodeView, Term
from nnspec.lower import STOP_GRADIENT
from nnspec.ops import Ops

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, None})


Defer = Callable[[ir.Node, int, Grad], bool]
"""Asked before a rule for one input of a node runs; True: whoever asked for the sweep takes care of it."""


def differentiate(
    ops: Ops, of: ir.Value, wrt: Sequence[ir.Value], seed: ir.Value | None = None
) -> list[ir.Value | None]:
    """Append to `ops.graph` the gradient of the sum of `of` by each value of `wrt`; return their values.

    `seed`, of the shape of `of`, weights its elements (the vector of a vector-Jacobian product; ones if None). A result
    has the shape and element type of its value, and is None where no differentiable path leads from it to `of`. Values
    of `wrt` may be inputs, initializers or intermediate values. Raise GradientError at an operator without a rule.
    """
    op = Emit(ops)
    mark = len(ops.graph)
    first = Grad(Term(of, op).like(1), False) if seed is None else Grad(Term(seed, op), True)
    found = sweep(op, ops.graph, {of: [first]}, wrt)
    results = [found[v].filled(Term(v, op)).value if v in found else None for v in wrt]
    ops.prune(mark, keep=[r for r in results if r is not None])
    return results


def sweep(
    op: Emit,
    graph: ir.Graph,
    seeds: Mapping[ir.Value, list[Grad]],
    wrt: Iterable[ir.Value],
    defer: Defer | None = None,
) -> dict[ir.Value, Grad]:
    """Return the gradients by those values of `wrt` that the seeds' values depend on.

    `graph` is what is differentiated; the gradient nodes go to the graph of `op`, which may be another.
    """
    wanted = set(wrt)
    path, active = _path(graph, seeds, wanted)
    grads = {value: list(parts) for value, parts in seeds.items()}
    for node in reversed(path):
        dys = [_total(op, grads, out, keep=out in wanted) for out in node.outputs]
        if any(dy is not None for dy in dys):
            for value, grad in _node_gradients(node, op, dys, active, defer):
                grads.setdefault(value, []).append(grad)
    totals = {v: _total(op, grads, v, keep=True) for v in wanted if v in active or v in seeds}
    return {v: total for v, total in totals.items() if total is not None}


def captured(node: ir.Node) -> list[ir.Value]:
    """Return the values that the subgraphs of a node use from the graphs around them, each once, in order of use."""
    found: dict[ir.Value, None] = {}
    for attribute in node.attributes.values():
        for graph in [attribute.value] if attribute.type == ir.AttributeType.GRAPH else []:
            own = {*graph.inputs, *graph.initializers.values()}
            for inner in graph:
                for value in [*inner.inputs, *captured(inner)]:
                    if value is not None and value not in own:
                        found[value] = None
                own.update(inner.outputs)
            found.update({v: None for v in graph.outputs if v not in own})
    return list(found)


def sources(node: ir.Node) -> list[ir.Value]:
    """Return everything that a node computes from: its inputs, and what its subgraphs use from outside."""
    given = [v for v in node.inputs if v is not None]
    return given + captured(node) if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()) else given


def influenced(graph: ir.Graph, by: Iterable[ir.Value]) -> tuple[list[ir.Node], set[ir.Value]]:
    """Return the nodes, in order, that the given values influence differentiably, and all values that these give."""
    active = {v for v in by if v.dtype in _FLOATS}
    nodes = []
    for node in graph:
        if (node.op_type in ZERO and not node.domain) or STOP_GRADIENT in node.metadata_props:
            continue
        if any(v in active for v in sources(node)):
            nodes.append(node)
            active.update(v for v in node.outputs if v.dtype in _FLOATS)
    return nodes, active


def _path(graph: ir.Graph, of: Iterable[ir.Value], wanted: set[ir.Value]) -> tuple[list[ir.Node], set[ir.Value]]:
    """Return the nodes, in order, through which a wanted value influences `of`, and the values that it influences."""
    nodes, active = influenced(graph, wanted)
    needed = set(of)
    path = []
    for node in reversed(nodes):
        if any(out in needed and out in active for out in node.outputs):
            path.append(node)
            needed.update(v for v in sources(node) if v in active)
    return path[::-1], active & needed


def _total(op: Emit, grads: dict[ir.Value, list[Grad]], value: ir.Value, keep: bool) -> Grad | None:
    parts = grads.get(value)
    if not parts:
        return None
    total = add(op, parts, Term(value, op))
    if keep:
        grads[value] = [total]
    else:
        del grads[value]
    return total


def _node_gradients(
    node: ir.Node, op: Emit, dys: list[Grad | None], active: set[ir.Value], defer: Defer | None
) -> list[tuple[ir.Value, Grad]]:
    gradient = GRADIENTS.get(node.op_type) if not node.domain else None
    if gradient is None:
        raise GradientError("this operator has no gradient rule", node)
    wanted = [v is not None and v in active for v in node.inputs]
    if gradient.joint is not None or gradient.flow is not None:
        filled = [None if dy is None else dy.filled(Term(out, op)) for dy, out in zip(dys, node.outputs, strict=True)]
        view = NodeView(node, op, filled, wanted, active)
        if gradient.flow is not None:
            return [(v, Grad(part, True)) for v, part in gradient.flow(view)]
        parts = zip(node.inputs, gradient.joint(view), wanted, strict=True)  # type: ignore[misc]
        return [(v, Grad(p, True)) for v, p, want in parts if v is not None and p is not None and want]
    if any(dy is not None for dy in dys[1:]):
        raise GradientError("only its first output has a gradient rule", node)
    dy = dys[0]
    assert dy is not None
    view = NodeView(node, op, [dy.term], wanted, active)
    if not gradient.pointwise:
        dy = Grad(dy.filled(view.y), True)
    found = []
    for i, value in enumerate(node.inputs):
        if value is None or not wanted[i] or (defer is not None and defer(node, i, dy)):
            continue
        dx = _input_gradient(gradient, dy, view, i)
        if dx is not None:
            found.append((value, dx))
    return found


def _input_gradient(gradient: Gradient, dy: Grad, view: NodeView, i: int) -> Grad | None:
    if gradient.each is not None:
        dx = gradient.each(dy.term, view, i)
    elif i >= len(gradient.rules):
        raise view.error(f"the gradient by input {i} has no rule")
    else:
        rule = gradient.rules[i]
        dx = None if rule is None else rule(dy.term, view)
    if dx is None:
        return None
    x = view.x[i]
    if not gradient.pointwise:
        return Grad.of(dx, x) if gradient.lazy else Grad(dx, True)
    grad = Grad(dx, True) if dy.full else Grad.of(dx, view.y)
    return reduce_to(grad, x, view.y, [v for j, v in enumerate(view.x) if j != i and v is not None])
