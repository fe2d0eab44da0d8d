"""What can go wrong while a program runs, each told in one clear sentence.

RunError
├── ProgramError     the training program (manifest, graphs, initial state) is not usable
├── DataError        the data do not fit the declared inputs
├── WeightsError     a weights file is not usable or does not fit the program
│   └── CheckpointError  the same for a checkpoint
├── DeviceError      the device asked for is not there
├── OutputError      a result cannot be written
└── DivergedError    the loss is no longer a finite number
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class RunError(Exception):
    """Say what went wrong, one sentence for each independent problem, fit to be shown without a traceback."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


class ProgramError(RunError):
    """The manifest, a graph or the initial state of a program is not usable."""


class DataError(RunError):
    """The data do not fit the inputs that the program declares."""


class WeightsError(RunError):
    """A weights file is not usable or does not fit the program."""


class CheckpointError(WeightsError):
    """A checkpoint is not usable or belongs to another run."""


class DeviceError(RunError):
    """The device asked for is not there."""


class OutputError(RunError):
    """A result cannot be written where it should go."""


class DivergedError(RunError):
    """The loss became infinite or not a number."""

    def __init__(self, *problems: str, step: int = 0) -> None:
        super().__init__(*problems)
        self.step = step


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the name nearest to `name`, or nothing when none is near."""
    found = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def listing(names: Sequence[str], limit: int = 6) -> str:
    """Join quoted names for a sentence, the first `limit` of them and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def shape_text(shape: Sequence[int | str]) -> str:
    """Write a shape as `[batch, 1, 28, 28]`."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, for use inside a sentence of our own."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
