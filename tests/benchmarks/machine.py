"""What the figures are taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("onnxruntime", "torch", "jax", "keras", "torchinfo")


def machine(threads: int, gpu: bool) -> dict[str, Any]:
    """Return processor, threads and versions as plain data; what is not installed is None."""
    found = {"cpu": _cpu(), "cpus": os.cpu_count(), "threads": threads, "system": platform.platform()}
    if gpu:
        found["gpu"] = _gpu()
    return {**found, "python": platform.python_version(), "versions": {name: _version(name) for name in PACKAGES}}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "a GPU that nvidia-smi does not name"


def _version(name: str) -> str | None:
    for distribution in (name, f"{name}-gpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None
