"""Windows over a masked sequence see nothing behind its end: padded in a batch or alone, the results are the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sequence.graphs import network_of, run

WINDOWS = {
    "conv": "conv(4, 3, pad = 1) -> relu -> conv(4, 5, stride = 2, pad = 2)",
    "dilated": "conv(4, 3, dilation = 2, pad = 2) -> tanh -> conv(4, 3)",
    "maxpool": "conv(4, 3, pad = 1) -> maxpool(3, stride = 2, pad = 1) -> conv(4, 3, pad = 1)",
    "avgpool": "conv(4, 3, pad = 1) -> avgpool(2) -> conv(4, 3, pad = 1)",
    "transposed": "conv_transpose(4, 4, stride = 2, pad = 1) -> relu -> conv(4, 3, pad = 1)",
}


@pytest.mark.parametrize("kind", WINDOWS)
def test_padding_is_not_seen(kind: str) -> None:
    network = network_of(
        f"network Windows {{\n input x: [T, 3] masked\n output y = x -> transpose -> {WINDOWS[kind]} -> transpose\n}}"
    )
    rng = np.random.default_rng(0)
    lengths = np.array([12, 8, 9])
    x = (5 + rng.standard_normal((3, 12, 3))).astype(np.float32)
    together = run(network, {"x": x, "x.lengths": lengths})["y"]
    for row, length in enumerate(lengths):
        alone = run(network, {"x": x[row : row + 1, :length], "x.lengths": lengths[row : row + 1]})["y"][0]
        np.testing.assert_allclose(together[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)
