"""`Recipe`: a whole train block as validated, frozen data."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from nnspec.ir import Frozen, Network, Output
from nnspec.recipe.base import AnyClip, AnyOptimizer, AnyRegularizer, AnySchedule, AnyStop, Natural, Positive
from nnspec.recipe.stops import Patience


class Recipe(Frozen):
    """What a `train` block says.

    `network` is the base network extended by the targets, as inputs, and by the nodes of loss and metrics; its outputs
    are still the base network's. `loss` and the values of `metrics` are names of scalar values in it.
    """

    name: str
    network: Network
    targets: tuple[str, ...] = ()
    """The inputs that are known in training only."""
    loss: str
    """The value to minimise: a scalar without a batch axis."""
    metrics: tuple[Output, ...] = ()
    """Scalars to report, under their names."""
    optimizer: AnyOptimizer
    schedule: AnySchedule | None = None
    regularize: tuple[AnyRegularizer, ...] = ()
    clip: AnyClip | None = None
    stop: AnyStop | None = None
    batch: Positive = 32
    """Samples in a step."""
    epochs: Positive = 10
    """Passes over the data."""
    seed: Natural = 0
    """Where initial weights, the order of the data and random layers start from."""
    carry: bool = False
    """Whether recurrent states go on from batch to batch."""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """What products and convolutions of the step compute in; weights and optimizer state are float32 always."""
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        types = self.network.types()
        inputs = {i.name for i in self.network.inputs}
        if missing := [t for t in self.targets if t not in inputs]:
            raise ValueError(f"the target {missing[0]} is no input of the network")
        for what, value in (("loss", self.loss), *((f"metric {m.name}", m.value) for m in self.metrics)):
            if value not in types:
                raise ValueError(f"the {what} reads {value}, which nothing gives")
            found = types[value]
            if found.shape or found.batch or found.dtype != "float32":
                raise ValueError(f"the {what} has to be one number for the whole batch, and {value} is {found}")
        names = [m.name for m in self.metrics]
        if "loss" in names:
            raise ValueError("no metric may be called loss")
        if twice := [n for n in names if names.count(n) > 1]:
            raise ValueError(f"two metrics are called {twice[0]}")
        if isinstance(self.stop, Patience) and self.stop.metric not in ("loss", *names):
            raise ValueError(f"stop watches {self.stop.metric}, which is neither the loss nor a metric")
        return self

    def to_json(self, indent: int | None = None) -> str:
        """Return the recipe as JSON."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Recipe:
        """Read a recipe that `to_json` wrote; raise pydantic.ValidationError for anything else."""
        return cls.model_validate_json(text)
