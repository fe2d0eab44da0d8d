"""The training session: one graph whose weights and optimizer state go round in two sets of buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.errors import DataError, DeviceError, ProgramError, listing, shape_text
from nnspec_runtime.metrics import Averages
from nnspec_runtime.program import Input, Program, State
from nnspec_runtime.recording import Recording
from nnspec_runtime.session import Device, empty_value, numpy_dtype, open_session, ort_value, overwrite, run_failure
from nnspec_runtime.slots import Slot

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]

NO_BFLOAT16 = (
    "the step computes in bfloat16, for which onnxruntime has no kernels on the CPU; "
    "train on the device 'cuda', or with `precision = float16` or `precision = float32`"
)


class TrainingSession:
    """Run the training step; the state never leaves the device.

    Every state that the step changes has two buffers. One IO binding reads the first set and writes the second, the
    other reads the second and writes the first; both are bound once, and steps alternate between them. An input and an
    output in one buffer would save memory, but onnxruntime does not check that, and may corrupt it silently.
    Raises ProgramError when graph and manifest disagree.
    """

    def __init__(self, program: Program, device: Device | None = None) -> None:
        self.program = program
        self.device = device or Device()
        manifest = program.manifest
        if manifest.loss is None:
            raise ProgramError(f"the program of network '{manifest.network}' names no loss, so it cannot be trained")
        if manifest.settings.precision == "bfloat16" and self.device.kind == "cpu":
            raise DeviceError(NO_BFLOAT16)
        self._session = open_session(program.graph("step"), self.device, "step")
        declared = {one.name for one in self._session.get_inputs()}
        results = {one.name: one for one in self._session.get_outputs()}
        known = {one.name for one in manifest.inputs} | {one.input for one in manifest.state}
        averages = Averages(manifest.figures)
        written = [one.output for one in manifest.state if one.output is not None]
        problems = [f"the step graph asks for the input '{name}', which the manifest does not name"
                    for name in sorted(declared - known)]  # fmt: skip
        problems += [f"the step graph has no output '{name}', which the manifest names"
                     for name in (*averages.outputs, *written) if name not in results]  # fmt: skip
        if problems:
            raise ProgramError(*problems)

        self.inputs: tuple[Input, ...] = tuple(one for one in manifest.inputs if one.name in declared)
        self.outputs = averages.outputs
        self._states = manifest.state
        self._declared = declared
        self._sessions = [self._session]
        self._recording: Recording | None = None
        if self.device.cuda_graph:
            # A recording needs fixed sizes; batches of other sizes, such as the last of an epoch, run as they are.
            sizes = {"batch": manifest.settings.batch}
            self._sessions.append(open_session(program.graph("step"), self.device, "step", sizes))
            self._recording = Recording()
        self._bindings: tuple[list[ort.IOBinding], ...] = tuple(
            [session.io_binding() for session in self._sessions] for _ in range(2)
        )
        self.slots = tuple(Slot(bindings, self.inputs, self.device) for bindings in self._bindings)
        self.turn = 0
        self._buffers: dict[str, tuple[ort.OrtValue, ort.OrtValue]] = {}
        initial = program.initial_state()
        self._initial_carry = {one.name: initial[one.name] for one in manifest.state if one.kind == "carry"}
        for one in manifest.state:
            self._bind_state(one, initial.pop(one.name))  # one by one, so that large weights are not held twice
        self._scalars: list[ort.OrtValue] = []
        self._readers: tuple[list[Callable[[], float]], ...] = tuple(
            [self._bind_scalar(bindings, results[name]) for name in self.outputs] for bindings in self._bindings
        )
        self._run = self._session.run_with_iobinding

    def advance(self) -> list[float]:
        """Do one step on the batch in `slots[turn]`, pass the turn, and return the values of `outputs`."""
        turn = self.turn
        try:
            if self._recording is not None and self._whole(turn):
                self._sessions[1].run_with_iobinding(self._bindings[turn][1], self._recording.options(turn))
            else:
                self._run(self._bindings[turn][0])
        except Exception as error:
            raise run_failure(error, "a training step") from error
        self.turn = 1 - turn
        return [read() for read in self._readers[turn]]

    def _whole(self, turn: int) -> bool:
        """Return whether the batch at hand is one of those that are recorded."""
        shapes = self.slots[turn].shapes
        rows = self.program.manifest.settings.batch
        if self._recording is None or not shapes or any(shape[0] != rows for shape in shapes):
            return False
        return self._recording.covers(shapes)

    def step(self, batch: Mapping[str, Array]) -> dict[str, float]:
        """Do one step on a batch given as arrays by name; return loss and metrics of that batch, before the update."""
        missing = [one.name for one in self.inputs if one.name not in batch]
        if missing:
            raise DataError(f"the batch lacks {listing(missing)}")
        arrays = [np.asarray(batch[one.name]) for one in self.inputs]
        for one, array in zip(self.inputs, arrays, strict=True):
            if array.dtype != one.numpy:
                raise DataError(f"'{one.name}' should be {one.dtype}, but is {array.dtype}")
        if self._initial_carry:
            self.narrow_carry(len(arrays[0]))
        self.slots[self.turn].put(arrays)
        values = dict(zip(self.outputs, self.advance(), strict=True))
        return {figure.name: values[figure.output] for figure in self.program.manifest.figures}

    def values(self) -> dict[str, ort.OrtValue]:
        """Return the current state as values on the device, by name. The next step but one overwrites them."""
        return {name: pair[self.turn] for name, pair in self._buffers.items()}

    def state(self) -> dict[str, Array]:
        """Return a copy of the current state, by name."""
        return {name: np.array(value.numpy()) for name, value in self.values().items()}

    def load(self, state: Mapping[str, Array]) -> None:
        """Replace the named states by arrays of the same shapes and dtypes; the others stay as they are."""
        for one in self._states:
            array = state.get(one.name)
            if array is None:
                continue
            if one.kind == "carry" and array.shape != tuple(self._buffers[one.name][0].shape()):
                self._bind_state(one, array)
            else:
                overwrite(self._buffers[one.name][self.turn], array, one.numpy, one.name)

    def reset_carry(self) -> None:
        """Start the carried states anew, as at the beginning of an epoch."""
        self.load(self._initial_carry)

    def narrow_carry(self, rows: int) -> None:
        """Keep the first `rows` rows of the carried states: the smaller last batch continues those."""
        for one in self._states:
            if one.kind != "carry" or not one.shape or isinstance(one.shape[0], int):
                continue
            current = self._buffers[one.name][self.turn]
            have = current.shape()[0]
            if rows > have:
                raise DataError(f"a batch of {rows} samples cannot continue the {have} carried states of '{one.name}'")
            if rows < have:
                self._bind_state(one, np.array(current.numpy()[:rows]))

    def _bind_state(self, one: State, array: Array) -> None:
        """Give a state its buffers, the given content in the one to be read next, and bind them to both bindings."""
        current = ort_value(array, self.device)
        if one.output is None:
            pair = (current, current)
        else:
            other = empty_value(array.shape, array.dtype, self.device)
            pair = (current, other) if self.turn == 0 else (other, current)
        self._buffers[one.name] = pair
        if self._recording is not None:
            self._recording.forget()
        for at, bindings in enumerate(self._bindings):
            for binding in bindings:
                if one.input in self._declared:
                    binding.bind_ortvalue_input(one.input, pair[at])
                if one.output is not None:
                    binding.bind_ortvalue_output(one.output, pair[1 - at])

    def _bind_scalar(self, bindings: list[ort.IOBinding], result: ort.NodeArg) -> Callable[[], float]:
        """Bind a scalar output and return what reads it as a float.

        It lies in host memory, but on the device where steps are recorded: a replay writes where the recording did.
        """
        import onnxruntime as ort

        shape = tuple(result.shape)
        if shape not in ((), (1,)):
            raise ProgramError(f"the output '{result.name}' should be a scalar, but has the shape {shape_text(shape)}")
        array = np.zeros(shape, numpy_dtype(result.type))
        on_device = self._recording is not None
        value = ort_value(array, self.device) if on_device else ort.OrtValue.ortvalue_from_numpy(array)
        for binding in bindings:
            binding.bind_ortvalue_output(result.name, value)
        self._scalars.append(value)
        read: Callable[[], float] = (lambda: value.numpy().item()) if on_device else array.item
        return read
