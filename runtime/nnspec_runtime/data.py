"""Data sets: arrays by name, checked against the inputs that a program declares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.alignment import alignment_faults
from nnspec_runtime.errors import DataError, listing, nearest, shape_text
from nnspec_runtime.program import Input, Manifest, Program
from nnspec_runtime.readers import Read, read_array, read_npz

Array = NDArray[Any]
Source = str | PathLike[str] | Array

# Rows are checked in pieces, so that a file larger than memory never is in memory whole.
_PIECE = 1 << 24


@dataclass(frozen=True)
class Column:
    """The array of one input, all samples. `data` may still have another dtype: then batches are cast."""

    input: Input
    data: Array

    @property
    def cast(self) -> bool:
        """Whether batches must be converted to the declared dtype or to row-major order while they are copied."""
        return bool(self.data.dtype != self.input.numpy) or not self.data.flags.c_contiguous

    @property
    def on_disk(self) -> bool:
        """Whether reading a batch may wait for the disk."""
        return isinstance(self.data, np.memmap)


@dataclass(frozen=True)
class Dataset:
    """Arrays that fit the inputs of a program.

    `bounds` gives for each symbolic size the lengths that bound it: a batch is cut to the longest of its own samples
    along every axis of that size. `notes` are warnings for whoever gave the data.
    """

    columns: Mapping[str, Column]
    size: int
    bounds: Mapping[str, tuple[Array, ...]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.size

    @property
    def lengths(self) -> Array | None:
        """The length by which samples are bucketed: the longest of each sample's sequences, the others break ties."""
        every = [array for arrays in self.bounds.values() for array in arrays]
        if not every:
            return None
        stacked = np.stack(every)
        scale = int(stacked.max()) + 1
        keys: Array = stacked.max(axis=0) * np.int64(scale * len(every)) + stacked.sum(axis=0)
        return keys


def load_data(
    program: Program | Manifest,
    sources: Source | Iterable[str | PathLike[str]] | Mapping[str, Source],
    *,
    purpose: Literal["train", "predict"] = "train",
) -> Dataset:
    """Load data and check them against the declared inputs.

    `sources` is an .npz file whose arrays are named after the inputs; or `NAME=FILE` texts, each file .npy, IDX or
    .csv; or a mapping from names to arrays or files. For `predict` only what the predict graph takes is needed. Raises
    DataError with one sentence for each thing wrong, naming the array, what is expected and what was found.
    """
    manifest = program.manifest if isinstance(program, Program) else program
    found = _read_sources(sources)
    roles = ("input", "lengths") if purpose == "predict" else ("input", "target", "lengths")
    wanted = [one for one in manifest.inputs if one.role in roles]
    if purpose == "predict":
        wanted = _for_prediction(program, wanted)
    problems: list[str] = []
    columns: dict[str, Column] = {}
    surplus = [name for name in found if name not in {one.name for one in manifest.inputs}]
    for one in wanted:
        if one.name not in found:
            problems.append(f"the data lack '{one.name}', {_expected(one)}{nearest(one.name, surplus)}")
            continue
        try:
            columns[one.name] = _fit(one, found[one.name])
        except DataError as error:
            problems.extend(error.problems)
    problems += _disagreements(columns)
    if problems:
        raise DataError(*problems)
    size = len(next(iter(columns.values())).data)
    bounds, faults = _bounds(columns, manifest)
    faults = faults or alignment_faults({n: (c.input, c.data) for n, c in columns.items()})
    if faults:
        raise DataError(*faults)
    notes = [f"the data hold {listing(surplus)}, which the program does not use"] if surplus else []
    return Dataset(columns, size, bounds, tuple(notes))


def _for_prediction(program: Program | Manifest, inputs: list[Input]) -> list[Input]:
    """Leave out what the predict graph does not take: lengths of targets, the decoder's input of teacher forcing."""
    if isinstance(program, Program) and program.predict is not None:
        declared = program.declared_inputs("predict")
        return [one for one in inputs if one.name in declared]
    manifest = program.manifest if isinstance(program, Program) else program
    targets = {one.name for one in manifest.inputs if one.role == "target"}
    return [one for one in inputs if one.of not in targets]


def _read_sources(sources: Source | Iterable[str | PathLike[str]] | Mapping[str, Source]) -> dict[str, Read]:
    if isinstance(sources, Mapping):
        return {
            name: Read(value, "array", "") if isinstance(value, np.ndarray) else read_array(Path(value))
            for name, value in sources.items()
        }
    if isinstance(sources, np.ndarray):
        raise DataError("an array needs a name: give a mapping from input names to arrays")
    texts = [sources] if isinstance(sources, str | PathLike) else list(sources)
    found: dict[str, Read] = {}
    problems: list[str] = []
    for text in texts:
        try:
            read = _read_one(text)
        except DataError as error:
            problems.extend(error.problems)
            continue
        problems += [f"'{name}' is given twice in the data" for name in read if name in found]
        found.update(read)
    if problems:
        raise DataError(*problems)
    return found


def _read_one(text: str | PathLike[str]) -> dict[str, Read]:
    """Read `FILE.npz` or `NAME=FILE`; a file that is there wins over a name with `=` in it."""
    name, equals, file = str(text).partition("=")
    if not equals or Path(text).exists():
        return read_npz(Path(text))
    if not name or not file:
        raise DataError(f"'{text}' is not data: give FILE.npz, or NAME=FILE for each array")
    return {name: read_array(Path(file))}


def _fit(one: Input, read: Read) -> Column:
    """Check one array against its declaration and bring it to the declared dtype."""
    array = read.array
    if array.dtype.kind not in "biuf":
        raise DataError(f"'{one.name}' should hold {one.dtype}, but holds {array.dtype}, which are not plain numbers")
    if one.numpy.kind in "iub" and array.dtype.kind == "f" and read.kind != "csv":
        raise DataError(f"'{one.name}' should hold {one.dtype}, but holds {array.dtype}")
    if read.kind != "array":
        array = _reshape(one, array, read.kind)
    if array.ndim != len(one.shape):
        hint = " (a batch axis comes first)" if array.ndim == len(one.shape) - 1 else ""
        raise DataError(
            f"'{one.name}' should have {_axes(len(one.shape))}, {shape_text(one.shape)}{hint}, "
            f"but has {array.ndim}, {shape_text(array.shape)}"
        )
    if any(isinstance(want, int) and want != have for want, have in zip(one.shape[1:], array.shape[1:], strict=True)):
        raise DataError(
            f"'{one.name}' should have the shape {shape_text(one.shape)}, but has {shape_text(array.shape)}"
        )
    if 0 in array.shape:
        raise DataError(f"'{one.name}' is empty: its shape is {shape_text(array.shape)}")
    for start, piece in _pieces(array):
        _check_values(one, piece, start)
    if read.kind == "idx" and array.dtype == np.uint8 and one.numpy.kind == "f":
        return Column(one, array.astype(one.numpy) / one.numpy.type(255))
    if array.dtype == one.numpy or isinstance(array, np.memmap):
        return Column(one, array if isinstance(array, np.memmap) else np.ascontiguousarray(array))
    return Column(one, array.astype(one.numpy, order="C"))


def _reshape(one: Input, array: Array, kind: str) -> Array:
    """Bring the samples of a file that cannot carry the declared shape into it.

    A line of a .csv file is taken row by row; an IDX sample may gain or lose axes of size 1 and may be flattened.
    """
    shape = one.shape[1:]
    if not all(isinstance(dim, int) for dim in shape):
        return array
    sizes = [int(dim) for dim in shape]
    have = list(array.shape[1:])
    if math.prod(sizes) != math.prod(have):
        return array
    plain = [size for size in sizes if size != 1]
    if kind == "csv" or len(plain) <= 1 or plain == [size for size in have if size != 1]:
        return array.reshape(len(array), *sizes)
    return array


def _check_values(one: Input, piece: Array, start: int) -> None:
    """Check the values of some samples: finite, exact in the declared dtype, within the classes."""
    kind = one.numpy.kind
    if piece.dtype.kind == "f":
        bad = ~np.isfinite(piece)
        if bad.any():
            where = np.argwhere(bad)[0]
            word = "NaN" if np.isnan(piece[tuple(where)]) else "an infinite value"
            raise DataError(f"'{one.name}' should hold finite numbers, but holds {word} in sample {start + where[0]}")
        fractions = piece != np.floor(piece) if kind in "iub" else bad
        if fractions.any():
            where = np.argwhere(fractions)[0]
            value = piece[tuple(where)]
            raise DataError(f"'{one.name}' should hold {one.dtype}, but holds {value} in sample {start + where[0]}")
    low, high = _limits(one)
    least, most = piece.min(), piece.max()
    if one.classes is not None and (least < 0 or most >= one.classes):
        wrong = least if least < 0 else most
        sample = start + int(np.argwhere(piece == wrong)[0][0])
        raise DataError(
            f"'{one.name}' should lie in 0 .. {one.classes - 1} (classes), but is {int(wrong)} in sample {sample}"
        )
    if least < low or most > high:
        raise DataError(f"'{one.name}' holds {least if least < low else most}, which {one.dtype} cannot hold")


def _limits(one: Input) -> tuple[float, float]:
    if one.numpy.kind == "b":
        return 0, 1
    info = np.finfo(one.numpy) if one.numpy.kind == "f" else np.iinfo(one.numpy)
    return info.min, info.max


def _pieces(array: Array) -> Iterator[tuple[int, Array]]:
    rows = max(1, _PIECE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _disagreements(columns: Mapping[str, Column]) -> list[str]:
    """Say which arrays differ in the number of samples or in a size of one name."""
    problems: list[str] = []
    seen: dict[str, tuple[str, int]] = {}
    for name, column in columns.items():
        for axis, (dim, size) in enumerate(zip(column.input.shape, column.data.shape, strict=True)):
            if axis == 0:
                dim = ""
            if isinstance(dim, int):
                continue
            first, known = seen.setdefault(dim, (name, size))
            if known != size:
                what = f"sizes of {dim}" if dim else "numbers of samples"
                problems.append(f"'{first}' and '{name}' have different {what}: {known} and {size}")
    return problems


def _bounds(columns: Mapping[str, Column], manifest: Manifest) -> tuple[dict[str, tuple[Array, ...]], list[str]]:
    """Check the lengths and say which symbolic sizes they bound. Several inputs may share their lengths."""
    bounds: dict[str, tuple[Array, ...]] = {}
    problems: list[str] = []
    pairs = [
        (one, sequence)
        for one in manifest.inputs
        for sequence in manifest.inputs
        if one.role == "lengths" and (one.of == sequence.name or sequence.lengths == one.name)
    ]
    for one, sequence in pairs:
        if one.name not in columns or sequence.name not in columns:
            continue
        of = columns[sequence.name]
        lengths = np.asarray(columns[one.name].data, np.int64)
        if lengths.ndim != 1 or of.data.ndim < 2:
            problems.append(f"'{one.name}' should give one length for each sample of a sequence '{sequence.name}'")
            continue
        longest = of.data.shape[1]
        for wrong in (lengths < 1, lengths > longest):
            if wrong.any():
                sample = int(np.argmax(wrong))
                problems.append(
                    f"'{one.name}' should lie in 1 .. {longest}, the size of '{sequence.name}', "
                    f"but is {int(lengths[sample])} in sample {sample}"
                )
        symbol = sequence.shape[1]
        if isinstance(symbol, str) and not any(lengths is known for known in bounds.get(symbol, ())):
            bounds[symbol] = (*bounds.get(symbol, ()), lengths)
    return bounds, problems


def _axes(rank: int) -> str:
    return f"{rank} axis" if rank == 1 else f"{rank} axes"


def _expected(one: Input) -> str:
    return f"{one.dtype} of shape {shape_text(one.shape)}"
