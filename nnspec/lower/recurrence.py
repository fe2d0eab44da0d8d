"""Recurrences: what depends on the state runs in a Scan, everything else outside of it over all steps at once.

The nodes of a cell's body fall into levels (see `nnspec.lower.levels`). What depends on the data of a step but not on
the state is computed for all steps together, with time folded into the batch: this makes the input projection one
matrix product. What depends on states, but no next state needs it, is again computed for all steps together, behind
the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nnspec.dims import Dim
from nnspec.initializers import Constant
from nnspec.ir import Node, TensorType
from nnspec.layers.recurrent import Recurrence, State
from nnspec.lower.context import DTYPES, RECOMPUTE, Context, FoldedSizes, LoweringError, Sizes
from nnspec.lower.fused import Fused, recognise
from nnspec.lower.levels import Level, levels_of, outputs_of
from nnspec.lower.products import Products
from nnspec.ops import Ops


def lower_recurrence(
    ctx: Context, layer: Recurrence, x: Sequence[ir.Value], w: Mapping[str, ir.Value]
) -> tuple[ir.Value, ...]:
    """Return the sequences of a recurrence's results, [batch, T, ...], and its final states."""
    options = ctx.options
    fused = None
    if options.fused and not (ctx.training or options.unroll or options.carry):
        fused = recognise(layer)
    return Loop(ctx, layer, x, w, fused).run()


class Loop:
    """One recurrence while it is lowered."""

    def __init__(
        self,
        ctx: Context,
        layer: Recurrence,
        x: Sequence[ir.Value],
        w: Mapping[str, ir.Value],
        fused: Fused | None = None,
    ) -> None:
        self.ctx, self.layer, self.w, self.fused = ctx, layer, w, fused
        self.op: Ops = ctx.op
        self.sizes = ctx.sizes
        self.types = layer.body.types()
        self.length: Dim = ctx.inputs[0].shape[0]
        self.lengths = self.sizes.lengths(self.length)
        self.folded_sizes = FoldedSizes(ctx.sizes, self.length)
        sequences, rest = x[: len(layer.data)], x[len(layer.data) :]
        self.sequences = dict(zip(layer.data, sequences, strict=True))
        begin = len(x) - len(layer.initial)
        self.initial = {
            name: x[i] if ctx.inputs[i].batch else self.op.Expand(x[i], self._batched(ctx.inputs[i]))
            for i, name in enumerate(layer.initial, begin)
        }
        self.outer: dict[str, ir.Value] = dict(zip(layer.given, rest, strict=False))
        """Values computed once, before the loop."""
        self.folded: dict[str, ir.Value] = {}
        """Values computed for all steps at once: [T batch, ...], time-major."""
        self.levels = levels_of(layer)
        self.nodes = self._needed_nodes()

    def run(self) -> tuple[ir.Value, ...]:
        """Append the recurrence; return what `lower_recurrence` does."""
        read = {v for n in self.nodes for v in n.inputs} | {o.value for o in self.layer.body.outputs}
        read |= self.fused.sources if self.fused is not None else set()
        for name, value in self.sequences.items():
            if name in read:
                self.folded[name] = self._fold(value, self.types[name])
        inside = [n for n in self.nodes if self._level(n) is Level.STATE]
        behind = [n for n in self.nodes if self._level(n) is Level.AFTER]
        for node in self.nodes:
            if self._level(node) in (Level.WEIGHTS, Level.GIVEN):
                self.emit(node, self.op, self.outer, self.sizes)
            elif self._level(node) is Level.DATA:
                self.emit(node, self.op, {**self.outer, **self.folded}, self.folded_sizes, into=self.folded)
        wanted = self._wanted(behind)
        if self.fused is not None:
            finals, stacks = self.fused.emit(self, wanted)
        else:
            finals, stacks = self._steps(inside, wanted)
        for name, stack in zip(wanted, stacks, strict=True):
            self.folded[name] = self.flat(stack, self.types[name])
        for node in behind:
            self.emit(node, self.op, {**self.outer, **self.folded}, self.folded_sizes, into=self.folded)
        return (*(self._result(o.value) for o in self.layer.body.outputs), *finals)

    # --- what goes where --------------------------------------------------------------------------------------------

    def _level(self, node: Node) -> Level:
        return self.levels[node.output()]

    def _needed_nodes(self) -> list[Node]:
        """Return the nodes to lower: all of them, or what a fused operator leaves over."""
        if self.fused is None:
            return list(self.layer.body.nodes)
        needed = {o.value for o in self.layer.body.outputs} | self.fused.sources
        needed |= {s.start for s in self.layer.states if s.start is not None}
        kept = []
        for node in reversed(self.layer.body.nodes):
            if needed.intersection(outputs_of(node)) and self._level(node) is not Level.STATE:
                needed.update(node.inputs)
                kept.append(node)
        return kept[::-1]

    def _wanted(self, behind: Sequence[Node]) -> list[str]:
        """Return the loop's values that are needed behind it, in order."""
        names = [v for n in behind for v in n.inputs] + [o.value for o in self.layer.body.outputs]
        return list(dict.fromkeys(n for n in names if self.levels[n] is Level.STATE))

    # --- layout -----------------------------------------------------------------------------------------------------

    def _fold(self, value: ir.Value, type_: TensorType) -> ir.Value:
        """[batch, T, ...] to [T batch, ...]."""
        return self.flat(self.op.Transpose(value, perm=[1, 0, *range(2, type_.rank + 2)]), type_)

    def flat(self, stacked: ir.Value, type_: TensorType) -> ir.Value:
        """[T, batch, ...] to [T batch, ...]."""
        return self.op.Reshape(stacked, self._shape(-1, *type_.shape))  # type: ignore[no-any-return]

    def stacked(self, folded: ir.Value, type_: TensorType) -> ir.Value:
        """[T batch, ...] to [T, batch, ...]."""
        value = self.op.Reshape(folded, self._shape(self.length, -1, *type_.shape))
        value.shape = ir.Shape([_size(self.length), *self._dims(type_)])
        return value  # type: ignore[no-any-return]

    def _shape(self, *dims: Dim | ir.Value) -> ir.Value:
        if all(isinstance(d, int) for d in dims):
            return self.op.constant(list(dims))
        parts = [d if isinstance(d, ir.Value) else self.sizes.dim(d) for d in dims]
        return self.op.shared("Concat", parts, {"axis": 0})  # type: ignore[no-any-return]

    def _batched(self, type_: TensorType) -> ir.Value:
        """Return [batch, ...] to expand to."""
        return self._shape(self.sizes.batch(), *type_.shape)

    def _dims(self, type_: TensorType) -> list[int | str]:
        dims = [_size(d) for d in type_.shape]
        return [self.sizes.batch_name, *dims] if type_.batch else dims

    # --- the parts --------------------------------------------------------------------------------------------------

    def emit(
        self, node: Node, op: Ops, values: Mapping[str, ir.Value], sizes: Sizes, into: dict[str, ir.Value] | None = None
    ) -> None:
        """Lower one node of the body into a graph."""
        store = values if into is None else into
        assert isinstance(store, dict)
        lowered = self.ctx.lowered if op is self.op else replace(self.ctx.lowered, ops=op, updates={})
        types = tuple(self.types[v] for v in node.inputs)
        context = Context(node, types, lowered, sizes, self.ctx.options, f"{self.ctx.name}.")
        names = {role: self.ctx.node.weights[name] for role, name in node.weights.items()}
        weights = {role: lowered.updates.get(names[role], self.w[name]) for role, name in node.weights.items()}
        context.node = node.model_copy(update={"weights": names})
        for i, value in enumerate(context.run([values[v] for v in node.inputs], weights)):
            store[node.output(i)] = value
        if op is not self.op and lowered.updates:
            raise LoweringError(
                f"{context.name}: batch normalisation inside the recurrence would need statistics of every step; "
                "use `layernorm`"
            )

    def _steps(self, inside: Sequence[Node], wanted: Sequence[str]) -> tuple[list[ir.Value], list[ir.Value]]:
        """Run the loop; return the final states, and the wanted values of all steps as [T, batch, ...]."""
        products = Products(self, inside)
        scanned = self._scanned(products)
        starts = [self.start(s) for s in self.layer.states]
        run = self._unrolled if self.ctx.options.unroll else self._scan
        finals, stacks = run(products, scanned, wanted, starts)
        if self.ctx.options.carry and not self.layer.reverse:
            for state, start, final in zip(self.layer.states, starts, finals, strict=True):
                self._carry(state, start, final)
        return finals, stacks

    def _scanned(self, products: Products) -> dict[str, ir.Value]:
        """Return what the loop reads step by step, stacked [T, batch, ...]."""
        needed = {
            name: self.stacked(products.folded[name] if name in products.folded else self.folded[name], type_)
            for name, type_ in products.reads().items()
        }
        for state in self.layer.states:
            if self.levels[state.next] is Level.DATA:
                needed.setdefault(state.next, self.stacked(self.folded[state.next], self.types[state.next]))
        if self.layer.step is not None:
            needed[self.layer.step] = self._range()
        if self.lengths is not None:
            op = self.op
            valid = op.Less(op.Unsqueeze(self._range(), [1]), op.Unsqueeze(self.lengths, [0]))
            valid.shape = ir.Shape([_size(self.length), self.sizes.batch_name])
            for rank in {s.type.rank for s in self.layer.states}:
                needed[f"/valid{rank}"] = op.Unsqueeze(valid, list(range(2, rank + 2))) if rank else valid
        # A Scan counts its steps by what it reads.
        return needed or {"/time": self._range()}

    def _range(self) -> ir.Value:
        op = self.op
        steps = op.Range(op.constant(0), op.Squeeze(self.sizes.dim(self.length), [0]), op.constant(1))
        steps.shape = ir.Shape([_size(self.length)])  # also where it is computed, such as (T - 1)//2
        return steps  # type: ignore[no-any-return]

    def begins_at_zero(self, state: State) -> bool:
        """Return whether a state starts at zero."""
        given = state.name in self.initial or state.start is not None
        return not given and isinstance(state.init, Constant) and state.init.value == 0.0

    def start(self, state: State) -> ir.Value:
        """Return what a state starts from: [batch, ...]."""
        if state.name in self.initial:
            return self.initial[state.name]
        op, dims = self.op, state.type.shape
        if state.start is not None:
            first = self.outer[state.start]
        else:
            assert state.init is not None
            fixed = tuple(d for d in dims if isinstance(d, int))
            whole = fixed if len(fixed) == len(dims) and state.init.kind != "constant" else ()
            first = op.constant(state.init.sample(whole, (1, 1), np.random.default_rng(0)).astype(np.float32))
        start: ir.Value = op.Expand(first, self._batched(state.type))
        if not self.ctx.options.carry or self.layer.reverse:
            return start
        if state.start is not None:
            # A learned start is the start of a stream, and no graph can tell which batch begins one.
            start = self.ctx.stop(start)
        # What is carried is the distance from the start, so that zeros begin a stream.
        carried = ir.Value(
            name=f"{self.ctx.name}.{state.name}",
            type=ir.TensorType(DTYPES[state.type.dtype]),
            shape=ir.Shape(self._dims(state.type)),
        )
        self.ctx.lowered.carries[f"{self.ctx.name}.{state.name}"] = (carried, carried)
        return carried if self.begins_at_zero(state) else op.Add(start, carried)

    def _carry(self, state: State, start: ir.Value, final: ir.Value) -> None:
        name = f"{self.ctx.name}.{state.name}"
        if name not in self.ctx.lowered.carries:
            return
        carried, _ = self.ctx.lowered.carries[name]
        after = final if start is carried else self.op.Add(carried, self.op.Sub(final, start))
        self.ctx.lowered.carries[name] = (carried, after)

    def _step(
        self, op: Ops, products: Products, values: dict[str, ir.Value], wanted: Sequence[str]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Lower one step: return the next states, and what is needed behind the loop."""
        for node in products.nodes:
            if not products.emit(node, op, values):
                self.emit(node, op, values, self.sizes if op is self.op else _Inner(self.sizes))
        following = []
        for state in self.layer.states:
            value = values[state.next] if state.next in values else self.outer[state.next]
            if not self.types[state.next].batch:
                value = op.Expand(value, op.Shape(values[state.name]))
            if self.lengths is not None:
                value = op.Where(values[f"/valid{state.type.rank}"], value, values[state.name])
            following.append(value)
        return following, [values[name] for name in wanted]

    def _scan(
        self,
        products: Products,
        scanned: Mapping[str, ir.Value],
        wanted: Sequence[str],
        starts: Sequence[ir.Value],
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        states = self.layer.states
        inputs = [(s.name, DTYPES[s.type.dtype], tuple(self._dims(s.type))) for s in states]
        for name, value in scanned.items():
            assert value.dtype is not None
            assert value.shape is not None
            inputs.append((name, value.dtype, tuple(d if isinstance(d, int) else str(d) for d in value.shape[1:])))
        body = self.op.subgraph(inputs, f"{self.ctx.name}/step")
        values = dict(self.outer)
        values |= {name: value for (name, _, _), value in zip(inputs, body.graph.inputs, strict=True)}
        following, out = self._step(body, products, values, wanted)
        results: list[ir.Value] = []
        for value in (*following, *out):
            # Scan wants each output to be a value of the body's own, and each once.
            own = value.producer() is not None and value.graph is body.graph and not any(value is r for r in results)
            results.append(value if own else body.Identity(value))
        for value, type_ in zip(results, [*(s.type for s in states), *(self.types[n] for n in wanted)], strict=True):
            value.shape = ir.Shape(self._dims(type_))
        body.graph.outputs.extend(results)
        backwards = int(self.layer.reverse)
        made = self.op.emit(
            "Scan",
            [*starts, *scanned.values()],
            {
                "body": body.graph,
                "num_scan_inputs": len(scanned),
                "scan_input_directions": [backwards] * len(scanned),
                "scan_output_directions": [backwards] * len(out),
            },
            outputs=len(results),
        )
        made = [made] if len(results) == 1 else list(made)
        if self.ctx.node.recompute:
            made[0].producer().metadata_props[RECOMPUTE] = "1"
        return made[: len(starts)], made[len(starts) :]

    def _unrolled(
        self,
        products: Products,
        scanned: Mapping[str, ir.Value],
        wanted: Sequence[str],
        starts: Sequence[ir.Value],
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        length = self.length
        if not isinstance(length, int):
            raise LoweringError(
                f"{self.ctx.name} cannot be unrolled: its length `{length}` is symbolic; "
                "declare the input with a fixed length"
            )
        op, states = self.op, list(starts)
        pieces: dict[str, Sequence[ir.Value]] = {}
        for name, value in scanned.items():
            parts = op.Split(value, [1] * length, axis=0, outputs=length) if length > 1 else [value]
            pieces[name] = [op.Squeeze(part, [0]) for part in parts]
        steps: list[list[ir.Value]] = [[] for _ in range(length)]
        for t in range(length - 1, -1, -1) if self.layer.reverse else range(length):
            values = {**self.outer, **{name: parts[t] for name, parts in pieces.items()}}
            values |= {s.name: v for s, v in zip(self.layer.states, states, strict=True)}
            states, steps[t] = self._step(op, products, values, wanted)
        stacks = [op.Concat(*(op.Unsqueeze(step[i], [0]) for step in steps), axis=0) for i in range(len(wanted))]
        return states, stacks

    def _result(self, name: str) -> ir.Value:
        """Return a result as [batch, T, ...], with zeros in the padding."""
        op, type_ = self.op, self.types[name]
        if name in self.folded:
            stacked = self.stacked(self.folded[name], type_)
        else:
            value = op.Unsqueeze(self.outer[name], [0]) if type_.batch else self.outer[name]
            stacked = op.Expand(value, self._shape(self.length, self.sizes.batch(), *type_.shape))
        turned: ir.Value = op.Transpose(stacked, perm=[1, 0, *range(2, type_.rank + 2)])
        if self.lengths is None:
            return turned
        keep = self.ctx.mask(turned, TensorType(shape=(self.length, *(1,) * type_.rank)))
        return op.Where(op.Greater(keep, 0.5), turned, op.constant(0, turned.dtype))  # type: ignore[no-any-return]


class _Inner(Sizes):
    """The sizes of the loop's body: those of the graph around it, computed there once."""

    def __init__(self, outer: Sizes) -> None:
        self.ops, self.masks, self.inputs = outer.ops, outer.masks, outer.inputs
        self._outer = outer
        self.batch_name = outer.batch_name
        self._masks = outer._masks

    def batch(self) -> ir.Value:
        return self._outer.batch()

    def dim(self, dim: Dim) -> ir.Value:
        return self._outer.dim(dim)

    def lengths(self, dim: Dim) -> ir.Value | None:
        return self._outer.lengths(dim)


def _size(dim: Dim) -> int | str:
    return dim if isinstance(dim, int) else str(dim)
