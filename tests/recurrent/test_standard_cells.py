"""The standard library of cells: parameters, products, equations by plain NumPy loops, and ONNX's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnspec.dims import evaluate
from nnspec.elaborate.modules import Library
from nnspec.summary import summarize
from tests.recurrent.running import Arrays, model_of, network_of, operators, random_weights, reals, run

Array = NDArray[Any]
Step = Callable[..., tuple[Array, ...]]
I, H = 5, 8  # noqa: E741


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)  # type: ignore[no-any-return]


def rnn(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    h = np.tanh(x @ w["ih.weight"].T + w["ih.bias"] + h @ w["hh.weight"].T + w.get("hh.bias", 0))
    return h, h


def irnn(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    h = np.maximum(x @ w["ih.weight"].T + w["ih.bias"] + h @ w["hh.weight"].T, 0)
    return h, h


def elman(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    h = np.tanh(np.concatenate([x, h], -1) @ w["hidden.weight"].T + w["hidden.bias"])
    return h, h


def jordan(w: Arrays, x: Array, y: Array, t: int) -> tuple[Array, ...]:
    hidden = np.tanh(x @ w["ih.weight"].T + w["ih.bias"] + y @ w["hh.weight"].T)
    y = softmax(hidden @ w["out.weight"].T + w["out.bias"])
    return y, y


def lstm(w: Arrays, x: Array, h: Array, c: Array, t: int) -> tuple[Array, ...]:
    z = x @ w["ih.weight"].T + w["ih.bias"] + h @ w["hh.weight"].T + w.get("hh.bias", 0)
    i, f, g, o = np.split(z, 4, -1)
    c = sigmoid(f + w.get("pf", 0) * c) * c + sigmoid(i + w.get("pi", 0) * c) * np.tanh(g)
    h = sigmoid(o + w.get("po", 0) * c) * np.tanh(c)
    if "hr.weight" in w:
        h = h @ w["hr.weight"].T
    return h, h, c


def lstm_simple(w: Arrays, x: Array, c: Array, t: int) -> tuple[Array, ...]:
    i, f, g, o = np.split(x @ w["ih.weight"].T + w["ih.bias"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    xr, xz, xn = np.split(x @ w["ih.weight"].T + w["ih.bias"], 3, -1)
    recurrent = h @ w["hh.weight"].T + w.get("hh.bias", 0)
    r, z = sigmoid(xr + recurrent[:, :H]), sigmoid(xz + recurrent[:, H : 2 * H])
    n = (r * h) @ w["hn.weight"].T + w.get("hn.bias", 0) if "hn.weight" in w else r * recurrent[:, 2 * H :]
    h = (1 - z) * np.tanh(xn + n) + z * h
    return h, h


def mgu(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    xf, xn = np.split(x @ w["ih.weight"].T + w["ih.bias"], 2, -1)
    f = sigmoid(xf + h @ w["hf.weight"].T)
    h = (1 - f) * h + f * np.tanh(xn + (f * h) @ w["hn.weight"].T)
    return h, h


def clockwork(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
    # One block-triangular matrix, of which only the rows of the groups that move count.
    size = H // 4
    matrix = np.zeros((H, H), np.float32)
    moves = np.zeros(H, bool)
    for i, period in enumerate([1, 2, 4, 8]):
        rows = slice(i * size, (i + 1) * size)
        matrix[rows, i * size :] = w[f"hh{i + 1 if i else ''}.weight"]
        moves[rows] = t % period == 0
    h = np.where(moves, np.tanh(x @ w["ih.weight"].T + w["ih.bias"] + h @ matrix.T), h)
    return h, h


def scrn(w: Arrays, x: Array, h: Array, s: Array, t: int) -> tuple[Array, ...]:
    s = 0.05 * (x @ w["xs.weight"].T) + 0.95 * s
    h = sigmoid(s @ w["sh.weight"].T + x @ w["ih.weight"].T + w["ih.bias"] + h @ w["hh.weight"].T)
    return np.concatenate([h, s], -1), h, s


# The cell as written, its step, the sizes of its states, its parameters, its products in a step, ONNX's operator.
CELLS: list[tuple[str, Step, list[int], int, int, str]] = [
    ("rnn(8)", rnn, [H], H * (I + H + 1), H * (I + H), "RNN"),
    ("rnn(8, recurrent_bias = true)", rnn, [H], H * (I + H + 2), H * (I + H), "RNN"),
    ("irnn(8)", irnn, [H], H * (I + H + 1), H * (I + H), "RNN"),
    ("elman(8)", elman, [H], H * (I + H + 1), H * (I + H), "RNN"),
    ("jordan(8, 3)", jordan, [3], H * (I + 3 + 1) + 3 * (H + 1), H * (I + 3) + 3 * H, "Scan"),
    ("lstm(8)", lstm, [H, H], 4 * H * (I + H + 1), 4 * H * (I + H), "LSTM"),
    ("lstm(8, recurrent_bias = true)", lstm, [H, H], 4 * H * (I + H + 2), 4 * H * (I + H), "LSTM"),
    ("lstm_simple(8)", lstm_simple, [H], 4 * H * (I + 1), 4 * H * I, "Scan"),
    ("peephole_lstm(8)", lstm, [H, H], 4 * H * (I + H + 1) + 3 * H, 4 * H * (I + H), "LSTM"),
    ("lstmp(8, 3)", lstm, [3, H], 4 * H * (I + 3 + 1) + 3 * H, 4 * H * (I + 3) + 3 * H, "Scan"),
    ("gru(8)", gru, [H], 3 * H * (I + H + 1), 3 * H * (I + H), "GRU"),
    ("gru(8, recurrent_bias = true)", gru, [H], 3 * H * (I + H + 2), 3 * H * (I + H), "GRU"),
    ("gru(8, reset_after = false)", gru, [H], 3 * H * (I + H + 1), 3 * H * (I + H), "GRU"),
    (
        "gru(8, reset_after = false, recurrent_bias = true)",
        gru,
        [H],
        3 * H * (I + H + 2),
        3 * H * (I + H),
        "GRU",
    ),
    ("mgu(8)", mgu, [H], 2 * H * (I + H + 1), 2 * H * (I + H), "GRU"),
    ("clockwork(8)", clockwork, [H], H * (I + 1) + 2 * (8 + 6 + 4 + 2), H * I + 2 * (8 + 6 + 4 + 2), "Scan"),
    ("scrn(8, 4)", scrn, [H, 4], H * (I + H + 4 + 1) + 4 * I, H * (I + H + 4) + 4 * I, "Scan"),
]
IDS = [c[0] for c in CELLS]


def test_every_standard_cell_is_tested() -> None:
    assert {text.split("(")[0] for text, *_ in CELLS} == set(Library().names())


def reference(step: Step, weights: Arrays, x: Array, sizes: list[int], reverse: bool = False) -> list[Array]:
    """Run a step along a sequence; return the sequence of results and the final states."""
    states: list[Array] = [np.zeros((len(x), n), np.float32) for n in sizes]
    results: list[Array] = [np.empty(0)] * x.shape[1]
    for t in range(x.shape[1] - 1, -1, -1) if reverse else range(x.shape[1]):
        results[t], *states = step(weights, x[:, t], *states, t)
    return [np.stack(results, 1), *states]


@pytest.mark.parametrize(("text", "step", "sizes", "parameters", "macs", "operator"), CELLS, ids=IDS)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_equations(
    text: str, step: Step, sizes: list[int], parameters: int, macs: int, operator: str, reverse: bool
) -> None:
    cell = text.removesuffix(")") + (", reverse = true)" if reverse else ")")
    names = ["y", *(("logits",) if text.startswith("jordan") else ()), *(f"final{i}" for i in range(len(sizes)))]
    outputs = "".join(f"  output {n}\n" for n in names if n != "logits")
    targets = ", ".join("_logits" if n == "logits" else n for n in names)
    network = network_of(f"network N {{\n  input x: [T, {I}]\n  {targets} = x -> {cell} as cell\n{outputs}}}")
    weights = random_weights(network)
    x = reals(3, 11, I)
    local = {name.removeprefix("cell."): w for name, w in weights.items()}
    expected = reference(step, local, x, sizes, reverse)
    model = model_of(network, weights)
    assert operators(model)[operator] == 1
    for options in ({}, {"fused": False}):
        results = run(model_of(network, weights, **options), {"x": x})
        for name, value in zip([n for n in names if n != "logits"], expected, strict=True):
            np.testing.assert_allclose(results[name], value, rtol=0, atol=1e-5, err_msg=f"{name} {options}")


@pytest.mark.parametrize(("text", "step", "sizes", "parameters", "macs", "operator"), CELLS, ids=IDS)
def test_figures(text: str, step: Step, sizes: list[int], parameters: int, macs: int, operator: str) -> None:
    summary = summarize(network_of(f"network N {{ input x: [T, {I}]  output y = x -> {text} }}"))
    assert summary.counts.parameters == parameters
    for length in (1, 7, 1000):
        assert evaluate(summary.macs, {"T": length}) == macs * length


def test_forget_bias_starts_the_forget_gate_alone() -> None:
    for name in ("lstm", "lstm_simple", "peephole_lstm"):
        cell = f"{name}(4, forget_bias = 1.5)"
        network = network_of(f"network N {{ input x: [T, 2]  output y = x -> {cell} as cell }}")
        (bias,) = (w for w in network.weights if w.name == "cell.ih.bias")
        start = bias.init.sample(bias.shape, (4, 4), np.random.default_rng(0))
        np.testing.assert_array_equal(start, [0] * 4 + [1.5] * 4 + [0] * 8)


def test_irnn_starts_as_the_identity() -> None:
    network = network_of("network N { input x: [T, 2]  output y = x -> irnn(4, gain = 0.5) as cell }")
    (weight,) = (w for w in network.weights if w.name == "cell.hh.weight")
    np.testing.assert_array_equal(weight.init.sample((4, 4), (4, 4), np.random.default_rng(0)), np.eye(4) / 2)


def test_activation_can_be_a_block() -> None:
    text = """
    block twice on z { return tanh(tanh(z)) }
    network N { input x: [T, 5]  output y = x -> rnn(8, activation = twice) as cell }"""
    network = network_of(text)
    weights = random_weights(network)
    x = reals(2, 4, I)

    def step(w: Arrays, x: Array, h: Array, t: int) -> tuple[Array, ...]:
        h = np.tanh(np.tanh(x @ w["cell.ih.weight"].T + w["cell.ih.bias"] + h @ w["cell.hh.weight"].T))
        return h, h

    model = model_of(network, weights)
    assert operators(model)["RNN"] == 0
    np.testing.assert_allclose(run(model, {"x": x})["y"], reference(step, weights, x, [H])[0], atol=1e-5)


@pytest.mark.parametrize(("units", "parameters"), [(200, 4_651_600), (650, 19_775_200), (1500, 66_022_000)])
def test_language_models_of_the_penn_treebank(units: int, parameters: int) -> None:
    text = f"""
    network PTB {{
      input words: int[T]
      output logits = words -> embedding(10000, {units}) -> lstm({units}) * 2 -> dense(10000)
    }}"""
    assert summarize(network_of(text)).counts.parameters == parameters


def test_deep_speech_2() -> None:
    text = """
    block hardtanh on x { return x -> clip(0, 20) }
    network DeepSpeech2(letters = 29) {
      input spectrogram: [1, 161, T]
      x = spectrogram
        -> conv(32, 41x11, stride = 2x2, pad = 20x5) -> batchnorm -> hardtanh
        -> conv(32, 21x11, stride = 2x1, pad = 10x5) -> batchnorm -> hardtanh
      sequence = x -> reshape([32 * 41, x.shape[2]]) -> transpose
      layer = bidirectional(lstm(1024, recurrent_bias = true), join = add)
      output logits = sequence -> layer -> (batchnorm -> layer) * 4 -> batchnorm -> dense(letters, bias = false)
    }"""
    assert summarize(network_of(text)).counts.parameters == 86_618_400
