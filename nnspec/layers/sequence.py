"""Sequences that a network says itself, and how well they agree with those that it should have said."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from nnspec.ir import Input, Node
from nnspec.layers.base import Layer, Lowering, Natural, Positive, ShapeError, TensorType
from nnspec.layers.causality import trace
from nnspec.layers.dense import Embedding, OneHot


class Generate(Layer, keyword="generate"):
    """Let a decoder go on by itself: `answer = generate(logits, feed, begin = 1, end = 2, length = 20)`.

    `logits` [N, V] are a decoder's, step by step from its input `feed` int[N], which in training holds what it should
    have said before (teacher forcing). Here it holds `begin` and then what the decoder says, until it says `end`. The
    result int[length] holds that `end`, if it came, and -1 behind it; a second result is the log probability of what it
    says: `answer, score = generate(...)`. What does not depend on `feed`, such as an encoder, is computed once.
    """

    arity = 2
    elementwise = True
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
        size = next(t for n in nodes for i, t in enumerate(n.outputs) if n.output(i) == logits).shape[1]
        for node in path.nodes:
            known = {Embedding: "vocabulary", OneHot: "classes"}.get(type(node.layer))
            limit = getattr(node.layer, known) if known is not None and node.inputs[0] == feed else None
            if limit is None:
                continue
            if self.begin >= limit:
                raise ShapeError(
                    f"`{node.name}` knows {limit} symbols, and `begin` is {self.begin}",
                    field="begin",
                    label=f"at most {limit - 1}",
                )
            if isinstance(size, int) and size > limit:
                raise ShapeError(
                    f"the decoder says {size} different symbols, and `{node.name}`, which it feeds, knows {limit}",
                    input=0,
                    help=f"give the logits and `{node.layer.keyword}` equally many symbols",
                )

    def window(self, *x: TensorType) -> str:
        return "all"

    def lower(self, ctx: Lowering, *x: Any, **w: Any) -> Any:
        return ctx.generate(self)
