"""Tensors in safetensors files: read with one clear sentence for each fault, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.errors import OutputError, RunError, WeightsError, first_line

Array = NDArray[Any]

_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


def load_weights(path: str | PathLike[str]) -> dict[str, Array]:
    """Read all tensors of a safetensors file, by name. Raises WeightsError; pickles are never loaded."""
    return read_tensors(path, WeightsError)[0]


def save_weights(path: str | PathLike[str], weights: Mapping[str, Array]) -> None:
    """Write tensors under their names to a safetensors file, atomically. Raises OutputError."""
    write_tensors(path, weights)


def read_tensors(
    path: str | PathLike[str], kind: type[RunError] = WeightsError
) -> tuple[dict[str, Array], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file; what is wrong is raised as `kind`."""
    with _opened(Path(path), kind) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


class StoredTensors(Mapping[str, Array]):
    """The tensors of a safetensors file, each read when it is asked for; what is wrong is raised as `kind`.

    The file is opened anew each time: while it is open, all that was read of it counts as memory of the process.
    """

    def __init__(self, path: Path, kind: type[RunError] = WeightsError) -> None:
        self._path, self._kind = path, kind
        with _opened(path, kind) as file:
            self._names = tuple(file.keys())

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        with _opened(self._path, self._kind) as file:
            array: Array = file.get_tensor(name)
            return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextlib.contextmanager
def _opened(path: Path, kind: type[RunError]) -> Iterator[Any]:
    """Open a safetensors file; what goes wrong while it is open is raised as `kind`."""
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if path.is_dir():
            raise kind(f"{path} is a folder, not a safetensors file")
        if size == 0:
            raise kind(f"{path} is empty: it is no safetensors file")
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except FileNotFoundError:
        raise kind(f"there is no file {path}") from None
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise kind(f"{path} is not a whole safetensors file: {first_line(error)}") from error


def write_tensors(
    path: str | PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and string metadata to a safetensors file, atomically. Raises OutputError.

    Written here and not by the safetensors package, whose own temporary files would lie about after a kill -9, and
    which holds a second copy of every tensor.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, array in tensors.items():
        if array.dtype.name not in _DTYPES:
            raise OutputError(f"cannot write {path}: '{name}' is {array.dtype}, which safetensors files do not hold")
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)  # the data begin at a multiple of 8

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            file.write(struct.pack("<Q", len(head)))
            file.write(head)
            for array in tensors.values():
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                file.write(np.ascontiguousarray(little).data)

    write_atomically(path, write)


def write_atomically(path: str | PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path` in one step.

    Whoever reads `path`, at any moment and after any crash, finds the old content or the new, never a part: the file
    is on the disk before the rename, the rename before the return. Raises OutputError where it cannot be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or first_line(error)}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def remove_leftovers(folder: Path, name: str) -> None:
    """Delete the temporary files that a killed writer of `folder/name` left behind."""
    for leftover in folder.glob(f".{name}.*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there, and the rename is journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
