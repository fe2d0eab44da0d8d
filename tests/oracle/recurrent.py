"""Write recurrent.npz: what PyTorch says of its recurrent layers and their gradients, in float64.

Run it from the repository's root with a Python that has torch and NumPy: `python tests/oracle/recurrent.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.recurrent.cases import BATCH, CASES, FEATURES, LENGTHS, PROJECTION, STEPS, UNITS, Case

LAYERS = {
    "rnn": torch.nn.RNN,
    "relu_rnn": torch.nn.RNN,
    "lstm": torch.nn.LSTM,
    "lstmp": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}


def results(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return a case's weights, data, results and gradients of the results times random directions."""
    torch.manual_seed(seed)
    options = {"relu_rnn": {"nonlinearity": "relu"}, "lstmp": {"proj_size": PROJECTION}}.get(case.cell, {})
    layer = LAYERS[case.cell](
        FEATURES, UNITS, num_layers=case.layers, bidirectional=case.bidirectional, batch_first=True, **options
    ).double()
    found: dict[str, np.ndarray] = {}
    for name, weight in layer.named_parameters():
        weight.data = (torch.randn(weight.shape) * 0.4).float().double()
        found[f"weight.{name}"] = weight.detach().float().numpy()
    directions = 2 if case.bidirectional else 1
    x = torch.randn(BATCH, STEPS, FEATURES).double().requires_grad_()
    out = PROJECTION if case.cell == "lstmp" else UNITS
    lstm = case.cell in ("lstm", "lstmp")
    sizes = [out, UNITS] if lstm else [out]
    starts = [torch.randn(directions * case.layers, BATCH, n).double().requires_grad_() for n in sizes]
    given = (tuple(starts) if lstm else starts[0]) if case.initial else None
    fed = pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False) if case.masked else x
    y, finals = layer(fed, given)
    if case.masked:
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=STEPS)
    finals = finals if lstm else (finals,)
    # The last layer's, both directions side by side, as nnspec gives them.
    last = [torch.cat(list(f[-directions:]), -1) for f in finals]
    values = {"y": y, **{f"final{i}": f for i, f in enumerate(last)}}
    loss = torch.zeros(())
    for name, value in values.items():
        direction = torch.randn(value.shape).float().double()
        found[f"direction.{name}"] = direction.float().numpy()
        found[f"result.{name}"] = value.detach().float().numpy()
        loss = loss + (value * direction).sum()
    loss.backward()
    found["x"] = x.detach().float().numpy()
    found["gradient.x"] = x.grad.float().numpy()
    for name, weight in layer.named_parameters():
        found[f"gradient.{name}"] = weight.grad.float().numpy()
    if case.initial:
        for i, start in enumerate(starts):
            found[f"start{i}"] = start.detach()[0].float().numpy()
            found[f"gradient.start{i}"] = start.grad[0].float().numpy()
    return found


def main() -> None:
    stored = {
        f"{case.name}/{key}": value for seed, case in enumerate(CASES) for key, value in results(case, seed).items()
    }
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **stored)


if __name__ == "__main__":
    main()
