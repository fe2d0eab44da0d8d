"""The training session: one graph whose weights and optimizer state go round in two sets of buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.bound import StepSessions
from nnspec_runtime.errors import DataError, DeviceError, ProgramError, listing, shape_text
from nnspec_runtime.metrics import Averages
from nnspec_runtime.program import Input, Program, State
from nnspec_runtime.session import Device, empty_value, give_back, numpy_dtype, ort_value, overwrite, run_failure
from nnspec_runtime.slots import Slot

if TYPE_CHECKING:
    import onnxruntime as ort

    from nnspec_runtime.bound import Pair

Array = NDArray[Any]

NO_BFLOAT16 = (
    "the step computes in bfloat16, for which onnxruntime has no kernels on the CPU; "
    "train on the device 'cuda', or with `precision = float16` or `precision = float32`"
)


class TrainingSession:
    """Run the training step; the state never leaves the device.

    Every state that the step changes has two buffers. One IO binding reads the first set and writes the second, the
    other reads the second and writes the first; both are bound once, and steps alternate between them. An input and an
    output in one buffer save memory, but onnxruntime does not check that, and may corrupt it silently: on the CPU those
    states have one of which the manifest says that it is safe. A step that fails may leave those changed.

    Batches of the size in the settings run in a session made for that size, where all that hangs on it is computed
    beforehand. For batches of other sizes, such as the last of an epoch, a session that takes any size is opened when
    the first one comes; it reads and writes the same buffers. Raises ProgramError when graph and manifest disagree.
    """

    def __init__(self, program: Program, device: Device | None = None) -> None:
        self.program = program
        self.device = device or Device()
        manifest = program.manifest
        if manifest.loss is None:
            raise ProgramError(f"the program of network '{manifest.network}' names no loss, so it cannot be trained")
        if manifest.settings.precision == "bfloat16" and self.device.kind == "cpu":
            raise DeviceError(NO_BFLOAT16)
        self._sessions = StepSessions(
            program.graph("step"), self.device, manifest.inputs, manifest.settings.batch, manifest.work
        )
        declared, results = self._sessions.main.inputs, self._sessions.main.outputs
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
        self.slots = tuple(
            Slot(partial(self._sessions.binding_for, turn), self.inputs, self.device) for turn in range(2)
        )
        self._chosen = self._sessions.chosen
        self.turn = 0
        self._buffers: dict[str, Pair] = {}
        self._initial_carry: dict[str, Array] = {}
        for one, array in program.starting():
            if one.kind == "carry":
                self._initial_carry[one.name] = array
            self._bind_state(one, array)
        self._readers: tuple[list[Callable[[], float]], ...] = ([], [])
        for name in self.outputs:
            self._bind_scalar(results[name])
        give_back()

    def advance(self) -> list[float]:
        """Do one step on the batch in `slots[turn]`, pass the turn, and return the values of `outputs`."""
        turn = self.turn
        try:
            self._chosen[turn].run(turn)
        except Exception as error:
            raise run_failure(error, "a training step") from error
        self.turn = 1 - turn
        return [read() for read in self._readers[turn]]

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
        """Return the current state as values on the device, by name. The next step may overwrite them."""
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
        if one.output is None or (one.in_place and self.device.kind == "cpu"):
            pair = (current, current)
        else:
            other = empty_value(array.shape, array.dtype, self.device)
            pair = (current, other) if self.turn == 0 else (other, current)
        self._buffers[one.name] = pair
        self._sessions.bind_state(one, pair)

    def _bind_scalar(self, result: ort.NodeArg) -> None:
        """Give a scalar output a buffer for each turn, bind them, and keep what reads each as a float.

        They lie in host memory, but on the device where steps are recorded: a replay writes where the recording did.
        """
        import onnxruntime as ort

        shape = tuple(result.shape)
        if shape not in ((), (1,)):
            raise ProgramError(f"the output '{result.name}' should be a scalar, but has the shape {shape_text(shape)}")
        arrays = [np.zeros(shape, numpy_dtype(result.type)) for _ in range(2)]
        if self.device.cuda_graph:
            values = [ort_value(array, self.device) for array in arrays]
            reads = [lambda value=value: value.numpy().item() for value in values]
        else:
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
            reads = [array.item for array in arrays]
        for readers, read in zip(self._readers, reads, strict=True):
            readers.append(read)
        self._sessions.bind_output(result.name, (values[0], values[1]))
