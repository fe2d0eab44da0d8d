"""Everything that a cell may be made of: the loop and the straight line agree, in results and in gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.autodiff import differentiate
from nnspec.ir import Network
from nnspec.lower import finish_outputs, lower
from nnspec.ops import IR_VERSION, dims_of
from tests.recurrent.running import Arrays, model_of, network_of, random_weights, run

MOVE = "next h = tanh((x, h) -> concat -> dense(4))"
FORMS = {
    "words looked up within the cell": (
        "cell c on w { state h: [4]  x = w -> embedding(9, 3)  " + MOVE + "  return next h }",
        "words -> c",
    ),
    "two sequences": (
        "cell c on (a, b) { state h: [4]  next h = tanh((a, h, b) -> concat -> dense(4))  return next h, a * 2 }",
        "(x, (x -> dense(2))) -> c",
    ),
    "a matrix as state": (
        """cell c on x {
          state m: [5, 4]
          key = softmax(x)
          value = x -> dense(4)
          next m = 0.9 * m + (key -> unsqueeze(1)) * (value -> unsqueeze(0))
          return (x -> unsqueeze(0)) @ next m -> reshape([4])
        }""",
        "x -> c",
    ),
    "a number as state": (
        "cell c on x { state n: []  next n = n + sigmoid(x -> dense(1) -> reshape([]))  return x * n }",
        "x -> c",
    ),
    "a state that only looks at data": (
        "cell c on x { state h: [4]  next h = tanh(x -> dense(4))  return h + next h }",
        "x -> c",
    ),
    "a state that never moves": (
        "cell c on x { state h: [4] = [1, 2, 3, 4]  next h = h  return h * (x -> dense(4)) }",
        "x -> c",
    ),
    "a state that becomes a weight": (
        "cell c on x { state h: [4]  param p: [4] = ones  next h = p  return h * (x -> dense(4)) }",
        "x -> c",
    ),
    "a learned start": (
        "cell c on x { param p: [4] = ones  state h: [4] = tanh(p)  " + MOVE + "  return next h }",
        "x -> c",
    ),
    "given data and weights": (
        """cell c on x given (memory, bias) {
          state h: [4]
          context = softmax(memory @ (h -> dense(3))) @ memory
          next h = tanh((x, h, context) -> concat -> dense(4)) + bias
          return next h, memory
        }""",
        "x -> c(memory = (x -> dense(3)), bias = b)",
    ),
    "time": (
        "cell c on x { state h: [4]  t = step -> real  " + MOVE + " + 0.1 * t  return next h * t }",
        "x -> c",
    ),
    "several results": (
        "cell c on x { state h: [4]  " + MOVE + "  return next h, h, next h -> dense(2), x }",
        "x -> c",
    ),
    "layers on the state": (
        """cell c on x {
          state h: [6]
          z = (x, h) -> concat -> dense(6) -> layernorm -> relu -> dense(6)
          next h = h + z
          return next h -> layernorm
        }""",
        "x -> c",
    ),
    "a start from outside without a batch": ("", "x -> gru(4, initial = b)"),
    "a cell of a cell": (
        """cell inner on x { state h: [3]  next h = tanh((x, h) -> concat -> dense(3))  return next h }
        cell c on x {
          state h: [4]
          a = x -> reshape([5, 1]) -> inner -> last
          b = h -> reshape([4, 1]) -> gru(3) -> last
          next h = tanh((a, b, h) -> concat -> dense(4))
          return next h
        }""",
        "x -> c",
    ),
    "the same weights twice": ("", "(x -> twin) + (x -> reverse -> twin)"),
}


def network(cell: str, use: str, length: str, masked: bool = False) -> Network:
    """Return a network that uses a cell, beside others that use all else that is declared."""
    return network_of(
        f"""block scaled on x {{ param b: [4] = ones  return x * b }}
        block offset on x {{ param b: [4] = ones  return {use} }}
        {cell}
        network N {{
          input x: [{length}, 5]{" masked" * masked}
          input words: int[{length}]
          shared twin = lstm(4, reverse = true)
          output y = {"x -> offset" if "b)" in use else use}
          output others = (x -> twin -> sum) + (words -> embedding(9, 4) -> scaled -> sum)
        }}"""
    )


def results(n: Network, weights: Arrays, feed: Arrays, unroll: bool) -> Arrays:
    """Return the outputs, and the gradients of their weighted sums by all weights and data."""
    lowered = lower(n, training=True, unroll=unroll)
    op = lowered.ops
    loss = None
    for i, output in enumerate(n.outputs):
        value = lowered.values[output.value]
        part = op.ReduceSum(op.Sin(op.Mul(value, float(i + 1))), keepdims=0)
        loss = part if loss is None else op.Add(loss, part)
    wanted = {**lowered.weights, "x": lowered.values["x"]}
    gradients = differentiate(op, loss, list(wanted.values()))
    outputs = {o.name: lowered.values[o.value] for o in n.outputs}
    outputs |= {f"{name}.grad": g for name, g in zip(wanted, gradients, strict=True) if g is not None}
    lowered.graph.inputs.extend(lowered.weights.values())
    finish_outputs(lowered, outputs)
    return run(ir.to_proto(ir.Model(lowered.graph, ir_version=IR_VERSION)), {**feed, **weights})


@pytest.mark.parametrize(("cell", "use"), FORMS.values(), ids=FORMS)
def test_loop_and_straight_line_agree(cell: str, use: str) -> None:
    rng = np.random.default_rng(0)
    feed = {
        "x": rng.standard_normal((3, 6, 5)).astype(np.float32),
        "words": rng.integers(0, 9, (3, 6)),
    }
    n = network(cell, use, "T")
    weights = random_weights(n)
    loop = results(n, weights, feed, unroll=False)
    line = results(network(cell, use, "6"), weights, feed, unroll=True)
    assert loop.keys() == line.keys()
    assert sum(name.endswith(".grad") for name in loop) >= 1
    for name, value in loop.items():
        np.testing.assert_allclose(value, line[name], rtol=1e-5, atol=1e-5, err_msg=name)
        assert np.abs(value).max() > 1e-6, name
    inference = run(model_of(n, weights), feed)
    np.testing.assert_allclose(loop["y"], inference["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cell", "use"), FORMS.values(), ids=FORMS)
def test_samples_of_different_lengths(cell: str, use: str) -> None:
    """In a batch each sample gives what it gives alone, and zeros behind its end."""
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((3, 6, 5)).astype(np.float32), "words": rng.integers(0, 9, (3, 6))}
    lengths = np.array([2, 6, 4])
    n = network(cell, use, "T", masked=True)
    model = model_of(n, random_weights(n))
    together = run(model, {**feed, "x.lengths": lengths})["y"]
    for i, length in enumerate(lengths):
        cut = {name: value[i : i + 1, :length] for name, value in feed.items()}
        alone = run(model, {**cut, "x.lengths": lengths[i : i + 1]})["y"]
        np.testing.assert_allclose(together[i, :length], alone[0], rtol=1e-5, atol=1e-5)
        assert not together[i, length:].any()


def test_the_steps_of_a_computed_length_are_named() -> None:
    text = """network N { input x: [T, 6] masked
      output y = x -> transpose -> conv(8, 3, stride = 2) -> transpose -> lstm(4) -> last -> dense(3) }"""
    graph = lower(network_of(text), fused=False).graph
    named = {node.name: dims_of(node.outputs[0]) for node in graph if node.op_type == "Range"}
    assert named["lstm1/Range"] == ("(T - 1)//2",)
