"""State that a step writes over what it read: one buffer instead of two, where the graph itself makes that safe.

ONNX Runtime does not check an input and an output that share memory, so it has to be sure beforehand that all that
reads a state has run when the node that makes its next value runs. Most readers lead to that node anyway. A gradient
that goes on to earlier layers does not: then the node is made to wait for it, by an operand that is reshaped to a shape
joined with an empty part of that gradient.

ONNX Runtime fuses nodes when it opens a graph: what was to read a transposed state may read the state itself. So the
readers of whatever only moves a state's elements count as its readers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.driver import sources
from nnspec.ops import Ops, dims_of
from nnspec.training.rewrite import after

LARGE = 2**16
"""Elements from which a state has one buffer: for fewer, waiting costs more than the memory is worth."""

_MOVERS = frozenset(
    """Cast Concat DepthToSpace Expand Flatten Gather Identity Pad Reshape Slice SpaceToDepth Split Squeeze Tile
    Transpose Unsqueeze""".split()  # noqa: SIM905
)
_POINTWISE = frozenset({"Add", "Sub", "Mul", "Div"})
"""Operators that read an element of each operand before they write the one at its place."""
_FUSED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that ONNX Runtime joins with the one that follows, and that read elements more than once."""


def write_in_place(graph: ir.Graph, states: Iterable[tuple[ir.Value, str]]) -> set[str]:
    """Return the names of those inputs whose next value may be written over them; let nodes wait where that takes it.

    `states` are inputs of the graph, each with the name of the output that holds its next value.
    """
    graph.sort()
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in graph:
        for value in dict.fromkeys(sources(node)):
            readers.setdefault(value, []).append(node)
    outputs = {v.name: v for v in graph.outputs}
    kept = set(graph.outputs)
    found = [s for value, name in states if (s := _state(value, outputs[name], readers, kept)) is not None]
    before = _before(graph, found)
    ops = Ops(graph)
    names: set[str] = set()
    for state in found:
        # What moves elements has run when its own readers have.
        last = [n for n in state.readers if n is not state.writer and n.op_type not in _MOVERS]
        late = [n for n in last if n not in before[state.writer]]
        if late and readers.get(state.writer.outputs[0]):
            continue  # what reads the next value might have to run first
        waits = [w for n in late if (w := _waited_for(n)) is not None]
        if len(waits) < len(late):
            continue
        if waits:
            _wait(ops, state, waits)
        assert state.value.name is not None
        names.add(state.value.name)
    graph.sort()
    return names


@dataclass(frozen=True, eq=False)
class _State:
    """A state that may be written in place once all its readers have run."""

    value: ir.Value
    writer: ir.Node
    readers: list[ir.Node]
    operand: int
    """An operand of the writer that is not the state."""


def _state(
    value: ir.Value, result: ir.Value, readers: dict[ir.Value, list[ir.Node]], kept: set[ir.Value]
) -> _State | None:
    """Return a large state with its readers, where the operator that makes its next value may write over it."""
    dims, writer = dims_of(value), result.producer()
    sizes = [d for d in dims or () if isinstance(d, int)]
    if dims is None or len(sizes) != len(dims) or math.prod(sizes) < LARGE or writer is None or writer.domain:
        return None
    moved, found = _moved(value, writer, readers)
    own = [i for i, v in enumerate(writer.inputs) if v in moved]
    others = [i for i, v in enumerate(writer.inputs) if v is not None and v not in moved]
    if not others or dims_of(result) != dims or moved & kept:
        return None
    if writer.op_type in _POINTWISE:
        safe = all(dims_of(writer.inputs[i]) == dims for i in own)  # type: ignore[arg-type]
        made_by = [v.producer() for v in writer.inputs if v is not None]
        safe = safe and not any(n in found and n.op_type in _FUSED for n in made_by if n is not None)
    else:
        # These copy the state to where the result goes, if it is not there already, and add to it.
        added_to = {"Gemm": 2, "ScatterElements": 0}.get(writer.op_type)
        safe = own == [added_to] and writer.inputs[own[0]] is value
    return _State(value, writer, found, others[0]) if safe else None


def _moved(
    value: ir.Value, writer: ir.Node, readers: dict[ir.Value, list[ir.Node]]
) -> tuple[set[ir.Value], list[ir.Node]]:
    """Return the state with all that only moves or scales its elements, and every node that reads one of these."""
    moved, found, todo = {value}, dict[ir.Node, None](), [value]
    while todo:
        source = todo.pop()
        for node in readers.get(source, ()):
            found[node] = None
            if node is writer or node.domain or not (node.op_type in _MOVERS or _scales(node, source)):
                continue
            new = [v for v in node.outputs if v not in moved]
            moved.update(new)
            todo += new
    return moved, list(found)


def _scales(node: ir.Node, value: ir.Value) -> bool:
    """Return whether a node multiplies a value by a number, which a product that follows may do by the way."""
    if node.op_type not in ("Mul", "Div"):
        return False
    others = [v for v in node.inputs if v is not None and v is not value]
    return all(v.const_value is not None and v.const_value.size == 1 for v in others)


def _before(graph: ir.Graph, states: list[_State]) -> dict[ir.Node, set[ir.Node]]:
    """Return for each writer which readers have run before it, whatever the order of running."""
    bits = {n: 1 << i for i, n in enumerate(dict.fromkeys(n for s in states for n in s.readers))}
    known: dict[ir.Node, int] = {}
    for node in graph:
        mask = 0
        for value in sources(node):
            producer = value.producer()
            if producer is not None:
                mask |= known.get(producer, 0) | bits.get(producer, 0)
        known[node] = mask
    return {s.writer: {n for n in s.readers if known[s.writer] & bits[n]} for s in states}


def _waited_for(node: ir.Node) -> ir.Value | None:
    """Return a result of a node that another one can wait for."""
    for out in node.outputs:
        used = out.uses() or out.is_graph_output()
        if used and dims_of(out) and out.dtype in (ir.DataType.FLOAT, ir.DataType.INT64):
            return out
    return None


def _wait(ops: Ops, state: _State, values: list[ir.Value]) -> None:
    """Let the node that writes a state wait for other values."""
    operand = state.writer.inputs[state.operand]
    assert operand is not None
    state.writer.replace_input_with(state.operand, after(ops, operand, values))
