"""A training program: the manifest and the three graphs it names.

`runtime/README.md` documents the format for programs in any language.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from nnspec_runtime.errors import ProgramError, first_line, listing, shape_text
from nnspec_runtime.weights import StoredTensors

Array = NDArray[Any]
Model = bytes | Path
Dim = int | str
DType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]

FORMAT = "nnspec-training"
VERSION = 1


class _Part(BaseModel):
    # Unknown keys are ignored, so that a later writer may say more without breaking this reader.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Alignment(_Part):
    """What a CTC loss makes of a label: it is aligned with `steps`, a size that may be computed from symbolic ones."""

    steps: Dim
    blank: int = 0
    zero_infinity: bool = False


class Input(_Part):
    """One array of a batch. Axis 0 is the batch; a string is a symbolic size, one size wherever the name stands."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...] = Field(min_length=1)
    role: Literal["input", "target", "lengths"] = "input"
    lengths: str | None = None
    of: str | None = None
    classes: PositiveInt | None = None
    alignment: Alignment | None = None

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


class State(_Part):
    """One tensor that lives from step to step; `output` is null where no step changes it.

    `in_place`: on a CPU, the step graph may read and write it in one buffer.
    """

    name: str
    input: str
    output: str | None = None
    dtype: DType
    shape: tuple[Dim, ...] = ()
    kind: Literal["weight", "frozen", "buffer", "optimizer", "counter", "constant", "carry"]
    in_place: bool = False

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)


class Figure(_Part):
    """A scalar output: a mean over the batch. `weight` names the output that it is weighed by over an epoch.

    `goal` says whether a smaller or a larger figure is better (early stopping); left out, the loss is
    to fall and a metric to rise.
    """

    name: str = "loss"
    output: str
    weight: str | None = None
    goal: Literal["min", "max"] | None = None

    @property
    def smaller_is_better(self) -> bool:
        return (self.goal or ("min" if self.name == "loss" else "max")) == "min"


class Output(_Part):
    """One result of the predict graph."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...] = Field(min_length=1)


class Stop(_Part):
    """End training once the metric has not improved for `patience` epochs, and keep the best weights.

    Only a change by more than `min_delta` is an improvement.
    """

    patience: PositiveInt
    metric: str = "loss"
    min_delta: float = Field(default=0.0, ge=0)


class Settings(_Part):
    """How to train: all of it may be set anew by who runs the program."""

    batch: PositiveInt = 32
    epochs: PositiveInt = 1
    seed: int = Field(default=0, ge=0)
    stop: Stop | None = None
    carry: bool = False
    bucket: bool = False
    precision: str = "float32"


class Work(_Part):
    """What one training step does at the batch of the settings."""

    macs: int = Field(ge=0)
    """Multiply-adds of its products and convolutions."""
    bytes: int = Field(ge=0)
    """Of all tensors that it makes, whether they live at once or not."""
    reuse: bool = True
    """Whether it takes less memory on a CPU where it is planned beforehand which tensors share some."""
    region: int = Field(default=0, ge=0)
    """Bytes that a CPU's allocator should begin with, so that it takes least memory; 0 where that is left to it."""


class Files(_Part):
    """File names beside the manifest; null where there is no such graph."""

    step: str | None = None
    eval: str | None = None
    predict: str | None = None
    state: str | None = None


class Manifest(_Part):
    """Names every input and output of the graphs of a training program."""

    format: Literal["nnspec-training"]
    version: Literal[1]
    network: str
    train: str | None = None
    files: Files = Files()
    inputs: tuple[Input, ...]
    state: tuple[State, ...] = ()
    loss: Figure | None = None
    metrics: tuple[Figure, ...] = ()
    outputs: tuple[Output, ...] = ()
    settings: Settings = Settings()
    work: Work | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Manifest:
        for kind, names in (
            ("input", [one.name for one in self.inputs]),
            ("state", [one.name for one in self.state]),
            ("metric", [one.name for one in self.metrics]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
            if twice:
                raise ValueError(f"{kind} {listing(twice)} is named twice")
        known = {one.name for one in self.inputs}
        for one in self.inputs:
            if one.role == "lengths" and one.of not in known:
                raise ValueError(f"lengths '{one.name}' must say which input it is of, and that input must be there")
        stop = self.settings.stop
        if stop and stop.metric not in self.figure_names:
            raise ValueError(f"settings.stop.metric '{stop.metric}' is none of {listing(self.figure_names)}")
        return self

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The loss, then the metrics."""
        return ((self.loss,) if self.loss else ()) + self.metrics

    @property
    def figure_names(self) -> list[str]:
        return [figure.name for figure in self.figures]

    def figure(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)


@dataclass(frozen=True)
class Program:
    """Hold a manifest with its graphs and its initial state, from disk or from memory.

    Graphs are serialised ONNX models or paths to them. Raises ProgramError when the manifest is not valid.
    """

    manifest: Manifest
    step: Model | None = None
    eval: Model | None = None
    predict: Model | None = None
    state: Mapping[str, Array] | Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.manifest, Manifest):
            object.__setattr__(self, "manifest", parse_manifest(self.manifest))
        for name in ("step", "eval", "predict", "state"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Program:
        """Read the manifest at `path`; the graphs stay on disk until a session opens them."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ProgramError(f"cannot read the manifest {path}: {error.strerror or first_line(error)}") from error
        except ValueError as error:
            raise ProgramError(f"{path} is not a manifest: it is not JSON ({first_line(error)})") from error
        manifest = parse_manifest(content, str(path))
        return cls(manifest, **{name: _beside(path, file) for name, file in manifest.files if file is not None})

    @property
    def settings(self) -> Settings:
        return self.manifest.settings

    def graph(self, name: Literal["step", "eval", "predict"]) -> Model:
        """Return one graph; ProgramError when the program has none of that name."""
        model: Model | None = getattr(self, name)
        if model is None:
            raise ProgramError(f"the program of network '{self.manifest.network}' has no {name} graph")
        return model

    def declared_inputs(self, which: Literal["step", "eval", "predict"]) -> set[str]:
        """Return the names of the inputs that a graph declares, without opening a session."""
        import onnx

        model = self.graph(which)
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            proto = onnx.load_model_from_string(content)
        except FileNotFoundError as error:
            raise ProgramError(f"there is no {which} graph at {error.filename}") from None
        except Exception as error:  # protobuf has its own exceptions, another in each implementation
            raise ProgramError(f"the {which} graph is not an ONNX model: {first_line(error)}") from error
        return {one.name for one in proto.graph.input}

    def initial_state(self, kind: str | None = None) -> dict[str, Array]:
        """Return the state that training starts from, by name; with `kind` that of one kind alone. See `starting`."""
        return {one.name: array for one, array in self.starting(kind)}

    def starting(self, kind: str | None = None) -> Iterator[tuple[State, Array]]:
        """Yield the states that training starts from, one by one, so that nobody has to hold large weights twice.

        Optimizer state, counters and carried states that the state file leaves out start at zero; anything
        else that is missing, and any tensor of another shape or dtype, raises ProgramError at the end.
        """
        given = StoredTensors(self.state, ProgramError) if isinstance(self.state, Path) else self.state or {}
        problems: list[str] = []
        for one in self.manifest.state:
            if kind not in (None, one.kind):
                continue
            shape = self.state_shape(one)
            array = given.get(one.name)
            if array is None and one.kind in ("optimizer", "counter", "carry"):
                array = np.zeros(shape, one.numpy)
            if array is None:
                problems.append(f"the initial state lacks '{one.name}', a {one.kind} of shape {shape_text(shape)}")
            elif array.shape != shape or array.dtype != one.numpy:
                problems.append(
                    f"the initial state '{one.name}' should be {one.dtype} of shape {shape_text(shape)}, "
                    f"but is {array.dtype} of shape {shape_text(array.shape)}"
                )
            else:
                yield one, array
        if problems:
            raise ProgramError(*problems)

    def state_shape(self, one: State) -> tuple[int, ...]:
        """Return the shape of a state; the symbolic first axis of a carried state is the batch of the settings."""
        if any(isinstance(dim, str) for dim in one.shape[1 if one.kind == "carry" else 0 :]):
            raise ProgramError(f"the state '{one.name}' has the symbolic shape {shape_text(one.shape)}")
        return tuple(self.settings.batch if isinstance(dim, str) else dim for dim in one.shape)


def parse_manifest(content: Any, where: str = "the manifest") -> Manifest:
    """Validate a manifest; ProgramError with one sentence for each thing wrong."""
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ProgramError(f'{where} is not a training manifest: its "format" is not "{FORMAT}"')
    if content.get("version") != VERSION:
        raise ProgramError(f"{where} has version {content.get('version')!r}; this runtime reads version {VERSION}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        sentences = []
        for one in error.errors(include_url=False):
            at = ".".join(str(part) for part in one["loc"])
            sentences.append(f"{where} is not valid{' at ' + at if at else ''}: {one['msg']}")
        raise ProgramError(*sentences) from None


def _beside(manifest: Path, name: str) -> Path:
    """Return the path of a file named by the manifest, which must lie in the manifest's own folder."""
    if not name or Path(name).name != name or name in (".", ".."):
        raise ProgramError(f"{manifest} names the file '{name}', which is not a plain name in its own folder")
    return manifest.parent / name
