"""Training: epochs of steps, validation, early stopping, checkpoints, and a clean stop on Ctrl-C."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnspec_runtime.batches import Batches, Loader, open_loader
from nnspec_runtime.checkpoint import (
    WEIGHT_KINDS,
    Position,
    fit_weights,
    load_checkpoint,
    save_checkpoint,
)
from nnspec_runtime.data import Dataset
from nnspec_runtime.errors import CheckpointError, DivergedError, OutputError, first_line
from nnspec_runtime.evaluate import Evaluator
from nnspec_runtime.metrics import Averages
from nnspec_runtime.order import epoch_order
from nnspec_runtime.program import Program
from nnspec_runtime.progress import Reporter, Silent
from nnspec_runtime.session import Device
from nnspec_runtime.stepper import TrainingSession
from nnspec_runtime.weights import load_weights, remove_leftovers, save_weights, write_atomically

Array = NDArray[Any]

CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
HISTORY = "history.json"

# Seconds between two reports of progress.
_REPORT = 0.1


@dataclass(frozen=True)
class Result:
    """How training ended. `weights` are the best where early stopping is on, else the last; buffers included."""

    weights: Mapping[str, Array]
    history: tuple[Mapping[str, Any], ...]
    steps: int
    seconds: float
    interrupted: bool = False
    stopped_early: bool = False
    best_epoch: int | None = None


class Trainer:
    """Train a program on a data set.

    `out` is the folder for checkpoint.safetensors, weights.safetensors and history.json; without it nothing is written.
    `resume` goes on from the checkpoint there, or from the beginning when training was cut off before the first.
    `epochs` overrides the program's own number. A checkpoint is written after every epoch, and within one every
    `checkpoint_seconds` and every `checkpoint_steps` (None: never). Raises ProgramError, DeviceError,
    WeightsError, CheckpointError, OutputError.
    """

    def __init__(
        self,
        program: Program,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        out: str | PathLike[str] | None = None,
        device: Device | None = None,
        epochs: int | None = None,
        weights: Mapping[str, Array] | None = None,
        resume: bool = False,
        checkpoint_seconds: float | None = 60.0,
        checkpoint_steps: int | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        settings = program.settings
        self.program = program
        self.data = data
        self.epochs = settings.epochs if epochs is None else epochs
        self.session = TrainingSession(program, device)
        self._batches = Batches(data, self.session.inputs, settings.batch)
        self._lengths = None if settings.carry else data.lengths
        self._averages = Averages(program.manifest.figures)
        self._evaluator = Evaluator(program, validation, self.session.device) if validation is not None else None
        self._reporter = reporter or Silent()
        self._checkpoint_seconds = math.inf if checkpoint_seconds is None else checkpoint_seconds
        self._checkpoint_steps = checkpoint_steps or 0
        self._stop_asked = False
        self._best: Mapping[str, Array] | None = None
        self.position = Position(
            network=program.manifest.network, train=program.manifest.train,
            seed=settings.seed, batch=settings.batch, samples_total=data.size,
        )  # fmt: skip
        self.resumed = False
        self.out = Path(out) if out is not None else None
        if weights is not None:
            self.session.load(fit_weights(program, weights))
        if self.out is not None:
            self._open_folder(self.out, resume)  # where there is a checkpoint to resume, it wins over `weights`
        elif resume:
            raise CheckpointError("there is nothing to resume without an output folder")
        self.session.load(self._durations())

    def ask_to_stop(self) -> None:
        """Let `fit` finish the running step, save and return; safe to call from a signal handler or another thread."""
        self._stop_asked = True

    def fit(self) -> Result:
        """Train until the last epoch, early stopping or Ctrl-C. Raises DivergedError when the loss is not finite."""
        began, before = time.perf_counter(), self.position.seconds
        self._stop_asked = False
        interrupted = False
        loader = open_loader(self._batches)
        self._reporter.begin(self.epochs, self.data.size)
        try:
            with self._interruptible():
                while self.position.epoch < self.epochs and not self._out_of_patience():
                    if self._train_epoch(loader, began - before):
                        self._end_epoch(began - before)
                    if self._stop_asked:
                        interrupted = self.position.epoch < self.epochs
                        break
        finally:
            loader.close()
            self._reporter.end()
        return self._finish(interrupted)

    def _durations(self) -> dict[str, Array]:
        """Return the constants that a schedule of the learning rate reads, where the program has such a schedule."""
        steps = -(-self.data.size // self.program.settings.batch)
        known = {"steps_per_epoch": steps, "epochs": self.epochs}
        constants = [one for one in self.program.manifest.state if one.kind == "constant" and one.name in known]
        return {one.name: np.array(known[one.name], one.numpy) for one in constants}

    def _train_epoch(self, loader: Loader, began: float) -> bool:
        """Train on the batches of the epoch that are left; False when asked to stop before its end."""
        session, averages, batches, settings = self.session, self._averages, self._batches, self.program.settings
        epoch, first, step = self.position.epoch, self.position.batch_index, self.position.step
        batches.begin(
            epoch_order(
                self.data.size, batches.batch, settings.seed, epoch, shuffle=not settings.carry, lengths=self._lengths
            )
        )
        if first == 0:
            averages.reset()
            if settings.carry:
                session.reset_carry()
        clock, finite = time.perf_counter, math.isfinite
        start, finish, advance, add = loader.start, loader.finish, session.advance, averages.add
        slots, count = session.slots, batches.count
        entered, trained = clock(), averages.samples
        next_report = entered + _REPORT
        next_save = entered + self._checkpoint_seconds
        steps_left = self._checkpoint_steps or -1
        if first < count:
            start(first, slots[session.turn])
        for index in range(first, count):
            finish()
            rows = batches.batch
            if index + 1 < count:
                start(index + 1, slots[1 - session.turn])
            else:
                rows = batches.last
                if settings.carry:
                    session.narrow_carry(rows)
            values = advance()
            step += 1
            if not finite(values[0]) and self._counts(values):
                raise self._diverged(values[0], step, epoch, index)
            add(values, rows)
            steps_left -= 1
            now = clock()
            if now >= next_report:
                rate = (averages.samples - trained) / (now - entered)
                self._reporter.update(epoch + 1, averages.samples, averages.means(), rate)
                next_report = now + _REPORT
            # The end of an epoch is saved with its record by the caller.
            if index + 1 < count and (now >= next_save or steps_left == 0 or self._stop_asked):
                self._move(began, step=step, batch_index=index + 1, **averages.snapshot())
                self._save()
                if self._stop_asked:
                    finish()
                    return False
                next_save = clock() + self._checkpoint_seconds
                steps_left = self._checkpoint_steps or -1
        self._move(began, step=step, batch_index=count)
        return True

    def _end_epoch(self, began: float) -> None:
        """Validate, write the record of the epoch, keep the best weights, save."""
        epoch = self.position.epoch
        validation = None
        if self._evaluator is not None:
            self._evaluator.bind_state(self.session.values())
            validation = self._evaluator.run()
        earlier = sum(record["seconds"] for record in self.position.history)
        seconds = time.perf_counter() - began
        record = {
            "epoch": epoch + 1,
            "step": self.position.step,
            "samples": self._averages.samples,
            "seconds": round(seconds - earlier, 6),
            "train": self._averages.means(),
            "validation": validation,
        }
        previous_best = self.position.best_epoch
        self._note_best(validation or record["train"], epoch)
        self._move(
            began, epoch=epoch + 1, batch_index=0, sums=(), weights=(), samples=0,
            history=(*self.position.history, record),
        )  # fmt: skip
        self._save()
        if self.out is not None:
            if previous_best is not None and previous_best != self.position.best_epoch:
                self._best_path(previous_best).unlink(missing_ok=True)
            self._write_history(self.out)
        self._reporter.epoch(record)

    def _note_best(self, figures: Mapping[str, float], epoch: int) -> None:
        """Keep the weights when the metric of early stopping is the best so far.

        They go into a file of their own, named after the epoch, before the checkpoint names it: whenever the process is
        killed, the checkpoint on the disk names a file that is whole.
        """
        stop = self.program.settings.stop
        if stop is None:
            return
        value, best = figures[stop.metric], self.position.best
        smaller = self.program.manifest.figure(stop.metric).smaller_is_better
        if math.isnan(value) or (
            best is not None and not (value < best - stop.min_delta if smaller else value > best + stop.min_delta)
        ):
            return
        self._best = self._weights()
        if self.out is not None:
            save_weights(self._best_path(epoch), self._best)
        self.position = self.position.model_copy(update={"best": value, "best_epoch": epoch})

    def _out_of_patience(self) -> bool:
        stop, best = self.program.settings.stop, self.position.best_epoch
        if stop is None or self.position.batch_index:
            return False
        return self.position.epoch - 1 - (-1 if best is None else best) >= stop.patience

    def _finish(self, interrupted: bool) -> Result:
        """Write the final files."""
        position = self.position
        best = position.best_epoch
        weights = self._best if best is not None and self._best is not None else self._weights()
        if self.out is not None:
            save_weights(self.out / WEIGHTS, weights)
            self._write_history(self.out)
        return Result(
            weights,
            position.history,
            position.step,
            position.seconds,
            interrupted,
            stopped_early=not interrupted and position.epoch < self.epochs,
            best_epoch=None if best is None else best + 1,
        )

    def _weights(self) -> dict[str, Array]:
        state = self.session.state()
        return {one.name: state[one.name] for one in self.program.manifest.state if one.kind in WEIGHT_KINDS}

    def _move(self, began: float, **changes: Any) -> None:
        self.position = self.position.model_copy(update={**changes, "seconds": time.perf_counter() - began})

    def _save(self) -> None:
        if self.out is not None:
            save_checkpoint(self.out / CHECKPOINT, self.session.state(), self.position)

    def _write_history(self, out: Path) -> None:
        content = {
            "network": self.program.manifest.network,
            "train": self.program.manifest.train,
            "epochs": [_plain(record) for record in self.position.history],
        }
        text = json.dumps(content, indent=1) + "\n"

        def write(path: Path) -> None:
            path.write_text(text, encoding="utf-8")

        write_atomically(out / HISTORY, write)

    def _best_path(self, epoch: int) -> Path:
        assert self.out is not None
        return self.out / f"best-{epoch + 1}.safetensors"

    def _open_folder(self, out: Path, resume: bool) -> None:
        """Make the output folder and read the checkpoint to go on from."""
        if resume and not out.is_dir():
            raise CheckpointError(f"there is no training run to resume: {out} is not a folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to the folder {out}: {error.strerror or first_line(error)}") from error
        for name in (CHECKPOINT, WEIGHTS, HISTORY, "best-*.safetensors"):
            remove_leftovers(out, name)
        if resume and (out / CHECKPOINT).exists():
            state, position = load_checkpoint(out / CHECKPOINT, self.program)
            position.must_match(self.position, out / CHECKPOINT)
            self.session.load(state)
            self.position = position
            if position.batch_index:
                self._averages.restore(position.sums, position.weights, position.samples)
            if position.best_epoch is not None:
                self._best = fit_weights(self.program, load_weights(self._best_path(position.best_epoch)))
            self.resumed = True
        for stale in out.glob("best-*.safetensors"):
            if self.position.best_epoch is None or stale != self._best_path(self.position.best_epoch):
                stale.unlink(missing_ok=True)
        if not self.resumed:
            save_checkpoint(out / CHECKPOINT, self.session.state(), self.position)

    def _counts(self, values: list[float]) -> bool:
        """Whether the loss of this batch is a mean over anything."""
        weight = self._averages.figures[0].weight
        return weight is None or values[self._averages.outputs.index(weight)] != 0

    def _diverged(self, loss: float, step: int, epoch: int, index: int) -> DivergedError:
        word = "NaN" if np.isnan(loss) else "infinite"
        kept = ""
        if self.out is not None:
            kept = f"; the checkpoint in {self.out} is from before"
        return DivergedError(
            f"the loss became {word} in step {step} (epoch {epoch + 1}, batch {index + 1}): "
            f"try a lower learning rate or gradient clipping{kept}",
            step=step,
        )

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let the first Ctrl-C ask to stop, and a second one end at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            self.ask_to_stop()
            signal.signal(signal.SIGINT, before)

        before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL  # None: set by C code, out of Python's reach
        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _plain(value: Any) -> Any:
    """Replace figures that JSON cannot write, NaN and the infinities, by null."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
