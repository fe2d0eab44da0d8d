"""What prevents a CUDA graph: the report, from tables alone; and steps of fixed size, which compute the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.ops import dims_of
from nnspec.training import build
from nnspec.training.cuda_graph import examine, obstacles, report
from nnspec.training.fixed import fix_sizes, open_symbols, sizes_of
from tests.training.programs import Graph, recipe_of


def text(body: str, settings: str = "", input: str = "[3, 8, 8]") -> str:
    return f"""network N {{ input x: {input} output y = x -> {body} }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = adam(0.01) batch = 6 {settings} }}"""


CONV = "conv(4, 3x3, pad = 1) -> batchnorm -> relu -> maxpool(2) -> flatten -> dropout(0.2) -> dense(5)"
LSTM = "lstm(4) -> last -> dense(5)"


@pytest.mark.parametrize("settings", ["", "precision = float16", "clip = norm(1) schedule = cosine"])
def test_a_feed_forward_step_at_a_fixed_batch_has_no_obstacle(settings: str) -> None:
    verdict = examine(recipe_of(text(CONV, settings)))
    assert verdict.possible, report(verdict)
    assert report(verdict) == "N at batch 6: nothing prevents a CUDA graph"


def test_with_an_open_batch_sizes_are_computed_on_the_cpu() -> None:
    found = obstacles(build(recipe_of(text(CONV))).step.graph)
    assert {o.reason for o in found} == {"computes with sizes on the CPU"}


def test_loops_and_open_sizes_are_told() -> None:
    verdict = examine(recipe_of(text(LSTM, input="[T, 3]")))
    assert verdict.symbols == ("T",)
    assert any(o.op_type == "Scan" and o.reason == "control flow" for o in verdict.obstacles)
    assert "fix it with `--size T=N`" in report(verdict)
    fixed = examine(recipe_of(text(LSTM, input="[T, 3]")), {"T": 7})
    assert fixed.symbols == ()
    assert {o.op_type for o in fixed.obstacles} == {"Scan"}


@pytest.mark.parametrize(
    ("op_type", "dtype", "reason"),
    [
        ("Tan", ir.DataType.FLOAT, "no CUDA kernel"),
        ("NonZero", ir.DataType.FLOAT, "the size of its result hangs on values"),
        ("Log", ir.DataType.BFLOAT16, "no CUDA kernel for bfloat16"),
        ("Log", ir.DataType.FLOAT16, ""),
        ("Pad", ir.DataType.INT64, "no CUDA kernel for int64"),
    ],
)
def test_the_table_of_kernels_is_asked(op_type: str, dtype: ir.DataType, reason: str) -> None:
    x = ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape([2, 3]))
    node = ir.Node("", op_type, [x], num_outputs=1)
    found = obstacles(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}))
    assert [o.reason for o in found] == ([reason] if reason else [])


@pytest.mark.parametrize(("body", "input"), [(CONV, "[3, 8, 8]"), (LSTM, "[T, 3]")])
def test_a_step_of_fixed_size_computes_the_same(body: str, input: str) -> None:
    recipe = recipe_of(text(body, input=input))
    program = build(recipe)
    fixed = fix_sizes(program.step, sizes_of(recipe, {"T": 5}))
    assert open_symbols(fixed.graph) == []
    assert all(isinstance(d, int) for n in fixed.graph for v in n.outputs for d in dims_of(v) or ())
    assert "batch" in open_symbols(program.step.graph), "the original must stay as it was"
    rng = np.random.default_rng(0)
    shape = (6, 3, 8, 8) if "conv" in body else (6, 5, 3)
    given = {**program.state, "x": rng.normal(size=shape).astype(np.float32), "t": rng.integers(0, 5, 6)}
    a, b = Graph(program.step)(given), Graph(fixed)(given)
    assert a.keys() == b.keys()
    for name in a:
        assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name
