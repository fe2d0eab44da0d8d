"""Recurrences: what depends on the state runs in a Scan, everything else outside of it over all steps at once.

The nodes of a cell's body fall into levels. What depends on weights or given tensors alone is computed once. What
depends on the data of a step but not on the state is computed for all steps together, with time folded into the batch:
this makes the input projection one matrix product. What the next states need runs in the loop. What depends on states,
but no next state needs it, is again computed for all steps together, behind the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import IntEnum

import onnx_ir as ir

from nnspec.dims import Dim
from nnspec.ir import Node, TensorType
from nnspec.layers.dense import Dense
from nnspec.layers.recurrent import Recurrence, State
from nnspec.layers.shape import Concat
from nnspec.lower.context import DTYPES, Context, FoldedSizes, Lowered, LoweringError, Sizes
from nnspec.ops import Ops


class Level(IntEnum):
    """What a value of the body depends on, at most."""

    WEIGHTS = 0
    GIVEN = 1
    DATA = 2
    STATE = 3
    AFTER = 4


def lower_recurrence(
    ctx: Context, layer: Recurrence, x: Sequence[ir.Value], w: Mapping[str, ir.Value]
) -> tuple[ir.Value, ...]:
    """Return the sequences of a recurrence's results and its final states."""
    if layer.standard and ctx.options.fused and not ctx.training and not ctx.options.unroll and not ctx.options.carry:
        from nnspec.lower.fused import lower_fused

        done = lower_fused(ctx, layer, x, w)
        if done is not None:
            return done
    return _Loop(ctx, layer, x, w).run()


class _Loop:
    def __init__(self, ctx: Context, layer: Recurrence, x: Sequence[ir.Value], w: Mapping[str, ir.Value]) -> None:
        self.ctx, self.layer, self.w = ctx, layer, w
        self.op: Ops = ctx.op
        self.sizes = ctx.sizes
        self.types = layer.body.types()
        self.length: Dim = ctx.inputs[0].shape[0]
        self.folded_sizes = FoldedSizes(ctx.sizes, self.length)
        sequences, rest = x[: len(layer.data)], x[len(layer.data) :]
        self.given = dict(zip(layer.given, rest, strict=False))
        self.initial = dict(zip(layer.initial, rest[len(layer.given) :], strict=True))
        self.outer: dict[str, ir.Value] = dict(self.given)
        """Values computed once, before the loop."""
        self.folded: dict[str, ir.Value] = {}
        """Values computed for all steps at once: [T batch, ...], time-major."""
        for name, value, type_ in zip(layer.data, sequences, ctx.inputs, strict=False):
            self.folded[name] = self._fold(value, type_)
        self.levels = self._levels()
        self.projected: dict[str, ir.Value] = {}
        """For a dense layer over joined data and state, the data's share of its sum, folded."""
        self.lengths = self.sizes.lengths(self.length)

    # --- what goes where --------------------------------------------------------------------------------------------

    def _levels(self) -> dict[str, Level]:
        layer, levels = self.layer, {}
        for name in layer.data:
            levels[name] = Level.DATA
        for name in layer.given:
            levels[name] = Level.GIVEN
        for state in layer.states:
            levels[state.name] = Level.STATE
        if layer.step is not None:
            levels[layer.step] = Level.STATE
        for node in layer.body.nodes:
            kinds = {levels[v] for v in node.inputs}
            level = max(kinds, default=Level.WEIGHTS)
            if level is Level.DATA and Level.GIVEN in kinds:
                # Time is folded into the batch for data, and what is given would have to be repeated for it.
                level = Level.STATE
            for i in range(len(node.outputs)):
                levels[node.output(i)] = level
        needed = {s.next for s in layer.states}
        for node in reversed(layer.body.nodes):
            if any(node.output(i) in needed for i in range(len(node.outputs))):
                needed.update(node.inputs)
        for node in layer.body.nodes:
            outputs = [node.output(i) for i in range(len(node.outputs))]
            behind = levels[outputs[0]] is Level.STATE and not needed.intersection(outputs)
            # `step` is no sample's own, and what is given would have to be repeated: both stay in the loop.
            if behind and layer.step not in node.inputs and all(levels[v] is not Level.GIVEN for v in node.inputs):
                for name in outputs:
                    levels[name] = Level.AFTER
        return levels

    def _level(self, node: Node) -> Level:
        return self.levels[node.output()]

    # --- layout -----------------------------------------------------------------------------------------------------

    def _fold(self, value: ir.Value, type_: TensorType) -> ir.Value:
        """[batch, T, ...] to [T batch, ...]."""
        op = self.op
        turned = op.Transpose(value, perm=[1, 0, *range(2, type_.rank + 1)])
        return op.Reshape(turned, self._shape([None], type_.shape[1:]))

    def _shape(self, front: Sequence[Dim | None], dims: Sequence[Dim]) -> ir.Value:
        """Return a shape to reshape to; None stands for -1."""
        parts = [-1 if d is None else d for d in (*front, *dims)]
        if all(isinstance(d, int) for d in parts):
            return self.op.constant(parts)
        return self.op.Concat(*(self.op.constant([d]) if isinstance(d, int) else self.sizes.dim(d) for d in parts), axis=0)

    def _stacked(self, folded: ir.Value, type_: TensorType) -> ir.Value:
        """[T batch, ...] to [T, batch, ...]."""
        if isinstance(self.length, int):
            return self.op.Reshape(folded, self._shape([self.length, None], type_.shape))
        shape = self.op.Concat(
            self.sizes.dim(self.length), self.op.constant([-1]), *(self.sizes.dim(d) for d in type_.shape), axis=0
        )
        return self.op.Reshape(folded, shape)

    def _flat(self, stacked: ir.Value, type_: TensorType) -> ir.Value:
        """[T, batch, ...] to [T batch, ...]."""
        return self.op.Reshape(stacked, self._shape([None], type_.shape))

    # --- the parts --------------------------------------------------------------------------------------------------

    def run(self) -> tuple[ir.Value, ...]:
        inside = [n for n in self.layer.body.nodes if self._level(n) is Level.STATE]
        behind = [n for n in self.layer.body.nodes if self._level(n) is Level.AFTER]
        for node in self.layer.body.nodes:
            level = self._level(node)
            if level in (Level.WEIGHTS, Level.GIVEN):
                self._emit(node, self.op, self.outer, self.sizes)
            elif level is Level.DATA:
                self._emit(node, self.op, {**self.outer, **self.folded}, self.folded_sizes, into=self.folded)
        self._project(inside)
        scanned = self._scanned(inside)
        wanted = self._wanted(behind)
        starts = [self._start(s) for s in self.layer.states]
        if self.ctx.options.unroll:
            finals, stacks = self._unrolled(inside, scanned, wanted, starts)
        else:
            finals, stacks = self._scan(inside, scanned, wanted, starts)
        for name, stack in zip(wanted, stacks, strict=True):
            self.folded[name] = self._flat(stack, self.types[name])
        for node in behind:
            self._emit(node, self.op, {**self.outer, **self.folded}, self.folded_sizes, into=self.folded)
        if self.ctx.options.carry:
            for state, start, final in zip(self.layer.states, starts, finals, strict=True):
                if state.name not in self.initial:
                    self.ctx.lowered.carries[f"{self.ctx.name}.{state.name}"] = (start, final)
        sequences = [self._result(o.value) for o in self.layer.body.outputs]
        return (*sequences, *finals)

    def _emit(
        self, node: Node, op: Ops, values: Mapping[str, ir.Value], sizes: Sizes, into: dict[str, ir.Value] | None = None
    ) -> None:
        """Lower one node of the body into a graph."""
        store = values if into is None else into
        assert isinstance(store, dict)
        lowered = self.ctx.lowered if op is self.op else replace(self.ctx.lowered, ops=op, updates={})
        types = tuple(self.types[v] for v in node.inputs)
        context = Context(node, types, lowered, sizes, self.ctx.options, f"{self.ctx.name}.")
        weights = {role: self.w[name] for role, name in node.weights.items()}
        names = {role: self.ctx.node.weights[name] for role, name in node.weights.items()}
        context.node = node.model_copy(update={"weights": names})
        for i, value in enumerate(context.run([values[v] for v in node.inputs], weights)):
            store[node.output(i)] = value
        if op is not self.op and lowered.updates:
            raise LoweringError(
                f"{context.name}: batch normalisation inside the recurrence would need statistics of every step; use `layernorm`"
            )

    def _project(self, inside: Sequence[Node]) -> None:
        """Take the data's share of `(x, h) -> concat -> dense` out of the loop."""
        makers = {n.output(): n for n in self.layer.body.nodes}
        for node in inside:
            if not isinstance(node.layer, Dense) or self.types[node.inputs[0]].rank != 1:
                continue
            joined = makers.get(node.inputs[0])
            if joined is None or not isinstance(joined.layer, Concat):
                continue
            total: ir.Value | None = None
            for name, begin, end in self._parts(joined):
                if self.levels[name] not in (Level.DATA, Level.WEIGHTS):
                    continue
                weight = self.op.Slice(self.w[node.weights["weight"]], [begin], [end], [1])
                if self.levels[name] is Level.DATA:
                    share = self.op.Gemm(self.folded[name], weight, transB=1)
                else:
                    share = self.op.Gemm(self.op.Unsqueeze(self.outer[name], [0]), weight, transB=1)
                total = share if total is None else self.op.Add(total, share)
            if total is None:
                continue
            if "bias" in node.weights:
                total = self.op.Add(total, self.w[node.weights["bias"]])
            self.projected[node.name] = total

    def _parts(self, joined: Node) -> list[tuple[str, int, int]]:
        """Return each input of a concat with the columns that it takes."""
        parts, at = [], 0
        for name in joined.inputs:
            size = self.types[name].shape[0]
            assert isinstance(size, int)
            parts.append((name, at, at + size))
            at += size
        return parts

    def _dense_in_loop(self, node: Node, op: Ops, values: dict[str, ir.Value]) -> bool:
        """Lower a dense layer whose data's share is known: only the states' share is left to add."""
        share = values.get(f"{node.name}/share")
        if share is None:
            return False
        joined = next(n for n in self.layer.body.nodes if n.output() == node.inputs[0])
        total = share
        for name, begin, end in self._parts(joined):
            if self.levels[name] in (Level.DATA, Level.WEIGHTS):
                continue
            weight = self.outer.setdefault(
                f"{node.name}/{begin}", self.op.Slice(self.w[node.weights["weight"]], [begin], [end], [1])
            )
            total = op.Gemm(values[name], weight, total, transB=1)
        values[node.output()] = total
        return True

    def _scanned(self, inside: Sequence[Node]) -> dict[str, ir.Value]:
        """Return what the loop reads step by step, stacked [T, batch, ...]."""
        needed: dict[str, ir.Value] = {}
        for node in inside:
            if node.name in self.projected:
                share = self.projected[node.name]
                type_ = node.outputs[0]
                needed[f"{node.name}/share"] = self._stacked(share, type_) if self._varies(node) else share
                continue
            for name in node.inputs:
                if self.levels[name] is Level.DATA and name not in needed and not self._only_projected(name, inside):
                    needed[name] = self._stacked(self.folded[name], self.types[name])
        for state in self.layer.states:
            if self.levels[state.next] is Level.DATA:
                needed.setdefault(state.next, self._stacked(self.folded[state.next], self.types[state.next]))
        if self.layer.step is not None:
            op = self.op
            needed[self.layer.step] = op.Range(op.constant(0), op.Squeeze(self.sizes.dim(self.length), [0]), op.constant(1))
        if self.lengths is not None:
            op = self.op
            steps = op.Range(op.constant(0), op.Squeeze(self.sizes.dim(self.length), [0]), op.constant(1))
            needed["/valid"] = op.Less(op.Unsqueeze(steps, [1]), op.Unsqueeze(self.lengths, [0]))
        return needed

    def _varies(self, node: Node) -> bool:
        joined = next(n for n in self.layer.body.nodes if n.output() == node.inputs[0])
        return any(self.levels[v] is Level.DATA for v in joined.inputs)

    def _only_projected(self, name: str, inside: Sequence[Node]) -> bool:
        """Return whether the loop needs a value only for concats whose dense layers have its share already."""
        return all(self._idle_concat(n, inside) for n in inside if name in n.inputs)

    def _idle_concat(self, node: Node, inside: Sequence[Node]) -> bool:
        if not isinstance(node.layer, Concat):
            return False
        users = [n for n in self.layer.body.nodes if node.output() in n.inputs]
        outputs = {o.value for o in self.layer.body.outputs} | {s.next for s in self.layer.states}
        return node.output() not in outputs and all(u.name in self.projected for u in users)

    def _wanted(self, behind: Sequence[Node]) -> list[str]:
        """Return the loop's values that are needed behind it, in order."""
        names = [v for n in behind for v in n.inputs] + [o.value for o in self.layer.body.outputs]
        return list(dict.fromkeys(n for n in names if self.levels[n] is Level.STATE))

    def _start(self, state: State) -> ir.Value:
        """Return what a state starts from: [batch, ...]."""
        if state.name in self.initial:
            return self.initial[state.name]
        op, dims = self.op, state.type.shape
        if self.ctx.options.carry:
            value = ir.Value(
                name=f"{self.ctx.name}.{state.name}",
                type=ir.TensorType(DTYPES[state.type.dtype]),
                shape=ir.Shape(["batch", *(d if isinstance(d, int) else str(d) for d in dims)]),
            )
            return value
        shape = op.Concat(self.sizes.batch(), *(self.sizes.dim(d) for d in dims), axis=0)
        if state.start is not None:
            return op.Expand(self.outer[state.start], shape)
        assert state.init is not None
        import numpy as np

        if state.init.kind == "constant":
            return op.Expand(op.constant(np.float32(state.init.value)), shape)
        return op.Expand(op.constant(state.init.sample(state.init.shape, (1, 1), None).astype(np.float32)), shape)  # type: ignore[union-attr, arg-type]

    def _step(
        self, op: Ops, inside: Sequence[Node], values: dict[str, ir.Value], wanted: Sequence[str]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Lower one step: return the next states, and what is needed behind the loop."""
        for node in inside:
            if self._idle_concat(node, inside) or self._dense_in_loop(node, op, values):
                continue
            self._emit(node, op, values, self.sizes if op is self.op else _Inner(self.sizes))
        valid = values.get("/valid")
        following = []
        for state in self.layer.states:
            value = values.get(state.next)
            value = self.outer[state.next] if value is None else value
            if not self.types[state.next].batch:
                value = op.Expand(value, op.Shape(values[state.name]))
            if valid is not None:
                axes = list(range(1, state.type.rank + 1))
                value = op.Where(op.Unsqueeze(valid, axes) if axes else valid, value, values[state.name])
            elif value in values.values() and value is values.get(state.name):
                value = op.Identity(value)
            following.append(value)
        return following, [values[name] for name in wanted]

    def _scan(
        self, inside: Sequence[Node], scanned: Mapping[str, ir.Value], wanted: Sequence[str], starts: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        moving = {k: v for k, v in scanned.items() if not k.endswith("/share") or len(v.shape or ()) == 3}
        inputs = [(s.name, DTYPES[s.type.dtype], self._dims(s.type)) for s in self.layer.states]
        for name, value in moving.items():
            assert value.dtype is not None
            inputs.append((name, value.dtype, tuple((value.shape or ir.Shape([]))[1:]) if value.shape is not None else None))
        body = self.op.subgraph(inputs, f"{self.ctx.name}/step")
        values = {**self.outer, **{k: v for k, v in scanned.items() if k not in moving}}
        values |= {name: value for (name, _, _), value in zip(inputs, body.graph.inputs, strict=True)}
        following, out = self._step(body, inside, values, wanted)
        results: list[ir.Value] = []
        for value in (*following, *out):
            # Scan wants each output to be a value of the body's own, and each once.
            own = value.producer() is not None and value.graph is body.graph and not any(value is r for r in results)
            results.append(value if own else body.Identity(value))
        body.graph.outputs.extend(results)
        backwards = [1] if self.layer.reverse else [0]
        made = self.op.emit(
            "Scan",
            [*starts, *moving.values()],
            {
                "body": body.graph,
                "num_scan_inputs": len(moving),
                "scan_input_directions": backwards * len(moving),
                "scan_output_directions": backwards * len(out),
            },
            outputs=len(results),
        )
        made = [made] if len(results) == 1 else list(made)
        return made[: len(starts)], made[len(starts) :]

    def _dims(self, type_: TensorType) -> tuple[int | str, ...]:
        return ("batch", *(d if isinstance(d, int) else str(d) for d in type_.shape))

    def _unrolled(
        self, inside: Sequence[Node], scanned: Mapping[str, ir.Value], wanted: Sequence[str], starts: Sequence[ir.Value]
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        if not isinstance(self.length, int):
            raise LoweringError(
                f"{self.ctx.name} cannot be unrolled: its length `{self.length}` is symbolic; declare the input with a fixed length"
            )
        op, states = self.op, list(starts)
        steps: list[list[ir.Value]] = []
        order = range(self.length - 1, -1, -1) if self.layer.reverse else range(self.length)
        for t in order:
            values = dict(self.outer)
            for name, value in scanned.items():
                still = name.endswith("/share") and len(value.shape or ()) != 3
                values[name] = value if still else op.Gather(value, op.constant(t), axis=0)
            values |= {s.name: v for s, v in zip(self.layer.states, states, strict=True)}
            states, out = self._step(op, inside, values, wanted)
            steps.append(out)
        if self.layer.reverse:
            steps.reverse()
        stacks = [
            op.Concat(*(op.Unsqueeze(step[i], [0]) for step in steps), axis=0) for i in range(len(wanted))
        ]
        return states, stacks

    def _result(self, name: str) -> ir.Value:
        """Return a result as [batch, T, ...], with zeros in the padding."""
        op, type_ = self.op, self.types[name]
        if name in self.folded:
            stacked = self._stacked(self.folded[name], type_)
        else:
            shape = op.Concat(self.sizes.dim(self.length), self.sizes.batch(), *(self.sizes.dim(d) for d in type_.shape), axis=0)
            stacked = op.Expand(self.outer[name] if not type_.batch else op.Unsqueeze(self.outer[name], [0]), shape)
        value: ir.Value = op.Transpose(stacked, perm=[1, 0, *range(2, type_.rank + 2)])
        if self.lengths is None:
            return value
        keep = self.ctx.mask(value, TensorType(shape=(self.length, *(1,) * type_.rank)))
        return op.Where(op.Greater(keep, 0.5), value, op.constant(0, value.dtype))


class _Inner(Sizes):
    """The sizes of the loop's body: those of the graph around it, computed there once."""

    def __init__(self, outer: Sizes) -> None:
        # What sizes need is computed around the loop, once.
        self.ops, self.masks, self.inputs = outer.ops, outer.masks, outer.inputs
        self._outer = outer
        self._masks = outer._masks

    def batch(self) -> ir.Value:
        return self._outer.batch()

    def dim(self, dim: Dim) -> ir.Value:
        return self._outer.dim(dim)

    def lengths(self, dim: Dim) -> ir.Value | None:
        return self._outer.lengths(dim)
