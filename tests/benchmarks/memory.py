"""What a process holds of memory, by Linux's own account of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from dataclasses import asdict, dataclass
from pathlib import Path

PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Memory:
    """Peaks of resident memory in bytes.

    `process` is that of the whole process, libraries included, from its start to the end of some training steps.
    `training` is what it holds at the peak of those steps beyond what it held before the network and its data existed.
    Where the kernel does not let the peak be reset, it may be that of compiling instead: then it is not `exact`.
    """

    process: int
    training: int
    exact: bool

    def as_json(self) -> dict[str, int | bool]:
        """Return it as plain data."""
        return asdict(self)


class Meter:
    """Measure a process from here on: make one when the framework is loaded, before the network is."""

    def __init__(self, process: Path = PROCESS) -> None:
        self._process = process
        _give_back()
        self._before = self._read("VmRSS")
        self._peak = 0
        self._exact = False

    def steps_begin(self) -> None:
        """Forget the peak so far for `training`; what follows are training steps and nothing else."""
        self._peak = self._read("VmHWM")
        _give_back()
        # "5" sets the peak to what is resident now (proc_pid_clear_refs(5)).
        with contextlib.suppress(OSError):
            (self._process / "clear_refs").write_text("5")
            self._exact = True

    def memory(self) -> Memory:
        """Return the peaks until now."""
        now = self._read("VmHWM")
        return Memory(max(self._peak, now), max(0, now - self._before), self._exact)

    def _read(self, name: str) -> int:
        for line in (self._process / "status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
        raise RuntimeError(f"{self._process / 'status'} does not tell {name}")


def _give_back() -> None:
    """Return freed memory to the system: what training takes of it later would not be seen as taken."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)
