"""What a step is said to do: counted by hand on small networks."""

import pytest

from nnspec.compile import compile_recipe
from nnspec.source import Source
from nnspec.training import build


def _work(body: str, shape: str, batch: int):
    text = f"""network N {{ input x: {shape} output y = x -> {body} }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = {batch} }}"""
    return build(compile_recipe(Source("net.nn", text))).manifest["work"]


def test_products_of_a_dense_network() -> None:
    forward = 32 * (64 * 64 + 64 * 10)
    # Backwards: both weights, the hidden layer's gradient, and the sums over the batch for both biases.
    backward = forward + 32 * 64 * 10 + 32 * (64 + 10)
    assert _work("dense(64) -> relu -> dense(10)", "[64]", 32)["macs"] == forward + backward


def test_the_body_of_a_loop_counts_for_each_step() -> None:
    short, long = (_work("rnn(8) -> last -> dense(10)", f"[{steps}, 4]", 2)["macs"] for steps in (5, 10))
    dense = 2 * 2 * 8 * 10 + 2 * 8 * 10 + 2 * 10
    assert long - dense == pytest.approx(2 * (short - dense), rel=0.02)


def test_more_samples_make_more_bytes() -> None:
    few, many = (_work("dense(64) -> relu -> dense(10)", "[64]", batch)["bytes"] for batch in (32, 64))
    assert few < many < 2 * few


def test_nothing_is_said_where_a_size_is_open() -> None:
    assert _work("rnn(8) -> last -> dense(10)", "[T, 4]", 2) is None
