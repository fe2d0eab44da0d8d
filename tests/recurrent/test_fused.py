"""Cells that compute what LSTM, GRU or RNN do become that operator, however they are written; near misses do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nnspec.cli import main
from nnspec.lower.context import LoweringError
from tests.recurrent.running import Arrays, model_of, network_of, operators, random_weights, reals, run

SAME = {
    # Each gate by itself, the memory declared first, terms in another order, constants in gates.
    "lstm-gate-by-gate": (
        "LSTM",
        """cell c(units) on x {
          state memory: [units]
          state h: [units]
          both = (h, x) -> concat
          keep = sigmoid(1 + (both -> dense(units)))
          write = sigmoid(both -> dense(units))
          read = sigmoid(2 * (x -> dense(units)) - (h -> dense(units)))
          next memory = tanh(both -> dense(units)) * write + memory * keep
          next h = tanh(next memory) * read
          return next h
        }""",
    ),
    "lstm-with-peepholes": (
        "LSTM",
        """cell c(units) on x {
          state h: [units]
          state m: [units]
          param p: [units] = ones
          param q: [units] = ones
          i, f, g, o = (x, h) -> concat -> dense(4 * units) -> split(4)
          next m = sigmoid(f) * m + sigmoid(m * p + i) * tanh(g)
          next h = sigmoid(o + next m * q) * tanh(next m)
          return next h
        }""",
    ),
    # The data pass through layers of their own first, and the output through another.
    "lstm-between-layers": (
        "LSTM",
        """cell c(units) on x {
          state h: [units]
          state m: [units]
          e = relu(x -> dense(7))
          i, f, g, o = (e, x, h) -> concat -> dense(4 * units) -> split(4)
          next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
          next h = sigmoid(o) * tanh(next m)
          return tanh(next h -> dense(3))
        }""",
    ),
    "lstm-without-bias": (
        "LSTM",
        """cell c(units) on x {
          state h: [units]
          state m: [units]
          i, f, g, o = (x, h) -> concat -> dense(4 * units, bias = false) -> split(4)
          next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
          next h = sigmoid(o) * tanh(next m)
          return next h
        }""",
    ),
    # The paper's other convention: z takes the new state.
    "gru-flipped": (
        "GRU",
        """cell c(units) on x {
          state h: [units]
          z = sigmoid((x, h) -> concat -> dense(units))
          r = sigmoid((x, h) -> concat -> dense(units))
          new = tanh((x, r * h) -> concat -> dense(units))
          next h = z * new + (1 - z) * h
          return next h
        }""",
    ),
    "gru-after": (
        "GRU",
        """cell c(units) on x {
          state h: [units]
          z = sigmoid((x, h) -> concat -> dense(units))
          r = sigmoid((x, h) -> concat -> dense(units))
          new = tanh((h -> dense(units)) * r + (x -> dense(units)))
          next h = new - z * new + h * z
          return next h
        }""",
    ),
    "rnn-sigmoid": (
        "RNN",
        """cell c(units) on x {
          state h: [units]
          next h = sigmoid((h -> dense(units)) + (x -> dense(units)))
          return next h
        }""",
    ),
    "rnn-of-parts-of-the-data": (
        "RNN",
        """cell c(units) on x {
          state h: [units]
          next h = tanh((x -> slice(1, 3) -> dense(units)) + ((h, x -> slice(3)) -> concat -> dense(units)))
          return next h
        }""",
    ),
}

OTHER = {
    # A gate sees the new memory where LSTM shows it the old one.
    "lstm-late-peephole": """cell c(units) on x {
      state h: [units]
      state m: [units]
      param p: [units] = ones
      i, f, g, o = (x, h) -> concat -> dense(4 * units) -> split(4)
      next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
      next h = sigmoid(o + m * p) * tanh(next m)
      return next h
    }""",
    # No squashing of what is read.
    "lstm-linear-output": """cell c(units) on x {
      state h: [units]
      state m: [units]
      i, f, g, o = (x, h) -> concat -> dense(4 * units) -> split(4)
      next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
      next h = sigmoid(o) * next m
      return next h
    }""",
    # The memory of every step is needed, which the operator does not give.
    "lstm-that-shows-its-memory": """cell c(units) on x {
      state h: [units]
      state m: [units]
      i, f, g, o = (x, h) -> concat -> dense(4 * units) -> split(4)
      next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
      next h = sigmoid(o) * tanh(next m)
      return next h + next m
    }""",
    "lstm-that-returns-the-state-before": """cell c(units) on x {
      state h: [units]
      state m: [units]
      i, f, g, o = (x, h) -> concat -> dense(4 * units) -> split(4)
      next m = sigmoid(f) * m + sigmoid(i) * tanh(g)
      next h = sigmoid(o) * tanh(next m)
      return h
    }""",
    "gru-with-another-gate": """cell c(units) on x {
      state h: [units]
      z = sigmoid((x, h) -> concat -> dense(units))
      y = sigmoid((x, h) -> concat -> dense(units))
      new = tanh((x, z * h) -> concat -> dense(units))
      next h = z * new + (1 - y) * h
      return next h
    }""",
    "rnn-with-a-rest": """cell c(units) on x {
      state h: [units]
      next h = tanh((x, h) -> concat -> dense(units)) + 0.5 * h
      return next h
    }""",
    "no-recurrence": """cell c(units) on x {
      state h: [units]
      next h = tanh(x -> dense(units))
      return next h + h
    }""",
}


def text_of(cell: str, length: str = "T") -> str:
    return f"""
    {cell}
    network N {{
      input x: [{length}, 5] masked
      input start: [6]
      output y = x -> c(6)
      output back = x -> c(6, reverse = true)
      a, b = x -> c(6, initial = start)
      output a
      output b
    }}""".replace("masked" if length != "T" else "\0", "")


def feed_of(batch: int = 4, length: int = 9) -> Arrays:
    return {"x": reals(batch, length, 5), "start": reals(batch, 6, seed=2), "x.lengths": np.array([9, 1, 5, 3][:batch])}


@pytest.mark.parametrize(("operator", "cell"), SAME.values(), ids=SAME)
def test_recognised(operator: str, cell: str) -> None:
    network = network_of(text_of(cell))
    weights = random_weights(network)
    fused, scan = model_of(network, weights), model_of(network, weights, fused=False)
    assert operators(fused)[operator] == 3
    assert operators(fused)["Scan"] == 0
    assert operators(scan)["Scan"] == 3
    expected = run(scan, feed_of())
    for name, value in run(fused, feed_of()).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cell", OTHER.values(), ids=OTHER)
def test_not_recognised(cell: str) -> None:
    network = network_of(text_of(cell))
    counts = operators(model_of(network, random_weights(network)))
    assert counts["LSTM"] == counts["GRU"] == counts["RNN"] == 0


@pytest.mark.parametrize("cell", [c for _, c in SAME.values()] + list(OTHER.values()), ids=[*SAME, *OTHER])
def test_unrolled(cell: str) -> None:
    network = network_of(text_of(cell, "9"))
    weights = random_weights(network)
    unrolled = model_of(network, weights, unroll=True)
    counts = operators(unrolled)
    assert counts["Scan"] == counts["LSTM"] == counts["GRU"] == counts["RNN"] == 0
    feed = {k: v for k, v in feed_of().items() if k != "x.lengths"}
    expected = run(model_of(network, weights, fused=False), feed)
    for name, value in run(unrolled, feed).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_unrolled_by_the_command_line(tmp_path: Path) -> None:
    spec, model = tmp_path / "n.nn", tmp_path / "n.onnx"
    spec.write_text("network N { input x: [4, 5]  output y = x -> lstm(6) }", encoding="utf-8")
    assert main(["export", str(spec), "-o", str(model), "--unroll"]) == 0
    counts = operators(onnx.load(model))
    assert counts["LSTM"] == counts["Scan"] == 0
    assert counts["Tanh"] == 8
    spec.write_text("network N { input x: [T, 5]  output y = x -> lstm(6) }", encoding="utf-8")
    assert main(["export", str(spec), "-o", str(model), "--unroll"]) != 0


def test_unrolling_needs_a_length() -> None:
    network = network_of(text_of(OTHER["rnn-with-a-rest"]))
    with pytest.raises(LoweringError, match="c1 cannot be unrolled: its length `T` is symbolic"):
        model_of(network, random_weights(network), unroll=True)


def test_same_graph_every_time() -> None:
    network = network_of(text_of(SAME["lstm-gate-by-gate"][1]))
    weights = random_weights(network)
    assert model_of(network, weights).SerializeToString() == model_of(network, weights).SerializeToString()


@pytest.mark.parametrize(
    "cell", ["lstm(6, recurrent_bias = true)", "gru(6)", "peephole_lstm(6)", "clockwork(8)", "elman(6)"]
)
def test_padding_changes_nothing(cell: str) -> None:
    """Each sample gives what it gives alone, cut to its own length, whatever stands behind its end."""
    network = network_of(
        f"""network N {{
          input x: [T, 5] masked
          y, final = x -> {cell} as one
          output y
          output final
          output both = x -> bidirectional({cell})
          output end = y -> last
        }}"""
    )
    weights = random_weights(network)
    feed = {k: v for k, v in feed_of().items() if k != "start"}
    for options in ({}, {"fused": False}):
        model = model_of(network, weights, **options)
        together = run(model, feed)
        junk = feed["x"].copy()
        for i, length in enumerate(feed["x.lengths"]):
            junk[i, length:] = 1e3
        for name, value in run(model, {**feed, "x": junk}).items():
            np.testing.assert_array_equal(value, together[name])
        for i, length in enumerate(feed["x.lengths"]):
            alone = run(model, {"x": feed["x"][i : i + 1, :length], "x.lengths": np.array([length])})
            for name in ("final", "end"):
                np.testing.assert_allclose(together[name][i], alone[name][0], rtol=0, atol=1e-5)
            for name in ("y", "both"):
                np.testing.assert_allclose(together[name][i, :length], alone[name][0], rtol=0, atol=1e-5)
                assert not together[name][i, length:].any()
        assert np.abs(together["end"]).max() > 1e-3
