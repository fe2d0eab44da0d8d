"""The harness's end of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .frameworks import Setup

ROOT = Path(__file__).parents[2]


class Failure(RuntimeError):
    """A framework that cannot do what it was asked for, with the reason that it gave."""


class Worker:
    """A process that trains one case in one framework; it has done one step when it is there. Raises Failure."""

    def __init__(self, framework: str, case: str, setup: Setup, mode: str = "serve") -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        # What was compiled earlier is not to be found again, for the time to the first step is told.
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(Path(setup.weights) / f"{case}-inductor-{setup.tf32}")}
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", framework, case, mode, json.dumps(setup.as_json())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **cache},
        )
        try:
            self.first: dict[str, Any] = self._read()
        except Failure:
            self.close()
            raise
        self.first_step = time.perf_counter() - began
        """Seconds from the start of the process to the end of the first step, or of all in the mode `memory`."""

    def ask(self, command: str) -> dict[str, Any]:
        """Return the answer to a command. Raises Failure."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failure(self._last_words()) from None
        return self._read()

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failure(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def _last_words(self) -> str:
        """Say how the process ended, and the last that it wrote to stderr."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"the process ended with status {status}" + (f": {lines[-1]}" if lines else "")
