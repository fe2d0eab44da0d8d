"""The sessions of a step graph, bound to two sets of buffers that they read and write in turn."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nnspec_runtime.program import Input, State, Work
from nnspec_runtime.recording import Recording
from nnspec_runtime.session import Device, give_back, new_arena, open_session

if TYPE_CHECKING:
    import onnxruntime as ort

    from nnspec_runtime.slots import Shapes

    Pair = tuple[ort.OrtValue, ort.OrtValue]


FEW_MACS = 10_000_000
"""Multiply-adds of a step up to which handing work to further threads costs more than they do in that time."""
FEW_BYTES = 16 * 2**20
"""Bytes of all tensors of a step up to which the memory that planning takes is worth the time that it saves."""


class BoundSession:
    """Run one session through two bindings, one for each turn; where it has a `recording`, as CUDA graphs."""

    def __init__(self, session: ort.InferenceSession, recording: Recording | None = None) -> None:
        self.inputs = {one.name for one in session.get_inputs()}
        self.outputs = {one.name: one for one in session.get_outputs()}
        self.bindings = (session.io_binding(), session.io_binding())
        self._run = session.run_with_iobinding
        self._recording = recording

    def run(self, turn: int) -> None:
        """Do one step on the buffers of a turn."""
        if self._recording is None:
            self._run(self.bindings[turn])
        else:
            self._run(self.bindings[turn], self._recording.options(turn))

    def takes(self, shapes: Shapes) -> bool:
        """Return whether batches of these shapes may run here: recordings are of one batch's shapes."""
        return self._recording is None or self._recording.covers(shapes)

    def bind_state(self, one: State, pair: Pair) -> None:
        """Let each turn read the state from its own buffer of the two, and write it to the other one."""
        if self._recording is not None:
            self._recording.forget()
        for turn, binding in enumerate(self.bindings):
            if one.input in self.inputs:
                binding.bind_ortvalue_input(one.input, pair[turn])
            if one.output is not None:
                binding.bind_ortvalue_output(one.output, pair[1 - turn])

    def bind_output(self, name: str, pair: Pair) -> None:
        """Let each turn write the output to its own buffer of the two."""
        for binding, value in zip(self.bindings, pair, strict=True):
            binding.bind_ortvalue_output(name, value)


class StepSessions:
    """Open a step graph for batches of one size, and for those of other sizes once the first one comes.

    Where the size of a batch is known, onnxruntime computes beforehand all that hangs on it. `main` is the session for
    batches of `rows` samples, and the only one where no input has a symbolic first axis. The session for other sizes
    is bound to the same buffers. The two share one arena on the CPU: they never run at once.
    """

    def __init__(
        self, model: bytes | Path, device: Device, inputs: Sequence[Input], rows: int, work: Work | None = None
    ) -> None:
        self._model = model
        self._planned, self._reuse = False, True
        if work is not None and device.kind == "cpu":
            self._planned = work.bytes <= FEW_BYTES
            self._reuse = work.reuse or self._planned
            device = replace(device, threads=1) if work.macs <= FEW_MACS else device
        self._device = device
        self._rows = rows
        self._sizes = {one.shape[0]: rows for one in inputs if isinstance(one.shape[0], str)}
        self._states: dict[str, tuple[State, Pair]] = {}
        self._outputs: dict[str, Pair] = {}
        if device.kind == "cpu":
            new_arena(0 if work is None else work.region)
            weakref.finalize(self, new_arena).atexit = False  # onnxruntime would keep ours for the next one to come
        recording = Recording() if device.cuda_graph else None
        session = self._open(self._sizes, recorded=device.cuda_graph)
        give_back()
        self.main = BoundSession(session, recording)
        self.chosen = [self.main, self.main]
        """The session that runs in each turn, as `binding_for` chose it last."""
        self._all = [self.main]
        if device.whole:
            _ = self._other  # an error, too, where CUDA leaves nodes of this one to the CPU

    def _open(self, sizes: Mapping[str, int] | None, recorded: bool = False) -> ort.InferenceSession:
        return open_session(
            self._model, self._device, "step", sizes,
            recorded=recorded, shared=True, planned=self._planned, reuse=self._reuse,
        )

    @cached_property
    def _other(self) -> BoundSession:
        """The session for batches that the main one does not take."""
        other = BoundSession(self._open(None))
        for state, pair in self._states.values():
            other.bind_state(state, pair)
        for name, pair in self._outputs.items():
            other.bind_output(name, pair)
        self._all.append(other)
        return other

    def binding_for(self, turn: int, shapes: Shapes) -> ort.IOBinding:
        """Choose the session that runs batches of these shapes in a turn, and return its binding."""
        fits = not self._sizes or all(shape[:1] == (self._rows,) for shape in shapes)
        self.chosen[turn] = self.main if fits and self.main.takes(shapes) else self._other
        return self.chosen[turn].bindings[turn]

    def bind_state(self, one: State, pair: Pair) -> None:
        """Let each turn read the state from its own buffer of the two, and write it to the other one."""
        self._states[one.name] = (one, pair)
        for session in self._all:
            session.bind_state(one, pair)

    def bind_output(self, name: str, pair: Pair) -> None:
        """Let each turn write the output to its own buffer of the two."""
        self._outputs[name] = pair
        for session in self._all:
            session.bind_output(name, pair)
