"""Expressions to values: which rule an expression falls under, what a name means, and what a value has inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from nnspec.diagnostics import Code, nearest, suggest
from nnspec.elaborate.bind import fields_of, words
from nnspec.elaborate.numbers import FUNCTIONS
from nnspec.elaborate.operators import Operators
from nnspec.elaborate.values import (
    Builtin,
    FrozenTemplate,
    InitializerFactory,
    LayerFactory,
    RecipeFactory,
    RecomputedTemplate,
    Sizes,
    Tensor,
    TupleValue,
    Word,
    describe,
    is_template,
)
from nnspec.initializers import NAMED, Initializer
from nnspec.ir import registry
from nnspec.syntax import tree

_INNER = frozenset({"literal", "param", "recurrence"})
"""Layers that the language itself makes."""

_ELSEWHERE = {
    "linear": "dense",
    "fc": "dense",
    "fully_connected": "dense",
    "gemm": "dense",
    "max_pool": "maxpool",
    "avg_pool": "avgpool",
    "average_pooling": "avgpool",
    "adaptiveavgpool": "global_avgpool",
    "global_average_pooling": "global_avgpool",
    "batch_norm": "batchnorm",
    "layer_norm": "layernorm",
    "group_norm": "groupnorm",
    "conv_t": "conv_transpose",
    "convtranspose": "conv_transpose",
    "swish": "silu",
    "cat": "concat",
    "concatenate": "concat",
    "view": "reshape",
    "permute": "transpose",
    "embed": "embedding",
    "mse": "square_error",
    "mse_loss": "square_error",
    "crossentropyloss": "cross_entropy",
}
"""What other tools call our layers, in lower case and without a number of axes at the end."""


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """Return every bare word that some layer's argument understands."""
    found: set[str] = set()
    for layer in registry().values():
        for f in fields_of(layer):
            found |= words(f.model_field.annotation)
    return frozenset(found)


class Evaluator(Operators):
    """Evaluates any expression."""

    def _dispatch(self, e: tree.Expr) -> Any:
        match e:
            case tree.Number():
                return e.value
            case tree.Bool():
                return e.value
            case tree.Text():
                return e.value
            case tree.Size():
                return Sizes(e.dims)
            case tree.Name():
                return self.lookup(e)
            case tree.NextState():
                return self._next(e)
            case tree.ListExpr():
                return self.all(e.items)
            case tree.TupleExpr():
                return TupleValue(tuple(self.all(e.items)))
            case tree.Pipe():
                return self._pipe(e)
            case tree.Call():
                return self._call(e)
            case tree.Binary():
                return self._binary(e)
            case tree.Unary():
                return self._unary(e)
            case tree.Attribute():
                return self._attribute(e)
            case tree.Index():
                return self._index(e)
            case tree.If():
                return self._if(e)
            case tree.As():
                return self._as(e)
            case tree.Freeze():
                help = "put it in front of the layer: `x -> freeze conv(64, 3x3)`"
                return FrozenTemplate(self.marked(e.value, "`freeze` needs a layer, and gets", help))
            case tree.Recompute():
                help = "put it in front of the layers: `x -> recompute bottleneck(64)`"
                return RecomputedTemplate(self.marked(e.value, "`recompute` needs a layer, and gets", help))
        raise TypeError(type(e).__name__)

    def lookup(self, e: tree.Name) -> Any:
        name = e.name
        binding = self.environment.find(name)
        if binding is not None:
            binding.used = True
            return binding.value
        if name in self.builder.symbols:
            return self.builder.symbols[name]
        value = self.builtin(name)
        if value is not None:
            return value
        layer = registry().get(name)
        help = f"`{name}` is known in `train` blocks only" if layer and layer.where == "train" else self._known(name)
        raise self.report.fail(Code.UNKNOWN_NAME, f"nothing is called `{name}` here", e.span, "", help)

    def lookup_layer(self, e: tree.Name) -> Any:
        name = e.name
        if self.environment.find(name) is None and name not in self.builder.symbols and self.builtin(name) is None:
            layers = self._layers() | FUNCTIONS.keys()
            if name not in registry():
                known = {n for n in self.environment.names() if not n.startswith("_")} | layers
                best = _ELSEWHERE.get(name.lower().rstrip("123d").rstrip("_")) or nearest(name, known)
                help = f"did you mean `{best}`? " if best else ""
                if not self.report.listed:
                    help += "layers, cells and functions: " + ", ".join(sorted(layers))
                elif not best:
                    help = "the layers are listed above"
                self.report.listed = True
                raise self.report.fail(Code.UNKNOWN_NAME, f"no layer is called `{name}`", e.span, "", help)
        return self.lookup(e)

    def _layers(self) -> set[str]:
        """Return the names of all layers, cells and blocks of the language that may stand here."""
        layers = {n for n, layer in registry().items() if layer.where == "network" or self.training}
        return (layers | set(self.library.names())) - _INNER

    def _known(self, name: str) -> str:
        """Return a help sentence for an unknown name: the nearest one, and where the others are found."""
        here = sorted({n for n in self.environment.names() if not n.startswith("_")})
        best = nearest(name, {*here, *self._layers(), *NAMED, *FUNCTIONS, *_words()})
        shown = f"in scope: {', '.join(here[:20])}{', ...' if len(here) > 20 else ''}; " if here else ""
        return (f"did you mean `{best}`? " if best else "") + f"{shown}`nnspec layers` lists the layers"

    def builtin(self, name: str) -> Any:
        """Return what the language itself means by a name, or None."""
        layer = registry().get(name)
        if layer is not None and (layer.where == "network" or self.training) and not name.startswith("_"):
            return LayerFactory(layer)
        if name in NAMED:
            initializer = NAMED[name]
            return initializer if isinstance(initializer, Initializer) else InitializerFactory(initializer)
        if name in FUNCTIONS or name == "bidirectional":
            return Builtin(name)
        if self.training:
            from nnspec.recipe import registry as settings

            if name in settings():
                return RecipeFactory(settings()[name])
        if name in _words():
            return Word(name)
        return self.library.find(name)

    def _attribute(self, e: tree.Attribute) -> Any:
        value = self.main(self.evaluate(e.value))
        name = e.name.name
        if not isinstance(value, Tensor):
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"only tensors have properties, and this is {describe(value)}",
                e.value.span,
                help="inside a block, the data behind `on` has a shape" if is_template(value) else "",
            )
        t = value.type
        known: dict[str, Callable[[], Any]] = {
            "shape": lambda: list(t.shape),
            "rank": lambda: t.rank,
            "size": lambda: t.size,
            "channels": lambda: t.shape[0],
            "features": lambda: t.shape[-1],
            "length": lambda: t.shape[0],
        }
        if name not in known:
            raise self.report.fail(
                Code.UNKNOWN_ATTRIBUTE,
                f"a tensor has no `{name}`",
                e.name.span,
                help=suggest(name, known, what="properties"),
            )
        if t.rank == 0 and name in ("channels", "features", "length"):
            raise self.report.fail(Code.SHAPE_MISMATCH, f"a scalar has no `{name}`", e.name.span)
        return known[name]()

    def _index(self, e: tree.Index) -> Any:
        value = self.evaluate(e.value)
        indices = self.all(e.indices)
        if isinstance(value, TupleValue):
            items: Sequence[Any] = value.items
        elif isinstance(value, list | Sizes):
            items = value
        else:
            raise self.report.fail(
                Code.WRONG_TYPE,
                f"only lists, sizes and tuples have indices, and this is {describe(value)}",
                e.value.span,
                help="`slice(begin, end)` takes a part of a tensor" if isinstance(self.main(value), Tensor) else "",
            )
        if len(indices) != 1 or not isinstance(indices[0], int) or isinstance(indices[0], bool):
            raise self.report.fail(Code.WRONG_TYPE, "an index is one whole number", e.indices[0].span)
        if not -len(items) <= indices[0] < len(items):
            raise self.report.fail(
                Code.OUT_OF_RANGE,
                f"index {indices[0]} is out of range",
                e.indices[0].span,
                f"there are {len(items)}, counted from 0",
            )
        return items[indices[0]]

    def _next(self, e: tree.NextState) -> Any:
        if self.next_states is None:
            raise self.report.fail(Code.MISPLACED, "`next` has a meaning inside a cell only", e.span)
        if e.name not in self.next_states:
            binding = self.environment.find(e.name)
            if binding is not None and binding.what == "state":
                message = f"`next {e.name}` is used before it is defined"
                raise self.report.fail(Code.STATE, message, e.span, help=f"define it above with `next {e.name} = ...`")
            states = [n for n, b in self.environment.bindings.items() if b.what == "state"]
            help = suggest(e.name, states, what="states")
            raise self.report.fail(Code.STATE, f"the cell has no state `{e.name}`", e.span, help=help)
        return self.next_states[e.name]
