"""What the tests of the command line share: a way to run it, a small spec, and data for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnspec.cli import main

SPEC = """network Points(hidden = 8) {
  input at: [2]
  output logits = at -> dense(hidden) -> tanh -> dense(2)
}
train Points {
  target side: int
  loss = cross_entropy(logits, side)
  metric accuracy = accuracy(logits, side)
  optimizer = adam(lr = 0.05)
  batch = 25
  epochs = 4
}
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def call(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(status, out, err)

    return call


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A network of two dense layers with a train block."""
    path = tmp_path / "points.nn"
    path.write_text(SPEC)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 points, and on which side of a line they lie."""
    at = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    path = tmp_path / "points.npz"
    np.savez(path, at=at, side=(at @ [1, -2] > 0).astype(np.int64))
    return path
