"""Store PyTorch's ctc_loss and its gradients for the tests: run with an environment that has torch.

python tests/oracle/ctc.py writes ctc.npz beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

STEPS, CLASSES, SYMBOLS = 12, 5, 6
# Label and input lengths. The fourth label needs 5 + 4 steps and gets 8; the fifth needs exactly the steps it gets.
CASES: list[tuple[list[int], int]] = [
    ([1, 2, 3], 12),
    ([2, 2], 9),
    ([4, 1, 1, 3, 2, 2], 11),
    ([3, 3, 3, 3, 3], 8),
    ([1, 1, 2], 4),
    ([4], 1),
]


def main() -> None:
    torch.manual_seed(3)
    logits = (2 * torch.randn(len(CASES), STEPS, CLASSES, dtype=torch.float64)).float()
    label = torch.zeros(len(CASES), SYMBOLS, dtype=torch.int64)
    for row, (symbols, _) in enumerate(CASES):
        label[row, : len(symbols)] = torch.tensor(symbols)
    frames = torch.tensor([t for _, t in CASES])
    lengths = torch.tensor([len(s) for s, _ in CASES])
    possible = torch.tensor([i for i in range(len(CASES)) if i != 3])
    found: dict[str, np.ndarray] = {
        "logits": logits.numpy(),
        "label": label.numpy(),
        "frames": frames.numpy(),
        "lengths": lengths.numpy(),
        "possible": possible.numpy(),
    }
    for name, rows, zero in (("all", torch.arange(len(CASES)), True), ("possible", possible, False)):
        x = logits[rows].double().requires_grad_()
        loss = torch.nn.functional.ctc_loss(
            x.log_softmax(2).transpose(0, 1), label[rows], frames[rows], lengths[rows], zero_infinity=zero
        )
        loss.backward()
        found[f"{name}.loss"] = loss.detach().numpy()
        found[f"{name}.gradient"] = x.grad.numpy()
    x = logits.double()
    each = torch.nn.functional.ctc_loss(x.log_softmax(2).transpose(0, 1), label, frames, lengths, reduction="none")
    found["each"] = each.numpy()
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
