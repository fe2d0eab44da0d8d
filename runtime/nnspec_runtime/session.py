"""Where and how a graph runs: device, provider options, session options."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.errors import DeviceError, ProgramError, RunError, first_line

if TYPE_CHECKING:
    import onnxruntime as ort

DeviceName = Literal["auto", "cpu", "cuda"]

MOST_AT_ONCE = 2**31 - 1
"""Bytes of the largest first region that onnxruntime's Python interface takes."""

NO_CUDA = "CUDA was asked for, but {reason}; use the device 'cpu' or 'auto'"


@dataclass(frozen=True)
class Device:
    """Say where sessions run and how.

    `threads` is the number of threads for one operator on the CPU (0: one for each physical core); a training step
    that is too small to gain by them runs on one. `tf32` lets CUDA
    round the operands of float32 products to 10 bits of mantissa, which is faster; switch it off to compare
    numbers. `whole` makes it an error when CUDA leaves any node of a graph to the CPU. `cuda_graph` records the
    training step of a whole batch and replays it, which saves the launches; elsewhere than on CUDA nothing is recorded.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    index: int = 0
    threads: int = 0
    tf32: bool = True
    whole: bool = False
    cuda_graph: bool = False

    @classmethod
    def choose(
        cls,
        name: DeviceName = "auto",
        *,
        index: int = 0,
        threads: int = 0,
        tf32: bool = True,
        whole: bool = False,
        cuda_graph: bool = False,
    ) -> Device:
        """Pick a device by name; `auto` is CUDA where it is there, else the CPU. Raises DeviceError."""
        if name not in ("auto", "cpu", "cuda"):
            raise DeviceError(f"the device '{name}' is unknown; it is one of 'auto', 'cpu' and 'cuda'")
        missing = why_no_cuda() if name != "cpu" else ""
        if name == "cuda" and missing:
            raise DeviceError(NO_CUDA.format(reason=missing))
        return cls("cpu" if missing or name == "cpu" else "cuda", index, threads, tf32, whole, cuda_graph)

    def providers(self, recorded: bool = False) -> list[tuple[str, dict[str, str]]]:
        """Return the execution providers with their options, as onnxruntime wants them.

        A `recorded` session runs as CUDA graphs.
        """
        if self.kind == "cpu":
            return [("CPUExecutionProvider", {})]
        options = {"device_id": str(self.index), "use_tf32": str(int(self.tf32))}
        if recorded:
            options["enable_cuda_graph"] = "1"
        return [("CUDAExecutionProvider", options)]


@functools.cache
def why_no_cuda() -> str:
    """Say in a part of a sentence why CUDA cannot be used here; empty where it can.

    Asks the driver itself, because onnxruntime lists CUDA wherever its wheel could use it, with or without a GPU.
    """
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this onnxruntime is built without it (install onnxruntime-gpu)"
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no GPU"
    return ""


@functools.cache
def _preload_cuda() -> None:
    """Load CUDA's and cuDNN's libraries from the nvidia wheels, where they lie outside the loader's path."""
    import onnxruntime as ort

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; opening a session tells better
        ort.preload_dlls()


def open_session(
    model: bytes | Path,
    device: Device,
    what: str = "graph",
    sizes: Mapping[str, int] | None = None,
    *,
    recorded: bool = False,
    shared: bool = False,
    planned: bool = False,
    reuse: bool = True,
) -> ort.InferenceSession:
    """Create the session of one graph.

    With `sizes`, symbolic dims are numbers: onnxruntime folds what is computed from them. A `recorded` session runs as
    CUDA graphs. On the CPU, `shared` sessions allocate in the arena that `new_arena` made last. With `planned`,
    tensors get their places there before a run, which saves a little time and takes up to twice the memory. With
    `reuse`, the memory of a tensor may be kept for a later one of its size.

    Raises ProgramError when onnxruntime refuses the graph, and DeviceError when CUDA does not start: there is no silent
    run on the CPU in its stead.
    """
    import onnxruntime as ort

    if device.kind == "cuda":
        _preload_cuda()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # The pattern is one more block as large as all tensors of a run, beside what the first run took.
    options.enable_mem_pattern = planned
    options.enable_mem_reuse = reuse
    options.intra_op_num_threads = device.threads
    for name, number in (sizes or {}).items():
        options.add_free_dimension_override_by_name(name, number)
    if shared and device.kind == "cpu":
        options.add_session_config_entry("session.use_env_allocators", "1")
    if device.kind == "cuda" and device.whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=device.providers(recorded),
            enable_fallback=0,
        )
    except Exception as error:
        if isinstance(model, Path) and not model.is_file():
            raise ProgramError(f"there is no {what} graph at {model}") from None
        if device.whole and "fallback to CPU" in str(error):
            raise DeviceError(f"some nodes of the {what} graph have no CUDA kernel and would run on the CPU") from error
        if device.cuda_graph and ("cuda graph" in str(error).lower() or "graph capture" in str(error).lower()):
            raise DeviceError(f"the {what} graph cannot be one CUDA graph: {_clean(error)}") from error
        raise ProgramError(f"onnxruntime refuses the {what} graph: {_clean(error)}") from error
    if device.kind == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceError(NO_CUDA.format(reason="onnxruntime could not load it (install onnxruntime-gpu[cuda,cudnn])"))
    return session


def new_arena(region: int = 0) -> None:
    """Let the `shared` sessions that are opened from now on allocate in a new arena on the CPU.

    Its first region has so many bytes, of which those count that are used; 0 leaves its size to onnxruntime, which
    knows one arena for the whole process to be shared: the one before goes when its last session does.
    """
    import onnxruntime as ort

    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = ort.OrtArenaCfg({"initial_chunk_size_bytes": min(region, MOST_AT_ONCE)}) if region else None
    ort.create_and_register_allocator(info, settings)


def give_back() -> None:
    """Return memory that the C library keeps for later to the system.

    Opening a session frees several times the model, and copying the first state to its place frees that state. Only
    GNU's C library has a call for it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def run_failure(error: Exception, doing: str) -> RunError:
    """Turn onnxruntime's exception from running a graph into one sentence."""
    return ProgramError(f"{doing} failed in onnxruntime: {_clean(error)}")


def ort_value(array: NDArray[Any], device: Device) -> ort.OrtValue:
    """Copy an array into memory of the device."""
    import onnxruntime as ort

    value = empty_value(array.shape, array.dtype, device)
    if device.kind == "cpu":
        value.numpy()[...] = array
        return value
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape), "cuda", device.index)


def empty_value(shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> ort.OrtValue:
    """Allocate memory of the device; its content is undefined."""
    import onnxruntime as ort

    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, device.kind, device.index)


def overwrite(value: ort.OrtValue, array: NDArray[Any], dtype: np.dtype[Any], name: str) -> None:
    """Copy an array into a value in place.

    The check is ours because `update_inplace` reinterprets the bytes of another dtype without a word.
    """
    if array.dtype != dtype or list(array.shape) != list(value.shape()):
        raise ValueError(f"'{name}' holds {dtype}{value.shape()}, not {array.dtype}{list(array.shape)}")
    value.update_inplace(np.ascontiguousarray(array).reshape(array.shape))


_ONNX_DTYPES: Mapping[str, str] = {
    "float": "float32", "double": "float64", "float16": "float16", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip


def numpy_dtype(onnx_type: str) -> np.dtype[Any]:
    """Return NumPy's dtype for onnxruntime's type text, such as `tensor(float)`."""
    name = _ONNX_DTYPES.get(onnx_type.removeprefix("tensor(").removesuffix(")"))
    if name is None:
        raise ProgramError(f"a graph declares the type {onnx_type}, which has no NumPy dtype")
    return np.dtype(name)


def _clean(error: Exception) -> str:
    """Drop onnxruntime's tags such as `[ONNXRuntimeError] : 1 : FAIL : ` from the front of a message."""
    return first_line(error).rsplit("[ONNXRuntimeError]", 1)[-1].split(" : ", 3)[-1].strip()
