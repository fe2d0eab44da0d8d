"""What each value of a cell's body depends on, which says where it is computed."""

from __future__ import annotations

from enum import IntEnum

from nnspec.ir import Node
from nnspec.layers.recurrent import Recurrence


class Level(IntEnum):
    """What a value of the body depends on, at most."""

    WEIGHTS = 0
    """On weights alone: computed once."""
    GIVEN = 1
    """On what is given beside the sequences: computed once."""
    DATA = 2
    """On the step's data: computed for all steps at once, before the loop."""
    STATE = 3
    """On the state: computed in the loop."""
    AFTER = 4
    """On the state, but no next state needs it: computed for all steps at once, behind the loop."""


def levels_of(layer: Recurrence) -> dict[str, Level]:
    """Return the level of every value of a cell's body."""
    levels = dict.fromkeys(layer.data, Level.DATA)
    levels |= dict.fromkeys(layer.given, Level.GIVEN)
    levels |= {state.name: Level.STATE for state in layer.states}
    if layer.step is not None:
        levels[layer.step] = Level.STATE
    for node in layer.body.nodes:
        kinds = {levels[v] for v in node.inputs}
        level = max(kinds, default=Level.WEIGHTS)
        if level is Level.DATA and Level.GIVEN in kinds:
            # Time is folded into the batch for data, and what is given would have to be repeated for it.
            level = Level.STATE
        levels |= dict.fromkeys(outputs_of(node), level)
    types = layer.body.types()
    needed = {state.next for state in layer.states}
    for node in reversed(layer.body.nodes):
        if needed.intersection(outputs_of(node)):
            needed.update(node.inputs)
    for node in layer.body.nodes:
        behind = levels[node.output()] is Level.STATE and not needed.intersection(outputs_of(node))
        # What is given would have to be repeated, and so would what comes from `step` alone: both stay in the loop.
        still = any(levels[v] is Level.GIVEN or (levels[v] is Level.STATE and not types[v].batch) for v in node.inputs)
        if behind and not still:
            levels |= dict.fromkeys(outputs_of(node), Level.AFTER)
    return levels


def outputs_of(node: Node) -> list[str]:
    """Return the names of a node's outputs."""
    return [node.output(i) for i in range(len(node.outputs))]
