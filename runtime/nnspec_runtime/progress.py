"""What training tells while it runs: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Reporter(Protocol):
    """Be told how training goes; every call comes from the training thread, between two steps."""

    def begin(self, epochs: int, samples: int) -> None:
        """Training starts: so many epochs in all, so many samples in each."""

    def update(self, epoch: int, samples: int, means: Mapping[str, float], rate: float) -> None:
        """So many samples of an epoch (from 1) are done, with the running means and samples per second."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is complete: the record that goes into the history."""

    def end(self) -> None:
        """Training is over, for whatever reason."""


class Silent:
    """Tell nothing."""

    def begin(self, epochs: int, samples: int) -> None: ...
    def update(self, epoch: int, samples: int, means: Mapping[str, float], rate: float) -> None: ...
    def epoch(self, record: Mapping[str, Any]) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Write one line for each epoch."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._epochs = 0

    def begin(self, epochs: int, samples: int) -> None:
        self._epochs = epochs

    def update(self, epoch: int, samples: int, means: Mapping[str, float], rate: float) -> None: ...

    def epoch(self, record: Mapping[str, Any]) -> None:
        print(epoch_line(record, self._epochs), file=self._stream, flush=True)

    def end(self) -> None: ...


class Bar:
    """Show a bar for the running epoch, with a line left behind for each that is complete."""

    def __init__(self) -> None:
        self._epochs = 0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, epochs: int, samples: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("starting", total=samples, figures="")
        self._bar.start()

    def update(self, epoch: int, samples: int, means: Mapping[str, float], rate: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=f"epoch {epoch}/{self._epochs}",
                completed=samples,
                figures=f"{figures(means)}  {rate:,.0f} samples/s",
            )

    def epoch(self, record: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.console.print(epoch_line(record, self._epochs), highlight=False, markup=False)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def reporter(stream: IO[str] | None = None) -> Reporter:
    """Return a bar where the output is a terminal, and plain lines where it is not."""
    stream = stream or sys.stdout
    return Bar() if stream is sys.stdout and stream.isatty() else Lines(stream)


def figures(means: Mapping[str, float]) -> str:
    """Write figures as `loss 0.1234  accuracy 0.9876`."""
    return "  ".join(f"{name} {value:.4f}" for name, value in means.items())


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """Write the record of an epoch as one line."""
    validation = record["validation"]
    told = f"  |  validation {figures(validation)}" if validation else ""
    rate = record["samples"] / record["seconds"] if record["seconds"] else 0.0
    return f"epoch {record['epoch']}/{epochs}  {figures(record['train'])}{told}  |  {rate:,.0f} samples/s"
