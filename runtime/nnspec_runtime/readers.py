"""Read arrays from files: .npz, .npy, IDX (MNIST's format) and .csv, each also gzipped where that is usual.

Files are told apart by their first bytes, not by their names. Nothing that would need a pickle is ever read.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.errors import DataError, first_line

Array = NDArray[Any]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Read(NamedTuple):
    """An array as it stands in a file, and the kind of file, which says how it may be reshaped."""

    array: Array
    kind: Literal["array", "idx", "csv"]
    path: str


def read_npz(path: Path) -> dict[str, Read]:
    """Read all arrays of an .npz file by name. Raises DataError."""
    head = _head(path)
    if head[:2] != b"PK":
        raise DataError(f"{path} is not an .npz file; give a single array as NAME={path}")
    try:
        # Opened here, because np.load leaves a broken archive open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {}
            for name in names:
                try:
                    arrays[name] = Read(archive[name], "array", str(path))
                except ValueError as error:
                    raise DataError(_not_numbers(f"the array '{name}' of {path}", error)) from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a whole .npz file: {first_line(error)}") from error
    return arrays


def read_array(path: Path) -> Read:
    """Read the one array of an .npy, IDX or .csv file. Raises DataError."""
    head = _head(path)
    if head[:2] == b"PK":
        raise DataError(f"{path} is an .npz file; give it without a name, its arrays have their own")
    if head[:6] == b"\x93NUMPY":
        return Read(_read_npy(path), "array", str(path))
    if _is_idx(head):
        with open(path, "rb") as file:
            return Read(_read_idx(file.read(), path), "idx", str(path))
    if head[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path, "rb") as file:
                content = file.read()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a whole gzip file: {first_line(error)}") from error
        if _is_idx(content[:4]):
            return Read(_read_idx(content, path), "idx", str(path))
        return Read(_read_csv(content, path), "csv", str(path))
    return Read(_read_csv(path.read_bytes(), path), "csv", str(path))


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a data file")
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    if not head:
        raise DataError(f"{path} is empty")
    return head


def _read_npy(path: Path) -> Array:
    """Map an .npy file into memory: a file larger than memory is read batch by batch."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(_not_numbers(str(path), error)) from error
    return array


def _is_idx(head: bytes) -> bool:
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _IDX_TYPES and head[3] > 0


def _read_idx(content: bytes, path: Path) -> Array:
    """Read IDX: two zero bytes, the type, the rank, the sizes as big-endian int32, then the elements, big-endian."""
    rank = content[3]
    if len(content) < 4 + 4 * rank:
        raise DataError(f"{path} is a truncated IDX file: its header is not whole")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    dtype = np.dtype(_IDX_TYPES[content[2]])
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - 4 - 4 * rank
    if expected != found:
        raise DataError(
            f"{path} is not a whole IDX file: its header {list(shape)} needs {expected} bytes of data, it has {found}"
        )
    array = np.frombuffer(content, dtype, math.prod(shape), offset=4 + 4 * rank).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_csv(content: bytes, path: Path) -> Array:
    """Read a table of numbers, one sample a line, with or without a line of headings; always two axes."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is none of .npz, .npy, IDX and .csv") from None
    lines = text.splitlines()
    filled = [at for at, line in enumerate(lines) if line.strip()]
    if not filled:
        raise DataError(f"{path} has no lines of numbers")
    heading = not all(_is_number(cell) for cell in lines[filled[0]].split(","))
    rows = filled[1:] if heading else filled
    if not rows:
        raise DataError(f"{path} has headings but no lines of numbers")
    width = len(lines[rows[0]].split(","))
    for at in rows:
        if lines[at].count(",") + 1 != width:
            raise DataError(
                f"{path}, line {at + 1} has {lines[at].count(',') + 1} columns, the lines before it {width}"
            )
    try:
        return np.loadtxt(io.StringIO("\n".join(lines[at] for at in rows)), np.float64, comments=None,
                          delimiter=",", ndmin=2)  # fmt: skip
    except ValueError:
        for at in rows:
            for column, cell in enumerate(lines[at].split(",")):
                if not _is_number(cell):
                    raise DataError(
                        f"{path}, line {at + 1}, column {column + 1}: '{cell.strip()[:40]}' is not a number"
                    ) from None
        raise


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _not_numbers(what: str, error: Exception) -> str:
    if any(word in str(error) for word in ("allow_pickle", "Object arrays", "Python objects")):
        return f"{what} holds Python objects, not numbers; pickles are never loaded"
    return f"{what} cannot be read as an array: {first_line(error)}"
