"""Buffers that a batch is written into, bound to a graph's inputs once and again only when its shapes change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.program import Input
from nnspec_runtime.session import Device, empty_value

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]


class Slot:
    """Hold the batch that a binding reads, where one of several bindings may read it.

    `binding_for` says which binding runs batches of given shapes; it is asked only when the shapes change. What a
    binding has read stays bound to it, at the same addresses, until it gets a batch of other shapes. On the CPU
    the graph reads the very memory that `arrays` shows. On another device `send` copies it there.
    """

    def __init__(self, binding_for: Callable[[Shapes], ort.IOBinding], inputs: Sequence[Input], device: Device) -> None:
        self._binding_for = binding_for
        self._inputs = tuple(inputs)
        self._device = device
        self._memory: list[Array] = [np.empty(0, one.numpy) for one in self._inputs]
        self._bound: dict[ort.IOBinding, tuple[Shapes, list[Array], list[ort.OrtValue]]] = {}
        self._values: list[ort.OrtValue] = []
        self.arrays: list[Array] = []
        self.shapes: Shapes | None = None

    def reshape(self, shapes: Shapes) -> None:
        """Make `arrays` ready for a batch of these shapes; their content is then undefined."""
        if shapes == self.shapes:
            return
        binding = self._binding_for(shapes)
        bound = self._bound.get(binding)
        if bound is None or bound[0] != shapes:
            bound = (shapes, *self._allocate(shapes))
            for one, value in zip(self._inputs, bound[2], strict=True):
                binding.bind_ortvalue_input(one.name, value)
            self._bound[binding] = bound
        self.shapes, self.arrays, self._values = bound

    def _allocate(self, shapes: Shapes) -> tuple[list[Array], list[ort.OrtValue]]:
        """Return arrays of these shapes on the host, and the values that the graph reads."""
        import onnxruntime as ort

        arrays: list[Array] = []
        values: list[ort.OrtValue] = []
        for at, (one, shape) in enumerate(zip(self._inputs, shapes, strict=True)):
            size = math.prod(shape)
            if self._memory[at].size < size:
                self._memory[at] = np.empty(size, one.numpy)
            array = self._memory[at][:size].reshape(shape)
            if self._device.kind == "cpu":
                value = ort.OrtValue.ortvalue_from_numpy(array)
            else:
                value = empty_value(shape, one.numpy, self._device)
            arrays.append(array)
            values.append(value)
        return arrays, values

    def send(self) -> None:
        """Bring what was written into `arrays` to the device."""
        if self._device.kind != "cpu":
            for value, array in zip(self._values, self.arrays, strict=True):
                value.update_inplace(array)

    def put(self, batch: Sequence[Array]) -> None:
        """Take over one batch given as arrays of exactly the declared dtypes."""
        self.reshape(tuple(array.shape for array in batch))
        for target, array in zip(self.arrays, batch, strict=True):
            np.copyto(target, array, casting="no")
        self.send()
