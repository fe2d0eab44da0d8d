"""The table of gradient rules: data, filled by the modules of `rules`.

A rule maps the gradient `dy` of a node's first output, and the node, to the gradient of one input. Rules emit standard
ONNX operators that ONNX Runtime has on its CPU and its CUDA provider, whatever the floating-point type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from nnspec.autodiff.terms import NodeView, Term

Rule = Callable[[Term, NodeView], Term | None]
EachRule = Callable[[Term, NodeView, int], Term | None]
JointRule = Callable[[NodeView], Sequence[Term | None]]

FlowRule = Callable[[NodeView], Sequence[tuple[ir.Value, Term]]]


@dataclass(frozen=True, slots=True)
class Gradient:
    """How an operator is differentiated.

    `rules` holds one rule per input, None where there is no gradient; `each` one rule for all of them; `joint` all of
    them at once, for several outputs; `flow` itself names the values of its gradients, since subgraphs use outer
    values. `pointwise` operators broadcast: the driver may hand them a `dy` smaller than the
    output and reduces what they return to the input's shape. What a `lazy` rule returns may be smaller than the input.
    """

    rules: tuple[Rule | None, ...] = ()
    each: EachRule | None = None
    joint: JointRule | None = None
    flow: FlowRule | None = None
    pointwise: bool = False
    lazy: bool = False


GRADIENTS: dict[str, Gradient] = {}
"""The rule of every differentiable operator of ONNX's own domain."""

ZERO: set[str] = set()
"""Operators whose gradient is zero wherever it exists: steps, comparisons, indices, shapes, constants."""


def vjp(op_type: str, *rules: Rule | None, lazy: bool = False) -> None:
    """Register one rule per input."""
    GRADIENTS[op_type] = Gradient(rules, lazy=lazy)


def pointwise(op_type: str, *rules: Rule | None, each: EachRule | None = None) -> None:
    """Register the rules of an operator that works element by element under broadcasting."""
    GRADIENTS[op_type] = Gradient(rules, each=each, pointwise=True)


def joint(op_type: str, rule: JointRule) -> None:
    """Register a rule that gives the gradients of all inputs, from those of all outputs (`n.dys`, None where zero)."""
    GRADIENTS[op_type] = Gradient(joint=rule)


def flow(op_type: str, rule: FlowRule) -> None:
    """Register a rule that gives pairs of a value and its gradient, also of values that subgraphs use from outside."""
    GRADIENTS[op_type] = Gradient(flow=rule)


def zero(*op_types: str) -> None:
    """Register operators through which no gradient flows."""
    ZERO.update(op_types)
