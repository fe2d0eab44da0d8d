"""Generating: a decoder in a Loop that is fed what it said, with the likeliest sequences followed in a beam.

Only what depends on the decoder's input is computed in the loop. Where recurrences alone lead from one step to the next
they run one step at a time from the states that the step before left. Any other decoder runs again over all that has
been said so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from nnspec.dims import Dim, Symbolic, evaluate, symbols
from nnspec.ir import Network, Node, ShapeError, TensorType
from nnspec.layers.causality import Path, trace
from nnspec.layers.ctc import NEVER
from nnspec.layers.ctc_decoding import NOTHING
from nnspec.layers.recurrent import Recurrence
from nnspec.layers.sequence import Generate
from nnspec.lower.context import DTYPES, Context, LoweringError, Options, Sizes
from nnspec.lower.levels import Level, levels_of
from nnspec.lower.recurrence import Loop
from nnspec.ops import Ops


def path_of(network: Network, node: Node) -> Path:
    """Return what a `generate` computes step by step; raise LoweringError where that is not in the network."""
    logits, feed = node.inputs
    assert isinstance(node.layer, Generate)
    try:
        return trace(network.inputs, network.nodes, logits, feed, check=not node.layer.causal)
    except ShapeError as error:
        raise LoweringError(f"{node.name}: {error.message}") from None


def lower_generate(ctx: Context, layer: Generate) -> tuple[ir.Value, ir.Value]:
    """Return what the decoder says [batch, length] and its log probability [batch]."""
    network = ctx.lowered.network
    if network is None or ctx.node not in network.nodes:
        raise LoweringError(f"{ctx.name}: `generate` works on a whole network, not inside a cell")
    if ctx.options.unroll:
        raise LoweringError(f"{ctx.name}: `generate` is a loop that ends by itself, and cannot be unrolled")
    return _Generation(ctx, layer, network).run()


@dataclass
class _State:
    """A recurrent state in the loop: its name there, its type, how it starts, and the value that follows it."""

    key: str
    type: TensorType
    start: ir.Value
    following: str


@dataclass
class _Generation:
    ctx: Context
    layer: Generate
    network: Network
    states: list[_State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.op: Ops = self.ctx.op
        self.path = path_of(self.network, self.ctx.node)
        self.types = self.network.types()
        self.logits, self.feed = self.ctx.node.inputs
        pair = [self.ctx.sizes.batch(), self.op.constant([self.layer.beam])]
        self.pair: ir.Value = self.op.Concat(*pair, axis=0)
        self.rows: ir.Value = self.op.Mul(*pair)
        self.options = Options(unroll=self.path.stepwise)
        self.nodes = [self._one_step(n) for n in self.path.nodes] if self.path.stepwise else list(self.path.nodes)

    def run(self) -> tuple[ir.Value, ir.Value]:
        op, layer = self.op, self.layer
        outside = {
            name: self._repeated(self.ctx.lowered.values[name])
            if self.types[name].batch
            else self.ctx.lowered.values[name]
            for name in self.path.outside
        }
        width = layer.length + 1
        whole = op.Concat(self.rows, op.constant([width]), axis=0)
        said = op.Expand(op.constant([layer.begin] + [layer.end] * layer.length), whole)
        # At first the beam holds one sequence; its other places hold what cannot be.
        score = op.Expand(op.constant([0.0] + [NEVER] * (layer.beam - 1)), self.pair)
        done = op.Expand(op.constant(False), self.pair)
        count = op.Expand(op.constant(0.0), self.pair)
        starts = [said, score, done, count, *(self._repeated(s.start) for s in self.states)]
        beam = ("batch", layer.beam)
        inputs: list[tuple[str, ir.DataType, tuple[int | str | None, ...]]] = [
            ("step", ir.DataType.INT64, ()),
            ("on", ir.DataType.BOOL, ()),
            ("said", ir.DataType.INT64, (None, width)),
            ("score", ir.DataType.FLOAT, beam),
            ("done", ir.DataType.BOOL, beam),
            ("count", ir.DataType.FLOAT, beam),
        ]
        inputs += [
            (f"state{i}", DTYPES[s.type.dtype], (None, *(d if isinstance(d, int) else str(d) for d in s.type.shape)))
            for i, s in enumerate(self.states)
        ]
        body = op.subgraph(inputs, f"{self.ctx.name}/step")
        results = self._step(body, outside)
        _hoist(body.graph, op.graph)
        body.graph.outputs.extend(
            v if v.producer() is not None and v.producer().graph is body.graph else body.Identity(v)  # type: ignore[union-attr]
            for v in results
        )
        made = op.emit(
            "Loop", [op.constant(layer.length), op.constant(True), *starts], {"body": body.graph}, outputs=len(starts)
        )
        return self._best(made[0]), op.Gather(made[1], op.constant(0), axis=1)

    # --- the decoder ------------------------------------------------------------------------------------------------

    def _one_step(self, node: Node) -> Node:
        """Return a node of the decoder for an input of one step, its recurrences going on from outside."""
        here = {self.path.symbol: 1}
        outputs = tuple(_at(t, here) for t in node.outputs)
        node = node.model_copy(update={"outputs": outputs})
        if not isinstance(node.layer, Recurrence):
            return node
        layer, first = node.layer, len(node.layer.body.outputs)
        fixed = node.inputs[: len(layer.data) + len(layer.given)]
        keys = [f"{node.name}/{s.name}" for s in layer.states]
        for i, (state, start) in enumerate(zip(layer.states, self._starts(node), strict=True)):
            self.states.append(_State(keys[i], state.type, start, node.output(first + i)))
            self.types[keys[i]] = state.type
        going_on = layer.model_copy(update={"initial": tuple(s.name for s in layer.states)})
        return node.model_copy(update={"layer": going_on, "inputs": (*fixed, *keys)})

    def _starts(self, node: Node) -> list[ir.Value]:
        """Return what the states of a recurrence start from, [batch, ...]."""
        layer = node.layer
        assert isinstance(layer, Recurrence)
        values = self.ctx.lowered.values
        types = tuple(_at(self.types[v], {self.path.symbol: 1}) for v in node.inputs)
        context = Context(node, types, self.ctx.lowered, self.ctx.sizes, Options())
        weights = {role: self.ctx.lowered.weights[name] for role, name in node.weights.items()}
        # The starts depend on none of its data, whose values need not even be known here.
        loop = Loop(context, layer, [values.get(v, self.rows) for v in node.inputs], weights)
        levels = levels_of(layer)
        for part in layer.body.nodes:
            if levels[part.output()] is Level.WEIGHTS:
                loop.emit(part, self.op, loop.outer, self.ctx.sizes)
        return [loop.start(s) for s in layer.states]

    def _decode(self, body: Ops, values: dict[str, ir.Value], sizes: Sizes) -> ir.Value:
        """Append the decoder to the loop's body; return the logits of its last step, [rows, V]."""
        here = {self.path.symbol: 1} if self.path.stepwise else {}
        lowered = replace(self.ctx.lowered, ops=body, updates={})
        for node in self.nodes:
            types = tuple(_at(self.types[v], here) for v in node.inputs)
            context = Context(node, types, lowered, sizes, self.options)
            weights = {role: lowered.weights[name] for role, name in node.weights.items()}
            for i, value in enumerate(context.run([values[v] for v in node.inputs], weights)):
                values[node.output(i)] = value
        return body.Gather(values[self.logits], body.constant(-1), axis=1)  # type: ignore[no-any-return]

    def _step(self, body: Ops, outside: Mapping[str, ir.Value]) -> list[ir.Value]:
        """Append one step of the loop; return its results: whether to go on, and what each state becomes."""
        layer = self.layer
        step, _, said, score, done, count, *states = body.graph.inputs
        now = body.Unsqueeze(step, [0])
        after = body.Add(now, body.constant([1]))
        begin, size = (now, body.constant([1])) if self.path.stepwise else (body.constant([0]), after)
        seen = body.Slice(said, begin, after, [1])
        sizes = _Growing(self.ctx.sizes, body, self.path.symbol, size, self.rows, self._repeated)
        values = {**outside, self.feed: seen, **{s.key: v for s, v in zip(self.states, states, strict=True)}}
        logits = self._decode(body, values, sizes)
        symbols_ = self.types[self.logits].shape[1]
        assert isinstance(symbols_, int)
        worth = body.Reshape(body.LogSoftmax(logits, axis=1), body.Concat(self.pair, body.constant([symbols_]), axis=0))
        # A sequence that has ended goes on with its end at no cost.
        ended = [NEVER] * symbols_
        ended[layer.end] = 0.0
        worth = body.Where(body.Unsqueeze(done, [2]), body.constant(ended), worth)
        total = body.Add(body.Unsqueeze(score, [2]), worth)
        length = body.Where(done, count, body.Add(count, 1.0))
        rank = total
        if layer.length_penalty:
            rank = body.Div(total, body.Unsqueeze(body.Pow(length, float(layer.length_penalty)), [2]))
        flat = body.constant([0, -1])
        _, chosen = body.TopK(body.Reshape(rank, flat), [layer.beam], axis=1, outputs=2)
        symbol = body.Mod(chosen, symbols_)
        source = body.Div(chosen, symbols_)
        score = body.GatherElements(body.Reshape(total, flat), chosen, axis=1)
        following = [values[s.following] for s in self.states]
        if layer.beam > 1:
            done, length = (body.GatherElements(v, source, axis=1) for v in (done, length))
            rows = body.Range(body.constant(0), body.Squeeze(self.rows, [0]), body.constant(layer.beam))
            rows = body.Reshape(body.Add(body.Unsqueeze(rows, [1]), source), [-1])
            said, *following = (body.Gather(v, rows, axis=0) for v in (said, *following))
        done = body.Or(done, body.Equal(symbol, body.constant(layer.end)))
        place = body.Equal(body.constant(list(range(layer.length + 1))), after)
        said = body.Where(place, body.Reshape(symbol, [-1, 1]), said)
        open_ = body.ReduceMin(body.Cast(done, to=int(ir.DataType.INT64)), keepdims=0)
        return [body.Equal(open_, body.constant(0)), said, score, done, length, *following]

    def _best(self, said: ir.Value) -> ir.Value:
        """Return the first sequence of each beam without its begin, and nothing behind its end."""
        op, layer = self.op, self.layer
        shape = op.Concat(self.pair, op.constant([layer.length + 1]), axis=0)
        best = op.Slice(op.Gather(op.Reshape(said, shape), op.constant(0), axis=1), [1], [layer.length + 1], [1])
        ends = op.Cast(op.Equal(best, op.constant(layer.end)), to=int(ir.DataType.INT64))
        behind = op.Greater(op.CumSum(ends, op.constant(1), exclusive=1), op.constant(0))
        return op.Where(behind, op.constant(NOTHING), best)  # type: ignore[no-any-return]

    def _repeated(self, value: ir.Value) -> ir.Value:
        """Return a value with each sample's row as often as the beam is wide."""
        if self.layer.beam == 1:
            return value
        op = self.op
        rest = op.Shape(value, start=1)
        wide = op.Expand(op.Unsqueeze(value, [1]), op.Concat(self.pair, rest, axis=0))
        return op.Reshape(wide, op.Concat(self.rows, rest, axis=0))  # type: ignore[no-any-return]


class _Growing(Sizes):
    """The sizes in the loop: those of the decoder's input as far as it is fed, and the rows of the beam as batch."""

    def __init__(
        self,
        outer: Sizes,
        ops: Ops,
        symbol: str,
        length: ir.Value,
        rows: ir.Value,
        repeated: Callable[[ir.Value], ir.Value],
    ) -> None:
        self.ops, self.inputs = ops, outer.inputs
        self.masks = {s: name for s, name in outer.masks.items() if s != symbol}
        self._outer, self._symbol, self._repeated = outer, symbol, repeated
        self._batch = rows
        self.batch_name = "rows"
        self._masks: dict[tuple[str, int, int], ir.Value] = {}
        self._dims: dict[str, ir.Value] = {symbol: length}

    def batch(self) -> ir.Value:
        assert self._batch is not None
        return self._batch

    def dim(self, dim: Dim) -> ir.Value:
        if self._symbol not in symbols(dim):
            return self._outer.dim(dim)
        assert isinstance(dim, Symbolic)
        key = str(dim)
        if key not in self._dims:
            self._dims[key] = self.evaluate(dim, {s: self.dim(Symbolic.symbol(s)) for s in dim.symbols})
        return self._dims[key]

    def lengths(self, dim: Dim) -> ir.Value | None:
        if self._symbol in symbols(dim):
            return None
        lengths = self._outer.lengths(dim)
        return None if lengths is None else self._repeated(lengths)


def _at(type_: TensorType, here: Mapping[str, int]) -> TensorType:
    return type_.with_shape(tuple(evaluate(d, here) for d in type_.shape)) if here else type_


def _hoist(body: ir.Graph, graph: ir.Graph) -> None:
    """Move what is the same in every step out of a loop's body, such as the encoder's share of an attention."""
    own = set(body.inputs)
    for node in list(body):
        inner = any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values())
        if inner or own.intersection(v for v in node.inputs if v is not None):
            own.update(node.outputs)
        else:
            body.remove(node)
            graph.append(node)
