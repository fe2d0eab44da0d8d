"""What all settings of a train block share: the registry, argument types, and what each slot's classes provide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

if TYPE_CHECKING:
    import onnx_ir as ir

    from nnspec.ops import Ops

Slot = Literal["optimizer", "schedule", "clip", "regularize", "stop"]

Positive = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Above = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
"""A number above 0."""
AtLeast = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
"""A number of at least 0."""
Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
"""A number in [0, 1)."""
Unit = Annotated[float, Field(ge=0, le=1, strict=True)]
"""A number in [0, 1]."""

_REGISTRY: dict[str, type[Setting]] = {}


class Setting(BaseModel):
    """Base of everything that a setting of a train block can be: `class Adam(Optimizer, keyword="adam")`.

    The fields are the arguments, in the order in which they may be given without a name. The first line of the
    docstring shows the .nn form and the formula.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    keyword: ClassVar[str] = ""
    slot: ClassVar[Slot]

    def __init_subclass__(cls, keyword: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, keyword: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if keyword:
            if keyword in _REGISTRY:
                raise TypeError(f"two settings are called {keyword}")
            cls.keyword = keyword
            _REGISTRY[keyword] = cls


def registry() -> Mapping[str, type[Setting]]:
    """Return every setting class by keyword."""
    import nnspec.recipe  # noqa: F401  (registers them)

    return _REGISTRY


@dataclass
class Time:
    """What of the progress of training a step graph can see; numbers are float64 scalars, exact to 2^53 steps.

    `per_epoch` and `epochs` give the numbers of steps in an epoch and of epochs to train, which only the trainer knows.
    """

    op: Ops
    step: ir.Value
    """How many steps were taken before this one: an int64 scalar."""
    per_epoch: Callable[[], ir.Value]
    epochs: Callable[[], ir.Value]

    @cached_property
    def done(self) -> ir.Value:
        """The number of steps before this one."""
        import onnx_ir as ir

        value: ir.Value = self.op.Cast(self.step, to=int(ir.DataType.DOUBLE))
        return value

    @cached_property
    def number(self) -> ir.Value:
        """The number of this step, from 1."""
        value: ir.Value = self.op.Add(self.done, 1.0)
        return value

    def warm(self, warmup: int, factor: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """Return `factor` of the steps after the warm-up, times a linear rise from 1 / warmup to 1 during it."""
        if not warmup:
            return factor(self.done)
        op = self.op
        rise = op.Min(op.Div(self.number, float(warmup)), op.constant(1.0, "float64"))
        value: ir.Value = op.Mul(rise, factor(op.Max(op.Sub(self.done, float(warmup)), op.constant(0.0, "float64"))))
        return value

    def whole_epochs(self, steps: ir.Value) -> ir.Value:
        """Return how many epochs were finished after `steps` steps."""
        value: ir.Value = self.op.Floor(self.op.Div(steps, self.per_epoch()))
        return value

    def single(self, value: ir.Value) -> ir.Value:
        """Return a scalar as float32, as the weights are."""
        import onnx_ir as ir

        out: ir.Value = self.op.Cast(value, to=int(ir.DataType.FLOAT))
        return out


Scalar = Any
"""A number known now, or the float32 scalar that a graph computes."""


class Optimizer(Setting):
    """Base of the optimizers: how a weight moves, given its gradient."""

    slot = "optimizer"
    decays: ClassVar[bool] = False
    """Whether it treats weights that decay otherwise than the rest."""
    lr: Above

    def slots(self) -> tuple[str, ...]:
        """Return the names of the tensors kept for each weight; they have its shape and start at zero."""
        return ()

    def scalars(self, time: Time, factor: ir.Value | None) -> Any:
        """Return what the updates of all weights share; `factor` is the schedule's float64 scalar."""
        return self.rate(time, factor)

    def rate(self, time: Time, factor: ir.Value | None, scale: float = 1.0) -> Scalar:
        """Return the learning rate of this step times `scale`."""
        if factor is None:
            return self.lr * scale
        return time.single(time.op.Mul(factor, self.lr * scale))

    def update(
        self, op: Ops, w: ir.Value, g: ir.Value, state: Mapping[str, ir.Value], scalars: Any, *, decay: bool
    ) -> tuple[ir.Value, dict[str, ir.Value]]:
        """Return the weight after the step, and its state; `decay` says whether weight decay applies to it."""
        raise NotImplementedError


class Schedule(Setting):
    """Base of the learning rate's schedules: a factor on the optimizer's `lr`, computed in the graph."""

    slot = "schedule"

    def scale(self, time: Time) -> ir.Value | None:
        """Return the factor as a float64 scalar; None for 1."""
        raise NotImplementedError


class Clip(Setting):
    """Base of the ways to bound gradients; regularisation is added after it, as PyTorch's `weight_decay` is."""

    slot = "clip"

    def apply(self, op: Ops, gradients: Sequence[ir.Value]) -> list[ir.Value]:
        """Return the bounded gradients."""
        raise NotImplementedError


class Regularizer(Setting):
    """Base of the penalties on weights: matrices and kernels, not biases nor normalisation's parameters.

    A penalty acts on the gradient, as PyTorch's `weight_decay` does; the reported loss is without it.
    """

    slot = "regularize"

    def add(self, op: Ops, weight: ir.Value, gradient: ir.Value) -> ir.Value:
        """Return the gradient of the penalised loss."""
        raise NotImplementedError


class Stop(Setting):
    """Base of the rules that end training early."""

    slot = "stop"


def setting_json(setting: Setting) -> dict[str, Any]:
    """Return a setting as plain data: its kind, then its arguments."""
    return {"kind": setting.keyword, **setting.model_dump(mode="json")}


def _loader(slot: Slot) -> Callable[[Any], Any]:
    def load(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        fields = dict(value)
        kind = fields.pop("kind", None)
        found = registry().get(kind) if isinstance(kind, str) else None
        if found is None or found.slot != slot:
            raise ValueError(f"unknown {slot} {kind!r}")
        return found.model_validate(fields)

    return load


_PLAIN = PlainSerializer(setting_json, return_type=dict[str, Any])
AnyOptimizer = Annotated[Optimizer, BeforeValidator(_loader("optimizer")), _PLAIN]
AnySchedule = Annotated[Schedule, BeforeValidator(_loader("schedule")), _PLAIN]
AnyClip = Annotated[Clip, BeforeValidator(_loader("clip")), _PLAIN]
AnyRegularizer = Annotated[Regularizer, BeforeValidator(_loader("regularize")), _PLAIN]
AnyStop = Annotated[Stop, BeforeValidator(_loader("stop")), _PLAIN]
