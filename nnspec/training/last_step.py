"""What is read of a recurrence's last step alone is its final state: the other steps need no gradient of it."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from nnspec.autodiff.algebra import producer, viewed
from nnspec.autodiff.rules.steps import Steps
from nnspec.ops import dims_of


def read_final_states(graph: ir.Graph, kept: Collection[ir.Value]) -> None:
    """Let what reads the last step of a loop's results read the state that the loop ends with, where that is the same.

    Values in `kept` stay what they are.
    """
    for node in graph:
        if node.op_type != "Gather" or node.domain or node.outputs[0] in kept:
            continue
        state = _final_state(node)
        if state is not None and _same_dims(state, node.outputs[0]):
            ir.convenience.replace_all_uses_with(node.outputs[0], state)


def _final_state(gather: ir.Node) -> ir.Value | None:
    """Return the final state of a Scan whose last step is all that a Gather takes."""
    data, index = gather.inputs
    axis = gather.attributes.get_int("axis", 0)
    if data is None or index is None or index.const_value is None or index.const_value.numpy().ndim:
        return None
    while (move := producer(data, "Transpose") or producer(data, "Reshape")) is not None:
        source = move.inputs[0] if move.op_type == "Transpose" else viewed(data)
        if source is None or (move.op_type == "Reshape" and not _same_dims(source, data)):
            return None
        if move.op_type == "Transpose":
            axis = move.attributes["perm"].as_ints()[axis]
        data = source
    scan = producer(data, "Scan")
    if scan is None:
        return None
    steps, k, dims = Steps(scan), data.index(), dims_of(data)
    assert k is not None
    if k < steps.states or dims is None or steps.written(k) != (axis % len(dims), 0):
        return None
    length, at = dims[axis], int(index.const_value.numpy())
    if at != -1 and not (isinstance(length, int) and at == length - 1):
        return None
    made = steps.body.outputs[k].producer()
    source = made.inputs[0] if made is not None and made.op_type == "Identity" else None
    return next((scan.outputs[i] for i in range(steps.states) if steps.body.outputs[i] is source), None)


def _same_dims(one: ir.Value, other: ir.Value) -> bool:
    dims = dims_of(one)
    return dims is not None and None not in dims and dims == dims_of(other)
