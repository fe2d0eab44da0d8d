"""Schedules of the learning rate: a factor on the optimizer's `lr`, a function of the step counter alone.

t is the number of steps taken since the warm-up, which itself is linear from lr / warmup to lr.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from nnspec.recipe.base import Above, Natural, Positive, Schedule, Time, Unit

if TYPE_CHECKING:
    import onnx_ir as ir

Per = Literal["epoch", "step"]


def _count(time: Time, t: ir.Value, per: Per) -> ir.Value:
    return time.whole_epochs(t) if per == "epoch" else t


class Constant(Schedule, keyword="constant"):
    """The same rate throughout, after a warm-up: `constant(warmup = 100)`; factor 1."""

    warmup: Natural = 0
    """Steps of linear warm-up."""

    def scale(self, time: Time) -> ir.Value | None:
        return time.warm(self.warmup, lambda t: time.op.constant(1.0, "float64")) if self.warmup else None


class Step(Schedule, keyword="step"):
    """A lower rate every few epochs: `step(10, 0.5)`; factor^floor(t / every)."""

    every: Positive
    """How many epochs (or steps) lie between changes."""
    factor: Above = 0.1
    """What the rate is multiplied by each time."""
    per: Per = "epoch"
    """Whether `every` counts epochs or steps."""
    warmup: Natural = 0
    """Steps of linear warm-up."""

    def scale(self, time: Time) -> ir.Value:
        op = time.op

        def shape(t: ir.Value) -> ir.Value:
            changes = op.Floor(op.Div(_count(time, t, self.per), float(self.every)))
            value: ir.Value = op.Pow(op.constant(self.factor, "float64"), changes)
            return value

        return time.warm(self.warmup, shape)


class Exponential(Schedule, keyword="exponential"):
    """A rate that falls by the same factor each epoch: `exponential(0.95)`; factor^t."""

    factor: Above
    """What the rate is multiplied by each time."""
    per: Per = "epoch"
    """Whether it falls with each epoch or with each step."""
    warmup: Natural = 0
    """Steps of linear warm-up."""

    def scale(self, time: Time) -> ir.Value:
        op = time.op
        return time.warm(self.warmup, lambda t: op.Pow(op.constant(self.factor, "float64"), _count(time, t, self.per)))


class Annealed(Schedule):
    """Base of the schedules that end after `steps`, after `epochs`, or with the training; the warm-up counts too."""

    warmup: Natural = 0
    """Steps of linear warm-up."""
    steps: Positive | None = None
    """Steps until the end."""
    epochs: Positive | None = None
    """Epochs until the end; those of the training where neither this nor `steps` is given."""
    floor: Unit = 0.0
    """The factor at the end, kept afterwards."""

    @model_validator(mode="after")
    def _ends_once(self) -> Annealed:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give `steps` or `epochs`, not both")
        if self.steps is not None and self.steps <= self.warmup:
            raise ValueError(f"the schedule ends after {self.steps} steps, within its warm-up of {self.warmup}")
        return self

    def scale(self, time: Time) -> ir.Value:
        op = time.op
        if self.steps is not None:
            length = op.constant(float(self.steps - self.warmup), "float64")
        else:
            epochs = op.constant(float(self.epochs), "float64") if self.epochs is not None else time.epochs()
            total = op.Mul(epochs, time.per_epoch())
            length = op.Max(op.Sub(total, float(self.warmup)), op.constant(1.0, "float64"))

        def shape(t: ir.Value) -> ir.Value:
            progress = op.Min(op.Div(t, length), op.constant(1.0, "float64"))
            value: ir.Value = op.Add(op.Mul(self.fall(time, progress), 1 - self.floor), self.floor)
            return value

        return time.warm(self.warmup, shape)

    def fall(self, time: Time, progress: ir.Value) -> ir.Value:
        """Return what falls from 1 to 0 while `progress` rises from 0 to 1."""
        raise NotImplementedError


class Cosine(Annealed, keyword="cosine"):
    """Cosine annealing (Loshchilov and Hutter 2017): `cosine(warmup = 100)`; (1 + cos(pi t / steps)) / 2.

    The factor falls from 1 to `floor`: floor + (1 - floor) times that.
    """

    def fall(self, time: Time, progress: ir.Value) -> ir.Value:
        op = time.op
        value: ir.Value = op.Mul(op.Add(op.Cos(op.Mul(progress, math.pi)), 1.0), 0.5)
        return value


class Linear(Annealed, keyword="linear"):
    """Linear decay: `linear(warmup = 100)`; 1 - t / steps, from 1 to `floor` as in `cosine`."""

    def fall(self, time: Time, progress: ir.Value) -> ir.Value:
        value: ir.Value = time.op.Sub(1.0, progress)
        return value


class InverseSqrt(Schedule, keyword="inverse_sqrt"):
    """Inverse square root (Vaswani et al. 2017): `inverse_sqrt(4000)`; min(n / warmup, sqrt(warmup / n)).

    n is the number of the step, from 1; the factor is 1 at the end of the warm-up.
    """

    warmup: Positive
    """Steps of linear warm-up."""

    def scale(self, time: Time) -> ir.Value:
        op, n, warmup = time.op, time.number, float(self.warmup)
        value: ir.Value = op.Min(op.Div(n, warmup), op.Sqrt(op.Div(warmup, n)))
        return value
