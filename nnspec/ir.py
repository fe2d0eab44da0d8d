"""The intermediate representation: a network as validated, frozen data.

`Network` is a contract. It round-trips through JSON (`model_dump_json`, `Network.model_validate_json`), `json_schema`
publishes its schema, and another front end could produce it. Values are named: an input by its name, a node's output by
the node's path, with `:1`, `:2` and so on behind it for further outputs.
"""

# Annotations are no strings here and in the layers: pydantic would compile each one again for every class below it, and
# a hundred layers make that a tenth of what `nnspec summary` takes.
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from nnspec.dims import Dim, product, symbols
from nnspec.initializers import ZEROS, AnyInitializer

if TYPE_CHECKING:
    from fractions import Fraction

    from nnspec.layers.base import Lowering

DType = Literal["float32", "int64", "bool"]


class Frozen(BaseModel):
    """Base of every record of the IR."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorType(Frozen):
    """Element type and shape. The batch axis is not part of the shape; `batch` says whether there is one."""

    shape: tuple[Dim, ...]
    dtype: DType = "float32"
    batch: bool = True

    @property
    def rank(self) -> int:
        """Number of axes after the batch."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements of one sample."""
        return product(self.shape)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols in its shape."""
        return frozenset().union(*(symbols(d) for d in self.shape))

    def with_shape(self, shape: tuple[Dim, ...]) -> "TensorType":
        """Return the type with another shape."""
        return TensorType.model_construct(shape=shape, dtype=self.dtype, batch=self.batch)

    def __str__(self) -> str:
        text = "[" + ", ".join(str(d) for d in self.shape) + "]"
        return (
            text
            if self.dtype == "float32"
            else {"int64": "int", "bool": "bool"}[self.dtype] + (text if self.shape else "")
        )


class ShapeError(Exception):
    """A layer that cannot take what it is given.

    `field` names the argument to underline, `input` the data input that is at fault; `help` says how to mend it.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        input: int | tuple[int, ...] | None = None,
        help: str = "",
        label: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.input = input
        self.help = help
        self.label = label


class WeightSpec(Frozen):
    """A weight that a layer asks for. `fan` is (fan in, fan out) where the shape does not tell."""

    shape: tuple[int, ...]
    init: AnyInitializer = ZEROS
    kind: Literal["weight", "buffer"] = "weight"
    decay: bool = False
    """Whether l1 and l2 regularisation apply: matrices and kernels, not biases nor normalisation parameters."""
    fan: tuple[int, int] | None = None
    trainable: bool = True


class Weight(WeightSpec):
    """A weight of a network: trained, frozen, or a buffer that training updates without a gradient."""

    name: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(product(self.shape))  # type: ignore[arg-type]


Window = tuple[tuple[int, ...], tuple["int | Fraction", ...]] | str | None
"""What one element of a layer's output sees of its input."""

_REGISTRY: dict[str, type["Layer"]] = {}


class Layer(BaseModel):
    """Base of all layers: the fields are its arguments, the methods say shape, weights, MACs and ONNX.

    A subclass registers itself by its keyword: `class Conv(Layer, keyword="conv")`. Its first docstring line shows its
    .nn form. A layer knows no spans, no names and no gradients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    keyword: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    """How many tensors it takes; None for one or more."""
    elementwise: ClassVar[bool] = False
    """Whether it maps each element by itself, so that tensors without a batch axis need no care."""
    where: ClassVar[Literal["network", "train"]] = "network"
    """Losses and metrics may stand in a train block only."""
    leading: ClassVar[bool] = False
    """Whether the first of several outputs is the result, which stands for all of them where one tensor is wanted."""

    def __init_subclass__(cls, keyword: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, keyword: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if keyword:
            if keyword in _REGISTRY:
                raise TypeError(f"two layers are called {keyword}")
            cls.keyword = keyword
            _REGISTRY[keyword] = cls

    @property
    def title(self) -> str:
        """What a summary calls its kind."""
        return self.keyword

    def infer(self, *x: TensorType) -> TensorType | tuple[TensorType, ...]:
        """Return the output type or types; raise ShapeError where the inputs do not fit."""
        raise NotImplementedError

    def examine(self, inputs: "Sequence[Input]", nodes: "Sequence[Node]", *x: str) -> None:
        """Raise ShapeError where what its inputs `x` are computed from does not fit.

        `inputs` and `nodes` are those of the network so far; few layers look further than the types.
        """

    def weights(self, *x: TensorType) -> Mapping[str, WeightSpec]:
        """Return the weights it owns for these inputs, by role."""
        return {}

    def macs(self, *x: TensorType) -> Dim:
        """Return the multiply-accumulates for one sample: convolutions and products only."""
        return 0

    def window(self, *x: TensorType) -> Window:
        """Return (extent, stride) per spatial axis for the receptive field.

        `"all"` if it sees all, None if one element. The stride of a layer that enlarges is a fraction.
        """
        return None

    def lower(self, ctx: "Lowering", *x: Any, **w: Any) -> Any:
        """Append its ONNX nodes; `x` are input values, `w` the weights by role."""
        raise NotImplementedError(f"{self.keyword} cannot be lowered")


def registry() -> Mapping[str, type[Layer]]:
    """Return every layer class by keyword."""
    import nnspec.layers  # noqa: F401  (registers them)

    return _REGISTRY


def layer_json(layer: Layer) -> dict[str, Any]:
    """Return a layer as plain data: its kind, then its arguments."""
    return {"kind": layer.keyword, **layer.model_dump(mode="json")}


def _load_layer(value: Any) -> Any:
    if isinstance(value, Mapping):
        fields = dict(value)
        kind = fields.pop("kind", None)
        if kind not in registry():
            raise ValueError(f"unknown layer kind {kind!r}")
        return registry()[kind].model_validate(fields)
    return value


AnyLayer = Annotated[Layer, BeforeValidator(_load_layer), PlainSerializer(layer_json, return_type=dict[str, Any])]


class Input(Frozen):
    """Data that comes from outside. `lengths` names the input that holds the lengths of a masked one."""

    name: str
    type: TensorType
    lengths: str | None = None
    classes: int | None = None
    """For integer data, the number of values that make sense: an embedding's vocabulary, a classifier's classes."""


class Node(Frozen):
    """One use of a layer: where its inputs come from, which weights it uses, what it gives."""

    name: str
    layer: AnyLayer
    inputs: tuple[str, ...]
    weights: dict[str, str] = {}
    outputs: tuple[TensorType, ...]
    line: int = 0
    recompute: Annotated[str, Field(exclude_if=lambda segment: not segment)] = ""
    """The segment whose values training computes again on the way back instead of keeping them; none where empty."""

    def output(self, index: int = 0) -> str:
        """Return the name of an output value."""
        return self.name if index == 0 else f"{self.name}:{index}"


class Output(Frozen):
    """A result of the network under its public name."""

    name: str
    value: str


class Network(Frozen):
    """A whole network. Nodes are in an order in which every input comes before its use."""

    name: str
    inputs: tuple[Input, ...]
    weights: tuple[Weight, ...] = ()
    nodes: tuple[Node, ...] = ()
    outputs: tuple[Output, ...]
    masks: dict[str, str] = {}
    """For each sequence symbol that is masked, the input that holds the lengths: `{"T": "words.lengths"}`."""
    version: Literal[1] = 1

    @model_validator(mode="after")
    def _consistent(self) -> "Network":
        known = {i.name for i in self.inputs}
        weights = {w.name for w in self.weights}
        if len(weights) != len(self.weights):
            raise ValueError("two weights have one name")
        for node in self.nodes:
            if missing := [v for v in node.inputs if v not in known]:
                raise ValueError(f"node {node.name} reads {missing[0]}, which nothing before it gives")
            if missing := [w for w in node.weights.values() if w not in weights]:
                raise ValueError(f"node {node.name} uses the weight {missing[0]}, which the network does not hold")
            for i in range(len(node.outputs)):
                if node.output(i) in known:
                    raise ValueError(f"two values are called {node.output(i)}")
                known.add(node.output(i))
        if missing := [o.value for o in self.outputs if o.value not in known]:
            raise ValueError(f"the output {missing[0]} is given by nothing")
        return self

    def types(self) -> dict[str, TensorType]:
        """Return the type of every value by name."""
        found = {i.name: i.type for i in self.inputs}
        for node in self.nodes:
            for i, type_ in enumerate(node.outputs):
                found[node.output(i)] = type_
        return found

    def to_json(self, indent: int | None = None) -> str:
        """Return the network as JSON."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Network":
        """Read a network that `to_json` wrote; raise pydantic.ValidationError for anything else."""
        return cls.model_validate_json(text)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `Network`, with every layer's arguments."""
    from pydantic.json_schema import models_json_schema

    layers = registry()
    models: list[type[BaseModel]] = [Network, *layers.values()]
    refs, schema = models_json_schema([(m, "validation") for m in models], ref_template="#/$defs/{model}")
    definitions = schema["$defs"]
    options = []
    for keyword, cls in layers.items():
        ref = refs[cls, "validation"]
        definition = definitions[ref["$ref"].rsplit("/", 1)[1]]
        definition.setdefault("properties", {})["kind"] = {"const": keyword}
        definition["required"] = ["kind", *definition.get("required", [])]
        options.append(ref)
    definitions["Layer"] = {"oneOf": options, "title": "Layer"}
    # Cells hold networks, so that the definition must stay where references find it.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **definitions["Network"], "$defs": definitions}
