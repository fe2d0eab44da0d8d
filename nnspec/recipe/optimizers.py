"""Optimizers: w is a weight, g its gradient, lr the learning rate times the schedule's factor.

Running averages are kept without their constant factor: where the literature has v = b v + (1 - b) g^2, the state holds
v / (1 - b), so that its update is one product and one sum. The factor goes into the scalars that all weights share, and
those are computed in float64. The weights move as in the formulas and in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from nnspec.recipe.base import Above, AtLeast, Fraction, Optimizer, Scalar, Time

if TYPE_CHECKING:
    import onnx_ir as ir

    from nnspec.ops import Ops

    State = Mapping[str, ir.Value]
    Updated = tuple[ir.Value, dict[str, ir.Value]]


def _scaled_sum(op: Ops, kept: ir.Value, beta: float, g: ir.Value, alpha: float) -> ir.Value:
    """Return beta kept + alpha g, in the node that makes the gradient where that can add: it saves two passes."""
    node = g.producer()
    value: ir.Value
    if node is not None and beta == 1 and not g.uses() and _adds_to_zeros(node):
        at = {name: attribute.value for name, attribute in node.attributes.items()}
        scaled = op.Mul(node.inputs[2], alpha) if alpha != 1 else node.inputs[2]
        value = op.ScatterElements(kept, node.inputs[1], scaled, **at)
        return value
    if node is not None and node.op_type == "Gemm" and len(node.inputs) == 2 and not g.uses():
        at = {name: attribute.value for name, attribute in node.attributes.items()}
        value = op.Gemm(*node.inputs, kept, **{**at, "alpha": alpha * at.get("alpha", 1.0), "beta": beta})
        return value
    value = op.Add(kept if beta == 1 else op.Mul(kept, beta), g if alpha == 1 else op.Mul(g, alpha))
    return value


def _adds_to_zeros(node: ir.Node) -> bool:
    """Return whether a node adds elements at their places in a tensor of zeros, as for the rows of a table."""
    data = node.inputs[0].producer() if node.op_type == "ScatterElements" and node.inputs[0] is not None else None
    if data is None or data.op_type != "Expand" or node.attributes.get_string("reduction", "none") != "add":
        return False
    filling = None if data.inputs[0] is None else data.inputs[0].const_value
    return filling is not None and not filling.numpy().any()


def _momentum(op: Ops, w: ir.Value, g: ir.Value, m: ir.Value, beta: float, rate: Scalar, nesterov: bool) -> Updated:
    moved = op.Add(op.Mul(m, beta), g) if nesterov else _scaled_sum(op, m, beta, g, 1.0)
    along = op.Add(op.Mul(moved, beta), g) if nesterov else moved
    return op.Sub(w, op.Mul(along, rate)), {"m": moved}


class Sgd(Optimizer, keyword="sgd"):
    """Stochastic gradient descent: `sgd(0.1)`, `sgd(0.1, momentum = 0.9)`; m = momentum m + g, w = w - lr m."""

    lr: Above
    """Learning rate."""
    momentum: Fraction = 0.0
    """How much of the last movement goes on; 0 keeps no state."""
    nesterov: bool = False
    """Nesterov's form: w = w - lr (g + momentum m)."""

    @model_validator(mode="after")
    def _momentum_given(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a momentum above 0")
        return self

    def slots(self) -> tuple[str, ...]:
        return ("m",) if self.momentum else ()

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        if not self.momentum:
            known = isinstance(scalars, float)
            return _scaled_sum(op, w, 1.0, g, -scalars) if known else op.Sub(w, op.Mul(g, scalars)), {}
        return _momentum(op, w, g, state["m"], self.momentum, scalars, self.nesterov)


class Momentum(Optimizer, keyword="momentum"):
    """Gradient descent with momentum (Polyak 1964): `momentum(0.1)`; m = beta m + g, w = w - lr m."""

    lr: Above
    """Learning rate."""
    beta: Fraction = 0.9
    """How much of the last movement goes on."""

    def slots(self) -> tuple[str, ...]:
        return ("m",)

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        return _momentum(op, w, g, state["m"], self.beta, scalars, nesterov=False)


class Nesterov(Momentum, keyword="nesterov"):
    """Nesterov's gradient (Sutskever et al. 2013): `nesterov(0.1)`; m = beta m + g, w = w - lr (g + beta m)."""

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        return _momentum(op, w, g, state["m"], self.beta, scalars, nesterov=True)


class Adam(Optimizer, keyword="adam"):
    """Adaptive moments (Kingma and Ba 2015): `adam(0.001)`; w = w - lr m / (sqrt(v) + epsilon).

    m = beta1 m + (1 - beta1) g and v = beta2 v + (1 - beta2) g^2, each divided by 1 - beta^t after t steps.
    """

    lr: Above = 0.001
    """Learning rate."""
    beta1: Fraction = 0.9
    """Decay of the mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of the mean of squared gradients."""
    epsilon: Above = 1e-8
    """Added to the root."""

    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def scalars(self, time: Time, factor: ir.Value | None) -> Any:
        # With M = m / (1 - b1) and V = v / (1 - b2), the step lr m' / (sqrt(v') + e) of the bias-corrected m' and v' is
        # s M / (sqrt(V) + e c) with c = sqrt((1 - b2^t) / (1 - b2)) and s = lr c (1 - b1) / (1 - b1^t).
        op, t = time.op, time.number
        c = op.Sqrt(op.Div(op.Sub(1.0, op.Pow(op.constant(self.beta2, "float64"), t)), 1 - self.beta2))
        s = op.Div(op.Mul(c, self.lr * (1 - self.beta1)), op.Sub(1.0, op.Pow(op.constant(self.beta1, "float64"), t)))
        if factor is not None:
            s = op.Mul(s, factor)
        return time.single(s), time.single(op.Mul(c, self.epsilon)), self.rate(time, factor)

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        scale, epsilon, _ = scalars
        m = op.Add(op.Mul(state["m"], self.beta1), g)
        v = op.Add(op.Mul(state["v"], self.beta2), op.Mul(g, g))
        moved = op.Mul(op.Div(m, op.Add(op.Sqrt(v), epsilon)), scale)
        return op.Sub(w, moved), {"m": m, "v": v}


class AdamW(Adam, keyword="adamw"):
    """Adam with weight decay (Loshchilov and Hutter 2019): `adamw(0.001)`; w = (1 - lr decay) w, then as `adam`."""

    decays = True
    decay: AtLeast = 0.01
    """Weight decay; on matrices and kernels only."""

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        if decay and self.decay:
            rate = scalars[2]
            keep = 1 - rate * self.decay if isinstance(rate, float) else op.Sub(1.0, op.Mul(rate, self.decay))
            w = op.Mul(w, keep)
        return super().update(op, w, g, state, scalars, decay=decay)


class Adagrad(Optimizer, keyword="adagrad"):
    """Adaptive gradients (Duchi et al. 2011): `adagrad(0.01)`; v = v + g^2, w = w - lr g / (sqrt(v) + epsilon)."""

    lr: Above = 0.01
    """Learning rate."""
    epsilon: Above = 1e-10
    """Added to the root."""

    def slots(self) -> tuple[str, ...]:
        return ("v",)

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        v = op.Add(state["v"], op.Mul(g, g))
        return op.Sub(w, op.Mul(op.Div(g, op.Add(op.Sqrt(v), self.epsilon)), scalars)), {"v": v}


class Rmsprop(Optimizer, keyword="rmsprop"):
    """RMSProp (Hinton 2012): `rmsprop(0.01)`; v = beta v + (1 - beta) g^2, w = w - lr g / (sqrt(v) + epsilon)."""

    lr: Above = 0.01
    """Learning rate."""
    beta: Fraction = 0.99
    """Decay of the mean of squared gradients."""
    epsilon: Above = 1e-8
    """Added to the root."""
    momentum: Fraction = 0.0
    """Momentum of the scaled gradients; 0 keeps no state for it."""

    def slots(self) -> tuple[str, ...]:
        return ("v", "m") if self.momentum else ("v",)

    def scalars(self, time: Time, factor: ir.Value | None) -> Any:
        return self.rate(time, factor, 1 / math.sqrt(1 - self.beta))

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        v = op.Add(op.Mul(state["v"], self.beta), op.Mul(g, g))
        scaled = op.Div(g, op.Add(op.Sqrt(v), self.epsilon / math.sqrt(1 - self.beta)))
        if not self.momentum:
            return op.Sub(w, op.Mul(scaled, scalars)), {"v": v}
        m = op.Add(op.Mul(state["m"], self.momentum), scaled)
        return op.Sub(w, op.Mul(m, scalars)), {"v": v, "m": m}


class Adadelta(Optimizer, keyword="adadelta"):
    """No learning rate to set (Zeiler 2012): `adadelta`; d = sqrt((u + epsilon) / (v + epsilon)) g, w = w - lr d.

    v and u are running means of g^2 and d^2 with decay `rho`.
    """

    lr: Above = 1.0
    """Factor on the movement."""
    rho: Fraction = 0.9
    """Decay of both means."""
    epsilon: Above = 1e-6
    """Added to both means."""

    def slots(self) -> tuple[str, ...]:
        return ("v", "u")

    def update(self, op: Ops, w: ir.Value, g: ir.Value, state: State, scalars: Any, *, decay: bool) -> Updated:
        epsilon = self.epsilon / (1 - self.rho)
        v = op.Add(op.Mul(state["v"], self.rho), op.Mul(g, g))
        ratio = op.Div(op.Add(state["u"], epsilon), op.Add(v, epsilon))
        moved = op.Mul(op.Sqrt(ratio), g)
        u = op.Add(op.Mul(state["u"], self.rho), op.Mul(moved, moved))
        if not (isinstance(scalars, float) and scalars == 1.0):
            moved = op.Mul(moved, scalars)
        return op.Sub(w, moved), {"v": v, "u": u}
