"""Templates applied to tensors: fresh weights at every use, paths as names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from nnspec.diagnostics import Code, Label
from nnspec.elaborate.builder import Builder, Scope
from nnspec.elaborate.report import Report
from nnspec.elaborate.values import (
    Bidirectional,
    BlockTemplate,
    Compose,
    FrozenTemplate,
    LayerTemplate,
    Named,
    RecomputedTemplate,
    Repeat,
    SharedTemplate,
    Tensor,
    TupleValue,
    describe,
)
from nnspec.source import Span
from nnspec.syntax import tree


class Applier:
    """Applies templates within one scope of names."""

    def __init__(self, report: Report, builder: Builder, scope: Scope) -> None:
        self.report = report
        self.builder = builder
        self.scope = scope

    def main(self, value: Any) -> Any:
        """Return the main one of several results, and any other value as it is."""
        return value.items[0] if isinstance(value, TupleValue) and value.results else value

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        """Name what is made meanwhile in another scope."""
        outer, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = outer

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep the weights made meanwhile out of training."""
        outer, self.builder.frozen = self.builder.frozen, True
        try:
            yield
        finally:
            self.builder.frozen = outer

    @contextmanager
    def recomputed(self) -> Iterator[None]:
        """Let the layers used meanwhile be computed again on the way back; what lies around decides."""
        outer = self.builder.segment
        if not outer:
            self.builder.segments += 1
            self.builder.segment = f"recompute{self.builder.segments}"
        try:
            yield
        finally:
            self.builder.segment = outer

    def apply(self, template: Any, inputs: Sequence[Tensor], span: Span, name: str | None = None) -> Any:
        """Apply a template to tensors; `name` replaces the number that its kind would get."""
        self.builder.tick(span)
        match template:
            case LayerTemplate():
                return self.builder.node(
                    template.layer, inputs, self.scope, template.span, name=name, arguments=template.arguments
                )
            case BlockTemplate():
                return self.apply_block(template, inputs, span, name)
            case Bidirectional():
                return self.apply_bidirectional(template, inputs, span, name)
            case Compose():
                if name is not None:
                    with self.inside(self.scope.child(name)):
                        return self._compose(template.stages, inputs, span)
                return self._compose(template.stages, inputs, span)
            case Repeat():
                if name is not None:
                    with self.inside(self.scope.child(name)):
                        return self._repeat(template, inputs, span)
                return self._repeat(template, inputs, span)
            case Named():
                return self.apply(template.body, inputs, span, self._hand_name(template))
            case FrozenTemplate():
                with self.frozen():
                    return self.apply(self._at(template.body, span), inputs, span, name)
            case RecomputedTemplate():
                with self.recomputed():
                    return self.apply(self._at(template.body, span), inputs, span, name)
            case SharedTemplate():
                return self._shared(template, inputs, span)
        default = self._at(template, span)
        if default is template:
            raise self.report.fail(Code.WRONG_TYPE, f"{describe(template)} cannot be applied to a tensor", span)
        return self.apply(default, inputs, span, name)

    def _at(self, template: Any, span: Span) -> Any:
        """Return a bare layer's or block's name as a template with its defaults; see `nnspec.elaborate.calls`."""
        raise NotImplementedError

    def apply_block(self, template: BlockTemplate, inputs: Sequence[Tensor], span: Span, name: str | None) -> Any:
        """Apply a block or cell; see `nnspec.elaborate.body`."""
        raise NotImplementedError

    def apply_bidirectional(
        self, template: Bidirectional, inputs: Sequence[Tensor], span: Span, name: str | None
    ) -> Any:
        """Apply two copies of a cell; see `nnspec.elaborate.cells`."""
        raise NotImplementedError

    def _compose(self, stages: Sequence[Any], inputs: Sequence[Tensor], span: Span) -> Any:
        value: Any = TupleValue(tuple(inputs)) if len(inputs) != 1 else inputs[0]
        for stage in stages:
            value = self.apply(stage, self.spread(value, span), span)
        return value

    def _repeat(self, template: Repeat, inputs: Sequence[Tensor], span: Span) -> Any:
        value: Any = TupleValue(tuple(inputs)) if len(inputs) != 1 else inputs[0]
        for _ in range(template.count):
            value = self.apply(template.body, self.spread(value, span), span)
        return value

    def spread(self, value: Any, span: Span) -> list[Tensor]:
        """Return what a stage gave as the inputs of the next."""
        items = value.items if isinstance(value, TupleValue) and not value.results else (self.main(value),)
        tensors = []
        for item in items:
            item = self.main(item)
            if not isinstance(item, Tensor):
                raise self.report.fail(
                    Code.WRONG_TYPE, f"`->` needs a tensor on its left, and gets {describe(item)}", span
                )
            tensors.append(item)
        return tensors

    def _hand_name(self, template: Named) -> str:
        """Return a name given with `as`; further uses of the same template are numbered."""
        known = self.scope.named.get(template.name)
        if known is None:
            self.scope.named[template.name] = template.span
            return template.name
        same = known.source is template.span.source and known.start == template.span.start
        if not same and not self.scope.reuse:
            raise self.report.fail(
                Code.DUPLICATE_NAME,
                f"two layers are called `{template.name}`",
                template.span,
                others=[Label(known, "the first one")],
            )
        number = 2
        while f"{template.name}{number}" in self.scope.named:
            number += 1
        self.scope.named[f"{template.name}{number}"] = template.span
        return f"{template.name}{number}"

    def _shared(self, template: SharedTemplate, inputs: Sequence[Tensor], span: Span) -> Any:
        template.uses += 1
        suffix = "" if template.uses == 1 else f"@{template.uses}"
        scope = Scope(f"{template.path}.", f"{template.path}{suffix}.", reuse=template.uses > 1)
        body = template.body
        inner, marks = body, ExitStack()
        while isinstance(inner, FrozenTemplate | RecomputedTemplate):
            marks.enter_context(self.frozen() if isinstance(inner, FrozenTemplate) else self.recomputed())
            inner = inner.body
        if isinstance(inner, LayerTemplate):
            # A single shared layer needs no level of its own: `embed.weight`, not `embed.dense1.weight`.
            prefix, dot, name = template.path.rpartition(".")
            scope = Scope(prefix + dot, prefix + dot, reuse=template.uses > 1)
            with marks, self.inside(scope):
                return self.builder.node(
                    inner.layer, inputs, scope, span, name=name, suffix=suffix, arguments=inner.arguments
                )
        with marks, self.inside(scope):
            return self.apply(inner, inputs, span)


def is_cell(template: BlockTemplate) -> bool:
    """Return whether a template is a cell rather than a block."""
    return isinstance(template.factory.declaration, tree.Cell)
