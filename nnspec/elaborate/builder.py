"""The network under construction: nodes, weights, and the paths that name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nnspec.diagnostics import Code, Label
from nnspec.dims import Dim, Symbolic, product
from nnspec.elaborate.report import Report
from nnspec.elaborate.values import Tensor, TupleValue
from nnspec.initializers import AnyInitializer
from nnspec.ir import Input, Layer, Node, ShapeError, TensorType, Weight, WeightSpec
from nnspec.source import Span

DEFAULT_LIMIT = 100_000
"""How many layers a network may have unless the limit is raised."""

WORK_PER_LAYER = 10
"""Statements run and templates applied that are allowed for each layer of the limit."""

WEIGHTS_PER_LAYER = 10**7
"""Weights allowed for each layer of the limit: 10^12 by default."""


@dataclass(slots=True)
class Scope:
    """A level of names: `path` prefixes weights, `node_path` nodes (they differ in later uses of shared layers)."""

    path: str = ""
    node_path: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    named: dict[str, Span] = field(default_factory=dict)
    reuse: bool = False

    def fresh(self, kind: str) -> str:
        """Return the next name of a kind: `conv1`, `conv2`."""
        while True:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            name = f"{kind}{self.counts[kind]}"
            if name not in self.named:
                return name

    def child(self, name: str, *, reuse: bool | None = None) -> Scope:
        """Return the scope inside a block of a name."""
        inner = self.reuse if reuse is None else reuse
        return Scope(f"{self.path}{name}.", f"{self.node_path}{name}.", reuse=inner)


class Builder:
    """Collects the nodes and weights of one network, or of one cell's body."""

    def __init__(self, report: Report, limit: int = DEFAULT_LIMIT) -> None:
        self.report = report
        self.limit = limit
        self.inputs: dict[str, Input] = {}
        self.nodes: list[Node] = []
        self.spans: dict[str, Span] = {}
        self.weights: dict[str, Weight] = {}
        self.origins: dict[str, Span] = {}
        self.names: set[str] = set()
        self.symbols: dict[str, Symbolic] = {}
        self.masks: dict[str, str] = {}
        self.quiet: set[str] = set()
        """Nodes that nobody wrote, and nobody needs to hear of when nothing uses them."""
        self.frozen = False
        self.segment = ""
        self.segments = 0
        self.size = 0

    def tick(self, span: Span) -> None:
        """Count a piece of work, so that what would take forever is an error instead."""
        self.report.work += 1
        if self.report.work > WORK_PER_LAYER * self.limit:
            raise self.report.abort(
                Code.TOO_LARGE,
                f"more than {WORK_PER_LAYER * self.limit:,} statements and layers are run to build this",
                span,
                help="a loop or repetition is probably larger than meant; `--limit N` raises the limit",
            )

    def node(
        self,
        layer: Layer,
        inputs: Sequence[Tensor],
        scope: Scope,
        span: Span,
        *,
        name: str | None = None,
        suffix: str = "",
        arguments: Mapping[str, Span] | None = None,
    ) -> Tensor | TupleValue:
        """Add a use of a layer; return its result, or a tuple of them.

        `suffix` tells a later use of shared weights from the first in the node's name.
        """
        if len(self.nodes) >= self.limit:
            raise self.report.abort(
                Code.TOO_LARGE,
                f"the network has more than {self.limit:,} layers",
                span,
                help="a repetition is probably larger than meant; `--limit N` raises the limit",
            )
        types = tuple(t.type for t in inputs)
        try:
            self._check_arity(layer, types)
            inferred = layer.infer(*types)
            specs = layer.weights(*types)
            layer.examine(tuple(self.inputs.values()), self.nodes, *(t.ref for t in inputs))
        except ShapeError as error:
            raise self._shape_failure(error, layer, inputs, span, arguments or {}) from None
        outputs = inferred if isinstance(inferred, tuple) else (inferred,)
        self._check_size(layer, outputs, specs.values(), span, arguments or {})
        local = name or scope.fresh(layer.keyword)
        path = scope.node_path + local + suffix
        weights = {
            role: self._weight(
                f"{scope.path}{local}.{role}" if role else scope.path + local,
                spec,
                scope,
                span,
                next((at for f, at in (arguments or {}).items() if getattr(layer, f, None) is spec.init), span),
            )
            for role, spec in specs.items()
        }
        if path in self.names:
            raise self.report.fail(
                Code.DUPLICATE_NAME, f"two layers are called `{path}`", span, help="choose another name with `as`"
            )
        self.names.add(path)
        node = Node.model_construct(
            name=path,
            layer=layer,
            inputs=tuple(t.ref for t in inputs),
            weights=weights,
            outputs=outputs,
            line=span.line,
            recompute=self.segment,
        )
        self.nodes.append(node)
        self.spans[path] = span
        results = tuple(Tensor(node.output(i), t, span) for i, t in enumerate(outputs))
        # What a loss gives besides its value, the number of steps that count, is for the average of an epoch alone.
        several = isinstance(inferred, tuple) and layer.where == "network"
        return TupleValue(results, results=layer.leading) if several else results[0]

    def _check_arity(self, layer: Layer, types: tuple[TensorType, ...]) -> None:
        wanted = layer.arity
        if wanted is None:
            if not types:
                raise ShapeError(f"`{layer.keyword}` needs a tensor")
        elif len(types) != wanted:
            takes = {0: "no tensor", 1: "one tensor", 2: "two tensors", 3: "three tensors"}.get(
                wanted, f"{wanted} tensors"
            )
            raise ShapeError(
                f"`{layer.keyword}` takes {takes}, and gets {len(types)}",
                help="`concat` or `add` makes one tensor of several" if len(types) > wanted == 1 else "",
            )

    def _shape_failure(
        self, error: ShapeError, layer: Layer, inputs: Sequence[Tensor], span: Span, arguments: Mapping[str, Span]
    ) -> Exception:
        where = arguments.get(error.field or "", span)
        others: dict[tuple[str, int, int], Label] = {}
        for i, tensor in enumerate(inputs):
            at = tensor.span
            if (error.input is None or i in _several(error.input)) and at is not span:
                others.setdefault((at.source.path, at.start, at.end), Label(at, f"gives {tensor.type}"))
        label = error.label if error.input is None else ""
        return self.report.fail(Code.SHAPE_MISMATCH, error.message, where, label, error.help, list(others.values())[:3])

    def _check_size(
        self,
        layer: Layer,
        outputs: Sequence[TensorType],
        specs: Iterable[WeightSpec],
        span: Span,
        arguments: Mapping[str, Span],
    ) -> None:
        """Report a tensor or weight with more elements than anybody means, before anything counts on it."""
        most = self.limit * WEIGHTS_PER_LAYER
        sizes = [("result", t.size) for t in outputs] + [("weight", product(s.shape)) for s in specs]
        what, size = max(((w, s) for w, s in sizes if isinstance(s, int)), key=lambda p: p[1], default=("", 0))
        if size > most:
            numbers = {f: v for f in arguments if isinstance(v := getattr(layer, f, None), int)}
            widest = max(numbers, key=lambda f: numbers[f], default="")
            raise self.report.fail(
                Code.TOO_LARGE,
                f"a {what} of `{layer.keyword}` has {size:,} elements, more than {most:,}",
                arguments.get(widest, span),
                help="a size is probably larger than meant; `--limit N` raises the limit",
            )

    def _weight(self, name: str, spec: WeightSpec, scope: Scope, span: Span, init_span: Span) -> str:
        known = self.weights.get(name)
        if known is not None:
            if not scope.reuse:
                raise self.report.fail(
                    Code.DUPLICATE_NAME, f"two weights are called `{name}`", span, help="choose another name with `as`"
                )
            if known.shape != spec.shape:
                raise self.report.fail(
                    Code.SHAPE_MISMATCH,
                    f"the shared weight `{name}` is {list(known.shape)}, and is needed here as {list(spec.shape)}",
                    span,
                    others=[Label(self.origins[name], "made here first")],
                    help="all uses of a shared layer need inputs of one shape",
                )
            return name
        fields = {f: getattr(spec, f) for f in ("shape", "init", "kind", "decay", "fan")}
        weight = Weight.model_construct(
            **fields, name=name, trainable=spec.kind == "weight" and spec.trainable and not self.frozen
        )
        self.size += weight.size
        if self.size > self.limit * WEIGHTS_PER_LAYER:
            raise self.report.abort(
                Code.TOO_LARGE,
                f"the network has more than {self.limit * WEIGHTS_PER_LAYER:,} weights",
                span,
                help="a size or repetition is probably larger than meant; `--limit N` raises the limit",
            )
        self._check_init(weight, init_span)
        self.weights[name] = weight
        self.origins[name] = span
        return name

    def _check_init(self, weight: Weight, span: Span) -> None:
        """Report an initialiser that cannot make a weight of this shape, before anything is sampled."""
        problem = _unfit(weight.init, weight.shape, weight.name)
        if problem:
            raise self.report.fail(Code.SHAPE_MISMATCH, problem, span)

    def symbol(self, name: str) -> Dim:
        """Return the symbolic size of a name, declaring it."""
        return self.symbols.setdefault(name, Symbolic.symbol(name))


def _several(inputs: int | tuple[int, ...]) -> tuple[int, ...]:
    return (inputs,) if isinstance(inputs, int) else inputs


def _unfit(init: AnyInitializer, shape: tuple[int, ...], name: str) -> str:
    """Return why an initialiser cannot make a weight, or nothing."""
    if init.kind in ("orthogonal", "identity") and len(shape) < 2:
        return f"`{init.kind}` needs a weight of at least two axes, and `{name}` has shape {list(shape)}"
    if init.kind == "values" and init.shape != shape:
        return f"the values have shape {list(init.shape)}, and the weight `{name}` has {list(shape)}"
    if init.kind == "stacked":
        if not shape or shape[0] % len(init.parts):
            return f"{len(init.parts)} stacked parts do not divide the first axis of `{name}`, {list(shape)}"
        part = (shape[0] // len(init.parts), *shape[1:])
        return next((p for i in init.parts if (p := _unfit(i, part, f"a part of {name}"))), "")
    return ""
