"""Which training steps run normally, and which are recorded and replayed as CUDA graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime as ort

    from nnspec_runtime.slots import Shapes

NORMAL = -1
"""The graph id with which onnxruntime neither records nor replays."""
WARM_UP = 2
"""How many normal runs come before a recording: kernels allocate and pick algorithms in them."""


class Recording:
    """Choose the graph id of each step.

    A recording holds the addresses of what it read and wrote, so that each of the two sets of buffers has its own. Only
    batches of the first batch's shapes are recorded; `forget` says that a buffer has moved, after which recordings
    start anew under new ids.
    """

    def __init__(self) -> None:
        self._shapes: Shapes | None = None
        self._runs = [0, 0]
        self._moves = 0
        self._options: dict[int, ort.RunOptions] = {}

    def covers(self, shapes: Shapes | None) -> bool:
        """Return whether batches of these shapes are recorded."""
        if self._shapes is None:
            self._shapes = shapes
        return shapes == self._shapes

    def graph_id(self, turn: int) -> int:
        """Return the id for the next step on the buffers of `turn`."""
        if self._runs[turn] < WARM_UP:
            self._runs[turn] += 1
            return NORMAL
        return 2 * self._moves + turn + 1

    def options(self, turn: int) -> ort.RunOptions:
        """Return the run options for the next step on the buffers of `turn`."""
        import onnxruntime as ort

        number = self.graph_id(turn)
        if number not in self._options:
            self._options[number] = ort.RunOptions()
            self._options[number].add_run_config_entry("gpu_graph_id", str(number))
        return self._options[number]

    def forget(self) -> None:
        """Take note that a buffer has another address than before."""
        if max(self._runs):
            self._moves += 1
            self._runs = [0, 0]
