"""Sequences that a network says itself, and how well they agree with those that it should have said."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from nnspec.ir import Input, Node
from nnspec.layers.base import Layer, Lowering, Natural, Positive, ShapeError, TensorType
from nnspec.layers.causality import trace
from nnspec.layers.ctc import indices
from nnspec.layers.ctc_decoding import NOTHING
from nnspec.layers.dense import Embedding, OneHot
from nnspec.layers.metric import Accuracy, Choice, number
from nnspec.layers.scoring import NUMBER, Score, batched, mean, valid

FAR = 1.0e9
"""A distance that nothing has."""


class Generate(Layer, keyword="generate"):
    """Let a decoder go on by itself: `answer = generate(logits, feed, begin = 1, end = 2, length = 20)`.

    `logits` [N, V] are a decoder's, step by step from its input `feed` int[N], which in training holds what it should
    have said before (teacher forcing). Here it holds `begin` and then what the decoder says, until it says `end`. The
    result int[length] holds that `end`, if it came, and -1 behind it; a second result is the log probability of what it
    says: `answer, score = generate(...)`. What does not depend on `feed`, such as an encoder, is computed once.
    """

    arity = 2
    elementwise = True
    leading = True
    begin: Natural = 1
    """The symbol that the decoder is fed first."""
    end: Natural = 2
    """The symbol after which it says no more."""
    length: Positive = 20
    """How many symbols it says at most, `end` included."""
    beam: Positive = 1
    """How many sequences are followed at once; 1 always takes the likeliest next symbol."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Sequences in the beam rank by log probability / symbols^length_penalty: above 0, longer ones gain."""
    causal: bool = False
    """Whether the decoder is known to see earlier steps only, where the compiler cannot tell."""

    def infer(self, *x: TensorType) -> tuple[TensorType, ...]:
        logits, feed = x
        if logits.dtype != "float32" or logits.rank != 2 or not isinstance(logits.shape[1], int):
            raise ShapeError(
                f"`generate` needs logits [N, V], one row for each step, and gets {logits}",
                input=0,
                label=f"gives {logits}",
                help="`dense(vocabulary)` after the decoder gives one row for each step",
            )
        if logits.shape[:1] != feed.shape:
            raise ShapeError(
                f"`generate` needs one row of logits for each step of the `feed`, and they are {logits} and {feed}",
                input=1,
                label=f"gives {feed}",
            )
        if self.end >= logits.shape[1]:
            raise ShapeError(
                f"the decoder never says {self.end}, the `end`: it has {logits.shape[1]} symbols",
                field="end",
                label=f"at most {logits.shape[1] - 1}",
            )
        batch = logits.batch or feed.batch
        return TensorType(shape=(self.length,), dtype="int64", batch=batch), TensorType(shape=(), batch=batch)

    def examine(self, inputs: Sequence[Input], nodes: Sequence[Node], *x: str) -> None:
        logits, feed = x
        path = trace(inputs, nodes, logits, feed, check=not self.causal)
        said = next(t.shape[1] for n in nodes for i, t in enumerate(n.outputs) if n.output(i) == logits)
        for node in path.nodes:
            known = _symbols_known(node.layer) if node.inputs[:1] == (feed,) else None
            if known is None:
                continue
            if self.begin >= known:
                raise ShapeError(
                    f"`{node.name}` knows {known} symbols, and `begin` is {self.begin}",
                    field="begin",
                    label=f"at most {known - 1}",
                )
            if isinstance(said, int) and said > known:
                raise ShapeError(
                    f"the decoder says {said} different symbols, and `{node.name}`, which is fed them, knows {known}",
                    input=0,
                    help=f"give the logits and the `{node.layer.keyword}` equally many",
                )

    def window(self, *x: TensorType) -> str:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.generate(self)


def _symbols_known(layer: Layer) -> int | None:
    """Return how many different symbols a layer takes, if it takes symbols."""
    match layer:
        case Embedding():
            return layer.vocabulary
        case OneHot():
            return layer.classes
    return None


class TokenAccuracy(Accuracy, keyword="token_accuracy"):
    """How often a symbol is right: `token_accuracy(answer, label)`; each symbol of the label counts.

    What is compared with the label int[L] is a sequence of symbols int[N], as `generate` or `ctc_greedy` gives it, or
    the logits [L, V] of a decoder that is fed the label; of these it is `accuracy`. Symbols stand at the same place.
    """

    def classes(self, *x: TensorType) -> int | None:
        return None if x[0].dtype == "int64" else super().classes(*x)

    def counted(self, *x: TensorType) -> TensorType:
        return _symbols(self, x) if x[0].dtype == "int64" else super().counted(*x)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        if ctx.inputs[0].dtype != "int64":
            return super().lower(ctx, *x, **w)
        op, over = ctx.op, self.counted(*ctx.inputs)
        said, label = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
        said = op.Slice(op.Concat(said, _nothing(op, label), axis=1), [0], ctx.dim(over.shape[0]), [1])
        return mean(ctx, number(ctx, op.Equal(said, label)), over, valid(ctx, label, over, label, self.ignore))


class SequenceAccuracy(Choice, keyword="sequence_accuracy"):
    """How often a whole sequence is right: `sequence_accuracy(answer, label)`; padding need not be right.

    What is compared with the label int[L] are logits [L, V], or a sequence of symbols int[N], as `generate` or
    `ctc_greedy` gives it; that is right if it holds the label's symbols and no more.
    """

    def classes(self, *x: TensorType) -> int | None:
        return None if x[0].dtype == "int64" else super().classes(*x)

    def infer(self, *x: TensorType) -> TensorType:
        # Each sample counts once, however long it is, so that the mean of an epoch needs no weights.
        self.counted(*x)
        return NUMBER

    def counted(self, *x: TensorType) -> TensorType:
        return _symbols(self, x) if x[0].dtype == "int64" else super().counted(*x)

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        op = ctx.op
        if ctx.inputs[0].dtype == "int64":
            wrong = self._differs(ctx, *(batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True)))
            axes = [1]
        else:
            over, axis, scores, label, keep = self._chosen(ctx, x)
            wrong = number(ctx, op.Not(self.right(ctx, scores, label, axis)))
            wrong = wrong if keep is None else op.Mul(wrong, keep)
            axes = list(range(1, over.rank + 1))
        wrong = op.ReduceSum(wrong, axes, keepdims=0) if axes else wrong
        return op.ReduceMean(number(ctx, op.Less(wrong, 0.5)), keepdims=0)

    def _differs(self, ctx: Lowering, said: Any, label: Any) -> Any:
        """Return 1 where two sequences differ, both with nothing behind their ends."""
        op = ctx.op
        said, label = (_ended(ctx, v, t) for v, t in zip((said, label), ctx.inputs, strict=True))
        a = op.Concat(said, _nothing(op, label), axis=1)
        b = op.Concat(label, _nothing(op, said), axis=1)
        wrong = op.Not(op.Equal(a, b))
        if self.ignore is not None:
            wrong = op.And(wrong, op.Not(op.Equal(b, op.constant(self.ignore))))
        return number(ctx, wrong)


class EditDistance(Score, keyword="edit_distance"):
    """Symbols to insert, delete or replace: `edit_distance(answer, label)`; the mean over samples.

    Both are sequences of symbols, int[N] and int[L], each up to its length or its first negative number, as
    `ctc_greedy`, `ctc_beam` and `generate` give them. Levenshtein (1966), "Binary codes capable of correcting
    deletions, insertions, and reversals".
    """

    normalize: bool = False
    """Whether to divide the sum of the distances by that of the labels' lengths: the symbol or word error rate."""

    def counted(self, *x: TensorType) -> TensorType:
        _symbols(self, x)
        return TensorType(shape=(), batch=any(t.batch for t in x))

    def infer(self, *x: TensorType) -> TensorType | tuple[TensorType, ...]:
        self.counted(*x)
        return (NUMBER, NUMBER) if self.normalize else NUMBER

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import onnx_ir as ir

        op = ctx.op
        said, label = (_ended(ctx, batched(ctx, v, t), t) for v, t in zip(x, ctx.inputs, strict=True))
        sizes = [_length(op, v) for v in (said, label)]
        distance = self._distance(ctx, said, label, *sizes)
        if not self.normalize:
            return op.ReduceMean(distance, [0], keepdims=0)
        symbols = op.Cast(op.ReduceSum(sizes[1], [0], keepdims=0), to=int(ir.DataType.FLOAT))
        return op.Div(op.ReduceSum(distance, [0], keepdims=0), op.Max(symbols, 1.0)), symbols

    def _distance(self, ctx: Lowering, said: Any, label: Any, size: Any, length: Any) -> Any:
        """Return the distance of each sample [batch], going through the table of prefixes by its diagonals.

        On the k-th diagonal, column i stands for the first i symbols said and the first k - i of the label; each
        follows from the two diagonals before, all columns at once.
        """
        import onnx_ir as ir

        op, float_ = ctx.op, ir.DataType.FLOAT
        width, height = (ctx.dim(t.shape[0]) for t in ctx.inputs)
        both = op.Add(width, height)
        column = op.Slice(said, [0], [1], [1])
        far = op.Expand(op.constant([[FAR]]), op.Shape(op.Concat(column, said, axis=1)))
        first = op.Concat(op.Mul(op.Slice(far, [0], [1], [1]), 0.0), op.Slice(far, [1], [2**31 - 1], [1]), axis=1)
        # The label backwards, with room on both sides, so that each diagonal meets a piece of it in the right order.
        room = _nothing(op, said)
        backwards = op.Slice(op.Concat(room, label, room, axis=1), [-1], [-(2**31)], [1], [-1])
        last = op.Add(size, length)
        body = op.subgraph(
            [
                ("before", float_, ("batch", None)),
                ("earlier", float_, ("batch", None)),
                ("found", float_, ("batch",)),
                ("k", ir.DataType.INT64, ()),
            ],
            f"{ctx.name}/diagonal",
        )
        before, earlier, found, k = body.graph.inputs
        begin = body.Sub(body.Add(both, body.constant([1])), body.Unsqueeze(k, [0]))
        piece = body.Slice(backwards, begin, body.Add(begin, width), [1])
        # Nothing equals nothing in the room around the label, but no way through the table gets there.
        replaced = body.Cast(body.Not(body.Equal(said, piece)), to=int(float_))
        inserted = body.Add(before, 1.0)
        shorter = [body.Slice(v, [0], [-1], [1]) for v in (inserted, earlier)]
        inner = body.Min(body.Slice(inserted, [1], [2**31 - 1], [1]), shorter[0], body.Add(shorter[1], replaced))
        now = body.Concat(body.Slice(inserted, [0], [1], [1]), inner, axis=1)
        end = body.Squeeze(body.GatherElements(now, body.Unsqueeze(size, [1]), axis=1), [1])
        body.graph.outputs.extend([now, body.Identity(before), body.Where(body.Equal(k, last), end, found)])
        steps = op.Range(op.constant(1), op.Add(op.Squeeze(both, [0]), 1), op.constant(1))
        zeros = op.Cast(op.Mul(last, 0), to=int(float_))
        made = op.emit("Scan", [first, far, zeros, steps], {"body": body.graph, "num_scan_inputs": 1}, outputs=3)
        return made[2]


def _symbols(layer: Layer, x: tuple[TensorType, ...]) -> TensorType:
    """Return the type of the label; raise ShapeError where one of two is no sequence of symbols."""
    for at, t in enumerate(x):
        if t.dtype != "int64" or t.rank != 1:
            raise ShapeError(
                f"`{layer.keyword}` compares sequences of whole numbers, and gets {t}",
                input=at,
                label=f"gives {t}",
                help="`ctc_greedy`, `ctc_beam` and `generate` decode logits, `argmax` takes the likeliest of each step",
            )
    return TensorType(shape=x[1].shape, batch=any(t.batch for t in x))


def _ended(ctx: Lowering, value: Any, type_: TensorType) -> Any:
    """Return a sequence with nothing behind the end of each sample."""
    lengths = ctx.lengths(type_.shape[0])
    if lengths is None:
        return value
    inside = ctx.op.Less(indices(ctx, type_.shape[0], axes=[0]), ctx.op.Unsqueeze(lengths, [1]))
    return ctx.op.Where(inside, value, ctx.op.constant(NOTHING))


def _nothing(op: Any, like: Any) -> Any:
    return op.Expand(op.constant(NOTHING), op.Shape(like))


def _length(op: Any, value: Any) -> Any:
    """Return how many symbols stand before the first negative number, [batch]."""
    import onnx_ir as ir

    ended = op.CumSum(op.Cast(op.Less(value, op.constant(0)), to=int(ir.DataType.INT64)), op.constant(1))
    before = op.Equal(ended, op.constant(0))
    return op.ReduceSum(op.Cast(before, to=int(ir.DataType.INT64)), [1], keepdims=0)
