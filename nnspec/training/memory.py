"""What a training step needs of memory: state and batch, which stay, and tensors that live while the step runs.

What a kernel takes for itself while it runs is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnspec.ops import PORTABLE, Target
from nnspec.recipe import Recipe
from nnspec.training.fixed import fix_sizes, open_symbols, sizes_of
from nnspec.training.program import Program
from nnspec.training.step import build
from nnspec.training.timeline import Live, Timeline, size_of
from nnspec.training.work import number_of_nodes

_NODE = 8_000
"""Bytes of a session for each node of the graph, those in loops too: what is kept of it (5 KB) and what its first run
takes. Measured with ONNX Runtime 1.31 on graphs of 30 to 1,550 nodes; a rough figure, which matters where tensors are
small."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step needs at its peak, by what they are for."""

    batch: int
    weights: int
    optimizer: int
    second_copies: int
    """The other set of buffers: a step reads one and writes the other."""
    data: int
    activations: int
    """What lives at the peak besides, gradients included."""
    fragments: int
    """What the allocator holds beyond that: pieces of its memory that do not fit what is asked for, and its tables."""
    live: tuple[Live, ...]
    """What lives at the peak besides state and data, the largest first."""
    at: str
    """Where in the step the peak is: the name of the node."""
    session: int
    """What ONNX Runtime keeps of the graph itself, about, and the tensors that it computes when it opens it."""
    unknown: tuple[str, ...]
    """Sizes that no number is known of; tensors of such sizes are not counted."""

    @property
    def peak(self) -> int:
        """All of it."""
        parts = (self.weights, self.optimizer, self.second_copies, self.data, self.activations)
        return sum(parts) + self.fragments + self.session


def training_memory(
    recipe: Recipe, sizes: Mapping[str, int] | None = None, target: Target = PORTABLE
) -> TrainingMemory:
    """Predict the peak memory of one training step at the recipe's batch, on CPUs.

    `sizes` are those of other symbols; the step is the one made for `target`.
    """
    return measure_program(build(recipe, target), sizes_of(recipe, sizes))


def measure_program(program: Program, sizes: Mapping[str, int]) -> TrainingMemory:
    """Predict the peak memory of a program's step where symbols have these sizes."""
    model = fix_sizes(program.step, sizes)
    states = program.manifest["state"]
    of = {value.name: size_of(value) for value in model.graph.inputs}
    weights = sum(of.get(s["input"], 0) for s in states if s["kind"] in ("weight", "frozen", "buffer"))
    every = sum(of.get(s["input"], 0) for s in states)
    again = sum(of.get(s["input"], 0) for s in states if s["output"] is not None and not s["in_place"])
    # Each of the two sets of buffers has its own for the batch, so that one fills while the other is read.
    data = 2 * sum(of.get(i["name"], 0) for i in program.manifest["inputs"])
    bound = {s["output"] for s in states}
    done = program.manifest["work"]
    reuse, region = (True, 0) if done is None else (done["reuse"], done["region"])
    timeline = Timeline(model.graph, bound, reuse=reuse)
    transient = sum(one.bytes for one in timeline.live)
    return TrainingMemory(
        batch=next(iter(sizes.values())),
        weights=weights,
        optimizer=every - weights,
        second_copies=again,
        data=data,
        activations=transient,
        fragments=timeline.follow(region).held - transient,
        live=tuple(timeline.live),
        at=timeline.at,
        session=_NODE * number_of_nodes(program.step.graph) + timeline.constants,
        unknown=tuple(open_symbols(model.graph)),
    )
