"""Loss and metrics of a data set, batch by batch, through the eval graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.batches import Batches, open_loader
from nnspec_runtime.checkpoint import fit_weights
from nnspec_runtime.data import Dataset
from nnspec_runtime.errors import ProgramError, listing
from nnspec_runtime.metrics import Averages
from nnspec_runtime.order import Indices
from nnspec_runtime.program import Input, Program, State
from nnspec_runtime.session import Device, open_session, ort_value, run_failure
from nnspec_runtime.slots import Slot

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]


class GraphRunner:
    """Run the eval or the predict graph over a data set: state bound once, batches through two slots in turn.

    Raises ProgramError when graph and manifest disagree.
    """

    def __init__(self, program: Program, which: Literal["eval", "predict"], device: Device) -> None:
        self.program = program
        self.device = device
        self.which = which
        self.session = open_session(program.graph(which), device, which)
        self.results = {one.name: one for one in self.session.get_outputs()}
        declared = {one.name for one in self.session.get_inputs()}
        manifest = program.manifest
        known = {one.name for one in manifest.inputs} | {one.input for one in manifest.state}
        strange = sorted(declared - known)
        if strange:
            raise ProgramError(*(f"the {which} graph asks for the input '{name}', which the manifest does not name"
                                 for name in strange))  # fmt: skip
        self.inputs: tuple[Input, ...] = tuple(one for one in manifest.inputs if one.name in declared)
        self._states = [one for one in manifest.state if one.input in declared]
        self._carried = [one for one in self._states if one.kind == "carry"]
        self.bindings = (self.session.io_binding(), self.session.io_binding())
        self._slots = [self._slot(binding) for binding in self.bindings]
        self._keep: list[ort.OrtValue] = []

    def _slot(self, binding: ort.IOBinding) -> Slot:
        return Slot(lambda shapes: binding, self.inputs, self.device)

    def bind_state(self, values: Mapping[str, ort.OrtValue]) -> None:
        """Bind states that are on the device already; carried states start from the initial state."""
        self._keep = [values[one.name] for one in self._states if one.kind != "carry"]
        for one in self._states:
            if one.kind != "carry":
                for binding in self.bindings:
                    binding.bind_ortvalue_input(one.input, values[one.name])

    def bind_arrays(self, weights: Mapping[str, Array] | None) -> None:
        """Bind the initial state, with the given weights in the place of its own. Raises WeightsError."""
        state = self.program.initial_state()
        if weights is not None:
            state.update(fit_weights(self.program, weights))
        self.bind_state({one.name: ort_value(state[one.name], self.device) for one in self._states})

    def run(
        self, data: Dataset, names: Sequence[str], order: Indices | None = None
    ) -> Iterator[tuple[Indices, list[Array]]]:
        """Run over the data; yield for each batch which samples it holds, and the outputs named, on the host."""
        missing = [name for name in names if name not in self.results]
        if missing:
            raise ProgramError(f"the {self.which} graph has no output {listing(missing)}, which the manifest names")
        batches = Batches(data, self.inputs, self.program.settings.batch)
        if order is not None:
            batches.begin(order)
        chained = [one for one in self._carried if one.output in self.results]
        initial = self.program.initial_state("carry") if self._carried else {}
        carried = {one.name: ort_value(initial[one.name], self.device) for one in self._carried}
        loader = open_loader(batches)
        try:
            loader.start(0, self._slots[0])
            for index in range(batches.count):
                loader.finish()
                turn = index % 2
                if index + 1 < batches.count:
                    loader.start(index + 1, self._slots[1 - turn])
                binding = self.bindings[turn]
                for one in self._carried:
                    carried[one.name] = _first_rows(one, carried[one.name], batches.rows(index), self.device)
                    binding.bind_ortvalue_input(one.input, carried[one.name])
                # Bound anew for each run: an output keeps its memory otherwise, and with it the shape of another batch.
                for name in names:
                    binding.bind_output(name, "cpu")
                for one in chained:
                    binding.bind_output(str(one.output), self.device.kind, self.device.index)
                try:
                    self.session.run_with_iobinding(binding)
                except Exception as error:
                    raise run_failure(error, f"a batch of the {self.which} graph") from error
                outputs = binding.get_outputs()
                for one, value in zip(chained, outputs[len(names) :], strict=True):
                    carried[one.name] = value
                yield batches.indices(index), [value.numpy() for value in outputs[: len(names)]]
        finally:
            loader.close()


class Evaluator:
    """Loss and metrics of one data set, again and again with other weights."""

    def __init__(self, program: Program, data: Dataset, device: Device | None = None) -> None:
        self._runner = GraphRunner(program, "eval", device or Device())
        self._data = data
        self._averages = Averages(program.manifest.figures)
        # Neighbours of equal length waste the least on padding; carried states fix the order instead.
        lengths = None if program.settings.carry else data.lengths
        self._order = None if lengths is None else np.argsort(lengths, kind="stable").astype(np.intp, copy=False)

    def bind_state(self, values: Mapping[str, ort.OrtValue]) -> None:
        """Use states that are on the device already, such as those of a training session."""
        self._runner.bind_state(values)

    def bind_arrays(self, weights: Mapping[str, Array] | None) -> None:
        """Use weights given as arrays, or the initial ones. Raises WeightsError."""
        self._runner.bind_arrays(weights)

    def run(self) -> dict[str, float]:
        """Return loss and metrics by name."""
        averages = self._averages
        averages.reset()
        for chosen, outputs in self._runner.run(self._data, averages.outputs, self._order):
            averages.add([output.item() for output in outputs], len(chosen))
        return averages.means()


def evaluate(
    program: Program, data: Dataset, weights: Mapping[str, Array] | None = None, *, device: Device | None = None
) -> dict[str, float]:
    """Return loss and metrics of a data set by name; without `weights`, of the initial ones.

    Each figure is the mean over all samples, weighed as the manifest says. Raises WeightsError, ProgramError.
    """
    evaluator = Evaluator(program, data, device)
    evaluator.bind_arrays(weights)
    return evaluator.run()


def _first_rows(one: State, value: ort.OrtValue, rows: int, device: Device) -> ort.OrtValue:
    """Keep as many carried rows as the batch has samples."""
    if not one.shape or isinstance(one.shape[0], int) or value.shape()[0] == rows:
        return value
    return ort_value(np.array(value.numpy()[:rows]), device)
