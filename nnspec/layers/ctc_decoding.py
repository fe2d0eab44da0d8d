"""Reading a label off the logits of a network trained with CTC: the likeliest alignment, or a beam of labels."""

from typing import Any

from nnspec.layers.base import Layer, Lowering, Natural, Positive, ShapeError, TensorType
from nnspec.layers.ctc import NEVER, check_logits, indices, log_sum

NOTHING = -1
"""What fills a decoded sequence behind its end."""


class CtcGreedy(Layer, keyword="ctc_greedy"):
    """Label of the likeliest CTC alignment: `decoded = ctc_greedy(logits)`; repeats collapse, then blanks go.

    Logits [T, classes] give int[T], the label followed by -1, and as a second result its length:
    `decoded, length = ctc_greedy(logits)`.
    """

    leading = True
    blank: Natural = 0
    """The class that stands for no symbol."""

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        check_logits(self, x[0], self.blank)
        return (
            TensorType(shape=x[0].shape[:1], dtype="int64", batch=x[0].batch),
            TensorType(shape=(), dtype="int64", batch=x[0].batch),
        )

    def window(self, *x: TensorType) -> str | None:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        op, steps = ctx.op, ctx.inputs[0].shape[0]
        best = op.ArgMax(x[0], axis=2, keepdims=0)
        nothing = op.Expand(op.constant(NOTHING), op.Shape(best))
        before = op.Concat(op.Slice(nothing, [0], [1], [1]), op.Slice(best, [0], [-1], [1]), axis=1)
        keep = op.And(op.Not(op.Equal(best, before)), op.Not(op.Equal(best, op.constant(self.blank))))
        frames = ctx.lengths(steps)
        if frames is not None:
            keep = op.And(keep, op.Less(indices(ctx, steps, axes=[0]), op.Unsqueeze(frames, [1])))
        kept = op.Cast(keep, to=int(ir.DataType.INT64))
        # Each symbol moves to its place among those that are kept; the others meet in a column of their own.
        place = op.Where(keep, op.Sub(op.CumSum(kept, op.constant(1)), 1), ctx.dim(steps))
        rows = op.Concat(nothing, op.Slice(nothing, [0], [1], [1]), axis=1)
        decoded = op.Slice(op.ScatterElements(rows, place, best, axis=1), [0], [-1], [1])
        return decoded, op.ReduceSum(kept, [1], keepdims=0)


class CtcBeam(Layer, keyword="ctc_beam"):
    """Likeliest CTC label by prefix beam search: `decoded = ctc_beam(logits, beam = 8)`.

    The probability of a label sums over its alignments, so it can win over that of the likeliest single alignment.
    Logits [T, classes] give int[T], the label followed by -1, then its length and its log probability, as far as the
    beam has followed it: `decoded, length, score = ctc_beam(logits)`. After Hannun, Maas, Jurafsky and Ng (2014),
    "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs", without a language
    model.
    """

    leading = True
    beam: Positive = 8
    """How many labels are followed at once."""
    blank: Natural = 0
    """The class that stands for no symbol."""

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        check_logits(self, x[0], self.blank)
        if not isinstance(x[0].shape[1], int):
            raise ShapeError(f"`ctc_beam` needs to know the number of classes, and gets {x[0]}", input=0)
        batch = x[0].batch
        return (
            TensorType(shape=x[0].shape[:1], dtype="int64", batch=batch),
            TensorType(shape=(), dtype="int64", batch=batch),
            TensorType(shape=(), batch=batch),
        )

    def window(self, *x: TensorType) -> str | None:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        op, steps = ctx.op, ctx.inputs[0].shape[0]
        scores = op.Max(op.LogSoftmax(op.Transpose(x[0], perm=[1, 0, 2]), axis=2), NEVER)
        moving = [scores]
        frames = ctx.lengths(steps)
        if frames is not None:
            moving.append(op.Less(indices(ctx, steps, axes=[1]), op.Unsqueeze(frames, [0])))
        pair = op.Concat(op.Shape(x[0], start=0, end=1), op.constant([self.beam]), axis=0)
        every = op.Concat(pair, ctx.dim(steps), axis=0)
        # At first there is one prefix, the empty one; the other places of the beam hold what cannot be.
        empty = [0.0] + [NEVER] * (self.beam - 1)
        starts = [
            op.Expand(op.constant(NOTHING), every),
            op.Expand(op.constant(0), pair),
            op.Expand(op.constant(NOTHING), pair),
            op.Expand(op.constant(empty), pair),
            op.Expand(op.constant(NEVER), pair),
        ]
        inputs: list[tuple[str, Any, Any]] = [
            ("prefix", ir.DataType.INT64, ("batch", self.beam, None)),
            ("size", ir.DataType.INT64, ("batch", self.beam)),
            ("last", ir.DataType.INT64, ("batch", self.beam)),
            ("blank", ir.DataType.FLOAT, ("batch", self.beam)),
            ("symbol", ir.DataType.FLOAT, ("batch", self.beam)),
            ("scores", ir.DataType.FLOAT, ("batch", ctx.inputs[0].shape[1])),
            ("valid", ir.DataType.BOOL, ("batch",)),
        ]
        body = op.subgraph(inputs[: len(starts) + len(moving)], f"{ctx.name}/step")
        before, now = body.graph.inputs[: len(starts)], body.graph.inputs[len(starts) :]
        after = self._step(ctx, body, before, now[0], indices(ctx, steps, axes=[0, 1]))
        if len(now) > 1:
            # The prefixes have three axes, all else two.
            valid = [body.Unsqueeze(now[1], [1, 2]), *[body.Unsqueeze(now[1], [1])] * 4]
            after = [body.Where(on, new, old) for on, new, old in zip(valid, after, before, strict=True)]
        body.graph.outputs.extend(after)
        prefix, size, _, blank, symbol = op.emit(
            "Scan", [*starts, *moving], {"body": body.graph, "num_scan_inputs": len(moving)}, outputs=len(starts)
        )
        first = op.constant(0)
        score = op.Gather(log_sum(ctx, op, blank, symbol), first, axis=1)
        return op.Gather(prefix, first, axis=1), op.Gather(size, first, axis=1), score

    def _step(self, ctx: Lowering, op: Any, state: Any, scores: Any, places: Any) -> list[Any]:
        """Return the beam after one more step.

        Of each prefix [batch, beam, T] the beam knows its length, its last symbol, and the log probability of its
        alignments that end with a blank and of those that end with that symbol; `scores` are [batch, classes].
        """
        import onnx_ir as ir

        prefix, size, last, blank, symbol = state
        classes = ctx.inputs[0].shape[1]
        assert isinstance(classes, int)
        every = op.constant(list(range(classes)))
        known = op.GreaterOrEqual(last, op.constant(0))
        own = op.Max(last, op.constant(0))
        total = log_sum(ctx, op, blank, symbol)
        alive = op.Greater(total, NEVER / 2)
        # What a prefix is worth unchanged: after a blank, and after its last symbol once more.
        rest = op.Add(total, op.Slice(scores, [self.blank], [self.blank + 1], [1]))
        again = op.Where(known, op.Add(symbol, op.GatherElements(scores, own, axis=1)), op.constant(NEVER))
        # What it is worth with each symbol behind it. Its own last one needs a blank between.
        is_last = op.Equal(op.Unsqueeze(last, [2]), every)
        longer = op.Add(
            op.Where(is_last, op.Unsqueeze(blank, [2]), op.Unsqueeze(total, [2])), op.Unsqueeze(scores, [1])
        )
        longer = op.Where(op.Equal(every, op.constant(self.blank)), op.constant(NEVER), longer)
        # Where a prefix with a symbol behind it is another prefix of the beam, both are one.
        stem = op.Where(op.Equal(places, op.Unsqueeze(op.Sub(size, 1), [2])), op.constant(NOTHING), prefix)
        equal = op.Equal(op.Unsqueeze(prefix, [2]), op.Unsqueeze(stem, [1]))
        equal = op.ReduceMin(op.Cast(equal, to=int(ir.DataType.FLOAT)), [3], keepdims=0)
        child = op.And(op.Greater(equal, 0.5), op.Unsqueeze(op.And(known, alive), [1]))
        child = op.And(child, op.Unsqueeze(alive, [2]))
        at = op.Expand(op.Unsqueeze(own, [1]), op.Shape(child))
        gained = op.Where(child, op.GatherElements(longer, at, axis=2), op.constant(NEVER))
        again = log_sum(ctx, op, again, op.ReduceMax(gained, [1], keepdims=0))
        number = int(ir.DataType.FLOAT)
        merged = op.MatMul(op.Cast(child, to=number), op.Cast(is_last, to=number))
        longer = op.Where(op.Greater(merged, 0.5), op.constant(NEVER), longer)
        candidates = op.Concat(log_sum(ctx, op, rest, again), op.Reshape(longer, [0, -1]), axis=1)
        score, chosen = op.TopK(candidates, [self.beam], axis=1, outputs=2)
        behind = op.Sub(chosen, self.beam)
        grown = op.GreaterOrEqual(behind, op.constant(0))
        source = op.Where(grown, op.Div(behind, classes), chosen)
        new = op.Mod(op.Max(behind, op.constant(0)), classes)

        def follow(value: Any) -> Any:
            return op.GatherElements(value, source, axis=1)

        end = op.And(op.Equal(places, op.Unsqueeze(follow(size), [2])), op.Unsqueeze(grown, [2]))
        prefix = op.Where(end, op.Unsqueeze(new, [2]), op.GatherND(prefix, op.Unsqueeze(source, [2]), batch_dims=1))
        return [
            prefix,
            op.Add(follow(size), op.Cast(grown, to=int(ir.DataType.INT64))),
            op.Where(grown, new, follow(last)),
            op.Where(grown, op.constant(NEVER), follow(rest)),
            op.Where(grown, score, follow(again)),
        ]
