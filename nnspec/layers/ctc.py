"""Connectionist temporal classification: labels shorter than the sequence they are read from, without an alignment.

Graves, Fernández, Gomez and Schmidhuber (2006), "Connectionist temporal classification". An alignment gives each step a
symbol or the blank; collapsing repeated symbols and then dropping blanks gives the label. A symbol that the label holds
twice in a row needs a blank between.
"""

from collections.abc import Sequence
from typing import Any

from nnspec.dims import Dim
from nnspec.layers.base import Layer, Lowering, Natural, ShapeError, TensorType
from nnspec.layers.scoring import NUMBER, Score, batched, real

NEVER = -1.0e30
"""The log probability of what cannot be: finite, so that neither sums nor differences of it become NaN."""


def check_logits(layer: Layer, logits: TensorType, blank: int) -> None:
    """Raise ShapeError where logits are not [T, classes] with a class for the blank."""
    real(layer, logits, 0, "logits")
    if logits.rank != 2:
        raise ShapeError(
            f"`{layer.keyword}` needs logits [T, classes], one row for each step, and gets {logits}",
            input=0,
            label=f"gives {logits}",
            help="`dense(classes)` after the last recurrent layer gives one row for each step",
        )
    classes = logits.shape[1]
    if isinstance(classes, int) and not blank < classes:
        raise ShapeError(
            f"the blank is class {blank}, and there are {classes} classes",
            field="blank",
            label=f"at most {classes - 1}",
        )


class Ctc(Score, keyword="ctc"):
    """CTC loss of logits [T, classes] and a label int[L]: `ctc(logits, label)`; -log P(label | logits) / L.

    P sums over all alignments. Declare input and label `masked` where their lengths vary. The label never holds the
    blank. The result is the mean over samples, each divided by its label's length. A label that T steps cannot hold
    (they must be at least as many as its symbols, and one more for each symbol that follows its equal) makes the loss
    infinite; no gradient flows from such a sample.
    """

    blank: Natural = 0
    """The class that stands for no symbol."""
    zero_infinity: bool = False
    """Whether a label that cannot be aligned counts as a loss of 0."""

    def classes(self, *x: TensorType) -> int | None:
        size = x[0].shape[1]
        return size if isinstance(size, int) else None

    def counted(self, *x: TensorType) -> TensorType:
        logits, label = x
        check_logits(self, logits, self.blank)
        if label.dtype != "int64" or label.rank != 1:
            raise ShapeError(
                f"`ctc` needs a sequence of whole numbers as its label, and gets {label}",
                input=1,
                label=f"gives {label}",
                help="declare the target as `target label: int[L] masked`",
            )
        steps, length = logits.shape[0], label.shape[0]
        if isinstance(steps, int) and isinstance(length, int) and length > steps:
            raise ShapeError(
                f"a label of {length} symbols cannot be aligned with {steps} steps",
                input=1,
                label=f"at most {steps}",
                help="use fewer or smaller strides before, or shorter labels",
            )
        return TensorType(shape=(), batch=True)

    def infer(self, *x: TensorType) -> TensorType:
        self.counted(*x)
        return NUMBER

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        import numpy as np
        import onnx_ir as ir

        op = ctx.op
        logits, label = (batched(ctx, v, t) for v, t in zip(x, ctx.inputs, strict=True))
        steps, symbols = ctx.inputs[0].shape[0], ctx.inputs[1].shape[0]
        lengths = ctx.lengths(symbols)
        if lengths is None:
            lengths = op.Expand(ctx.dim(symbols), op.Shape(label, start=0, end=1))
        inside = op.Less(indices(ctx, symbols, axes=[0]), op.Unsqueeze(lengths, [1]))
        label = op.Where(inside, label, op.constant(0))
        # [batch, L]: whether a symbol follows its equal. The first follows nothing.
        first = op.Slice(label, [0], [1], [1])
        before = op.Concat(op.Sub(-1, first), op.Slice(label, [0], [-1], [1]), axis=1)
        repeats = op.Equal(label, before)
        final = self._forward(ctx, logits, label, repeats, ctx.lengths(steps))
        ends = [op.GatherElements(alpha, op.Unsqueeze(lengths, [1]), axis=1) for alpha in final]
        loss = op.Neg(op.Squeeze(log_sum(ctx, op, *ends), [1]))
        # What no alignment reaches keeps a share of NEVER, which no sum of real log probabilities comes near.
        possible = op.Less(loss, -NEVER / 10)
        loss = op.Div(loss, op.Cast(op.Max(lengths, op.constant([1])), to=int(ir.DataType.FLOAT)))
        loss = op.Where(possible, loss, op.constant(np.float32(0.0 if self.zero_infinity else np.inf)))
        return op.ReduceMean(loss, [0], keepdims=0)

    def _forward(self, ctx: Lowering, logits: Any, label: Any, repeats: Any, frames: Any) -> Any:
        """Return the log probabilities [batch, L + 1] of all alignments up to the last step.

        Column i holds those that have read i symbols: first the ones that end with a blank, then the ones that end
        with symbol i itself, of which column 0 has none.
        """
        import onnx_ir as ir

        op = ctx.op
        scores = op.Max(op.LogSoftmax(op.Transpose(logits, perm=[1, 0, 2]), axis=2), NEVER)
        size = op.Concat(op.Shape(scores, start=0, end=2), op.Shape(label, start=1, end=2), axis=0)
        symbols = op.GatherElements(scores, op.Expand(op.Unsqueeze(label, [0]), size), axis=2)
        blanks = op.Slice(scores, [self.blank], [self.blank + 1], [2])
        # Without a blank between, a symbol cannot follow its equal.
        barrier = op.Where(repeats, op.constant(NEVER), op.constant(0.0))
        never = op.Expand(op.constant([[NEVER]]), op.Shape(label))
        edge = op.Slice(never, [0], [1], [1])
        moving: list[tuple[str, Any]] = [("blanks", blanks), ("symbols", symbols)]
        if frames is not None:
            valid = op.Less(indices(ctx, ctx.inputs[0].shape[0], axes=[1]), op.Unsqueeze(frames, [0]))
            moving.append(("valid", op.Unsqueeze(valid, [2])))
        states = [op.Concat(op.Mul(edge, 0.0), never, axis=1), op.Concat(edge, never, axis=1)]
        real_ = ir.DataType.FLOAT
        inputs = [("blank", real_, ("batch", None)), ("symbol", real_, ("batch", None))]
        inputs += [(name, v.dtype, ("batch", None)) for name, v in moving]
        body = op.subgraph(inputs, f"{ctx.name}/step")
        blank, symbol, e_blank, e_symbol, *valid_ = body.graph.inputs
        stay = body.Add(log_sum(ctx, body, blank, symbol), e_blank)
        shorter = body.Slice(symbol, [0], [-1], [1])
        came = log_sum(
            ctx,
            body,
            body.Slice(symbol, [1], [2**31 - 1], [1]),
            body.Slice(blank, [0], [-1], [1]),
            body.Add(shorter, barrier),
        )
        move = body.Concat(edge, body.Add(came, e_symbol), axis=1)
        after = [stay, move]
        if valid_:
            after = [body.Where(valid_[0], new, old) for new, old in zip(after, (blank, symbol), strict=True)]
        body.graph.outputs.extend(after)
        return op.emit(
            "Scan",
            [*states, *(v for _, v in moving)],
            {"body": body.graph, "num_scan_inputs": len(moving)},
            outputs=2,
        )


def indices(ctx: Lowering, dim: Dim, axes: Sequence[int]) -> Any:
    """Return 0, 1, ... up to a dim, with further axes of size 1."""
    op = ctx.op
    return op.Unsqueeze(op.Range(op.constant(0), op.Squeeze(ctx.dim(dim), [0]), op.constant(1)), list(axes))


def log_sum(ctx: Lowering, op: Any, *values: Any) -> Any:
    """Return log(exp(a) + exp(b) + ...), element by element."""
    # The shift cancels out of value and gradient alike, so no gradient need flow through it.
    top = ctx.stop(op.Max(*values), op)
    total = None
    for value in values:
        part = op.Exp(op.Sub(value, top))
        total = part if total is None else op.Add(total, part)
    return op.Add(op.Log(total), top)
