"""Recomputation: values of marked layers are computed again on the way back instead of being kept (Chen et al. 2016).

The nodes of a segment are cloned for the backward graph. A clone must not run before its time, and must not be found
equal to its original by this or any other compiler: what flows into the clones from outside the segment is tied to the
gradient that comes in. To it is added a zero made of that gradient, `g < g` as a number, which is exact whatever g is,
also for infinity and NaN, and which nothing can fold as long as g is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from nnspec.lower import SEGMENT
from nnspec.ops import Ops, dims_of

_TIED = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE, ir.DataType.INT64)


def recompute(ops: Ops, mark: int, data: Sequence[ir.Value]) -> None:
    """Let the backward graph, the nodes from number `mark` on, read clones of the marked nodes before it; in place.

    `data` are the graph's inputs that are no parameters: what depends on parameters alone is not worth the work. Nodes
    with bodies, Scan for one, are kept. A segment that nothing but the loss follows gains nothing and is left.
    """
    nodes = list(ops.graph)
    segments: dict[str, list[ir.Node]] = {}
    varies = set(data)
    for node in nodes[:mark]:
        segment = node.metadata_props.pop(SEGMENT, None)
        if not any(v in varies for v in node.inputs):
            continue
        varies.update(node.outputs)
        if segment is not None and all(a.type != ir.AttributeType.GRAPH for a in node.attributes.values()):
            segments.setdefault(segment, []).append(node)
    for members in reversed(segments.values()):
        _again(ops, members, nodes[:mark], nodes[mark:], varies)
    if segments:
        ops.graph.sort()


def _again(
    ops: Ops, segment: list[ir.Node], forward: list[ir.Node], backward: list[ir.Node], varies: set[ir.Value]
) -> None:
    made = {out for node in segment for out in node.outputs}
    after = _followers(forward, made)
    local = set(made)
    """The segment's values, and what the backward graph makes of them before any gradient is there."""
    late = set(after)
    """What is known only when the gradient comes in."""
    tie: ir.Value | None = None
    for node in backward:
        if any(v in late for v in node.inputs):
            if any(v in local for v in node.inputs):
                tie = next(v for v in node.inputs if v in late and v is not None)
                break
            late.update(node.outputs)
        elif any(v in local for v in node.inputs):
            local.update(node.outputs)
    if tie is None:
        return
    zeros = _Zeros(ops, tie)
    clones: dict[ir.Value, ir.Value] = {}
    later = set(backward)
    readers = [
        (use.node, use.idx, value)
        for value in made
        for use in value.uses()
        if use.node in later
    ]
    needed = {value for _, _, value in readers}
    kept = []
    for node in reversed(segment):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(v for v in node.inputs if v is not None)
    for node in reversed(kept):
        inputs = [_clone_of(v, clones, zeros, varies) for v in node.inputs]
        clone = ir.Node(
            node.domain, node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs),
            name=f"{node.name}/again" if node.name else None, metadata_props=dict(node.metadata_props),
        )  # fmt: skip
        for old, new in zip(node.outputs, clone.outputs, strict=True):
            if old.dtype is not None:
                new.dtype = old.dtype
            new.shape, new.name = old.shape, f"{old.name}/again" if old.name else None
            clones[old] = new
        ops.graph.append(clone)
    for reader, index, value in readers:
        reader.replace_input_with(index, clones[value])


def _followers(forward: list[ir.Node], made: set[ir.Value]) -> set[ir.Value]:
    """Return the forward values behind a segment."""
    found: set[ir.Value] = set()
    for node in forward:
        if not made.intersection(node.outputs) and any(v in made or v in found for v in node.inputs):
            found.update(node.outputs)
    return found


def _clone_of(
    value: ir.Value | None, clones: dict[ir.Value, ir.Value], zeros: _Zeros, varies: set[ir.Value]
) -> ir.Value | None:
    if value is None or value not in varies:
        return value
    if value not in clones:
        clones[value] = zeros.tied(value) if value.dtype in _TIED else value
    return clones[value]


class _Zeros:
    """Zeros of each type that are known when a gradient is."""

    def __init__(self, ops: Ops, gradient: ir.Value) -> None:
        self._ops, self._gradient = ops, gradient
        self._made: dict[ir.DataType, ir.Value] = {}
        self._never: ir.Value | None = None

    def tied(self, value: ir.Value) -> ir.Value:
        """Return a value that equals the given one and can only be computed after the gradient."""
        op = self._ops
        kind = value.dtype
        assert kind is not None
        if self._never is None:
            rank = len(dims_of(self._gradient) or ())
            first: ir.Value = self._gradient
            if rank:
                # One element says when: it need not be looked at as a whole.
                axes = list(range(rank))
                first = op.Squeeze(op.Slice(first, [0] * rank, [1] * rank, axes), axes)
            if first.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64):
                first = op.Cast(first, to=int(ir.DataType.FLOAT))
            self._never = op.Less(first, first)
        if kind not in self._made:
            self._made[kind] = op.Cast(self._never, to=int(kind))
        result: ir.Value = op.Add(value, self._made[kind])
        return result
