"""Buffers that a batch is written into, bound to a graph's inputs once and again only when its shape changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """Hold the batch inputs of IO bindings that run in turn on one set of buffers.

    On the CPU the graph reads the very memory that `arrays` shows. On another device `send` copies it there. Where
    steps are recorded, values that come back to earlier shapes come back to their addresses.
    """

    def __init__(self, bindings: Sequence[ort.IOBinding], inputs: Sequence[Input], device: Device) -> None:
        self._bindings = tuple(bindings)
        self._kept: dict[Shapes, tuple[list[Array], list[ort.OrtValue]]] = {}
        self._inputs = tuple(inputs)
        self._device = device
        self._memory: list[Array] = [np.empty(0, one.numpy) for one in self._inputs]
        self._values: list[ort.OrtValue] = []
        self.arrays: list[Array] = []
        self.shapes: Shapes | None = None

    def reshape(self, shapes: Shapes) -> None:
        """Make `arrays` ready for a batch of these shapes; their content is then undefined."""
        if shapes == self.shapes:
            self.shapes = shapes
            return
        if shapes in self._kept:
            self._bind(shapes, *self._kept[shapes])
            return
        import onnxruntime as ort

        arrays: list[Array] = []
        values: list[ort.OrtValue] = []
        for at, (one, shape) in enumerate(zip(self._inputs, shapes, strict=True)):
            size = math.prod(shape)
            if self._memory[at].size < size or self._device.cuda_graph:
                self._memory[at] = np.empty(size, one.numpy)
            array = self._memory[at][:size].reshape(shape)
            if self._device.kind == "cpu":
                value = ort.OrtValue.ortvalue_from_numpy(array)
            else:
                value = empty_value(shape, one.numpy, self._device)
            arrays.append(array)
            values.append(value)
        if self._device.cuda_graph and not self._kept:
            self._kept[shapes] = (arrays, values)
        self._bind(shapes, arrays, values)

    def _bind(self, shapes: Shapes, arrays: list[Array], values: list[ort.OrtValue]) -> None:
        for one, value in zip(self._inputs, values, strict=True):
            for binding in self._bindings:
                binding.bind_ortvalue_input(one.name, value)
        self.arrays, self._values, self.shapes = arrays, values, shapes

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
