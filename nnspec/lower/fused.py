"""ONNX's fused recurrent operators, for inference: ONNX Runtime has fast kernels for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from nnspec.layers.recurrent import Recurrence
from nnspec.lower.context import Context


def lower_fused(
    ctx: Context, layer: Recurrence, x: Sequence[ir.Value], w: Mapping[str, ir.Value]
) -> tuple[ir.Value, ...] | None:
    """Return the sequence of results and the final states of a standard cell; None where the operator cannot do it.

    ONNX orders the gates of LSTM as i, o, f, c and those of GRU as z, r, h; the cells order them as PyTorch does.
    """
    op, kind = ctx.op, layer.standard
    assert kind is not None
    units = layer.states[0].type.shape[0]
    if not isinstance(units, int) or any(s.start is not None for s in layer.states):
        return None
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}[kind]

    def gates(value: ir.Value) -> ir.Value:
        """Put the rows of the gates in ONNX's order, and a direction axis in front."""
        if len(order) > 1:
            parts = op.Split(value, [units] * len(order), axis=0, outputs=len(order))
            value = op.Concat(*(parts[i] for i in order), axis=0)
        return op.Unsqueeze(value, [0])

    recurrent = w["hh.weight"]
    second = w.get("hh.bias")
    after = kind == "GRU" and "hn.weight" not in w
    if kind == "GRU" and not after:
        recurrent = op.Concat(recurrent, w["hn.weight"], axis=0)
        second = None if second is None else op.Concat(second, w["hn.bias"], axis=0)
    bias = None
    if "ih.bias" in w:
        import numpy as np

        zeros = op.constant(np.zeros((1, units * len(order)), np.float32))
        bias = op.Concat(gates(w["ih.bias"]), zeros if second is None else gates(second), axis=1)
    lengths = ctx.lengths(ctx.inputs[0].shape[0])
    lengths = None if lengths is None else op.Cast(lengths, to=int(ir.DataType.INT32))
    starts = dict(zip(layer.initial, x[1:], strict=True))
    initial = [op.Unsqueeze(starts[s.name], [0]) if s.name in starts else None for s in layer.states]
    attributes: dict[str, object] = {"hidden_size": units, "direction": "reverse" if layer.reverse else "forward"}
    if kind == "GRU":
        attributes["linear_before_reset"] = int(after)
    made = op.emit(
        kind,
        [op.Transpose(x[0], perm=[1, 0, 2]), gates(w["ih.weight"]), gates(recurrent), bias, lengths, *initial],
        attributes,
        outputs=1 + len(layer.states),
    )
    sequence = op.Transpose(op.Squeeze(made[0], [1]), perm=[1, 0, 2])
    return (sequence, *(op.Squeeze(v, [0]) for v in made[1:]))
