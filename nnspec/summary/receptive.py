"""Receptive fields: how much of the input one element of a layer's output depends on.

Along each spatial axis a value has an extent, in elements of the input, and a jump, the distance in the input between
two neighbours of its own. A window of extent k and stride s makes them extent + (k - 1) jump and jump s (Araujo et al.,
Computing Receptive Fields of Convolutional Neural Networks, Distill 2019). Borders are not taken into account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from nnspec.ir import Node, TensorType

if TYPE_CHECKING:
    from fractions import Fraction

Field = tuple[int, ...] | Literal["all"] | None
"""Extent along each spatial axis; `"all"` where everything may count, None where no input does."""

Axis = tuple["int | Fraction", "int | Fraction"]
State = tuple[Axis, ...] | Literal["all"] | None


class ReceptiveFields:
    """Follows the fields of all values through a network, node by node."""

    def __init__(self, inputs: Mapping[str, TensorType]) -> None:
        self._states: dict[str, State] = {name: _start(type_) for name, type_ in inputs.items()}

    def add(self, node: Node, x: Sequence[TensorType]) -> Field:
        """Return the field of a node's outputs, given the types of its inputs."""
        state = merge([self._states[name] for name in node.inputs])
        if state is not None and state != "all":
            state = _through(state, node.layer.window(*x))
        for i in range(len(node.outputs)):
            self._states[node.output(i)] = state
        if state is None or state == "all":
            return state
        # A jump is a fraction behind an enlargement; what is touched in part counts.
        return tuple(int(-(-extent // 1)) for extent, _ in state)


def _start(type_: TensorType) -> State:
    """Images [C, *spatial] have the axes behind the channels; vectors and sequences have one."""
    if type_.rank == 0:
        return "all"
    return ((1, 1),) * max(1, type_.rank - 1)


def merge(states: Sequence[State]) -> State:
    """Return the field of what depends on several values: the larger along each axis."""
    known = [s for s in states if s is not None]
    if not known:
        return None
    if "all" in known:
        return "all"
    seen: list[Any] = [s for s in known if not _is_point(s)] or known[:1]
    if any(len(s) != len(seen[0]) for s in seen):
        return "all"
    return tuple((max(a[0] for a in axes), max(a[1] for a in axes)) for axes in zip(*seen, strict=True))


def _through(state: tuple[Axis, ...], window: Any) -> State:
    if window is None:
        return state
    if window == "all":
        return "all"
    extents, strides = window
    if len(extents) != len(state):
        # A vector that was reshaped into an image: each pixel is one element of it.
        if not _is_point(state):
            return "all"
        state = state[:1] * len(extents)
    return tuple((e + (k - 1) * j, j * s) for (e, j), k, s in zip(state, extents, strides, strict=True))


def _is_point(state: Any) -> bool:
    return all(axis == (1, 1) for axis in state)
