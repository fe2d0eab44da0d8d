"""The timeline of a graph, against what ONNX Runtime's allocator holds after it ran the graph."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from nnspec_runtime.layout import channel_block

from nnspec.ops import IR_VERSION, OPSET, Ops, Target, dims_of
from nnspec.ops.blocks import DOMAIN, into_blocks, out_of_blocks, whole_blocks
from nnspec.training import build
from nnspec.training.fixed import fix_sizes, number, sizes_of
from nnspec.training.simplify import simplify
from nnspec.training.timeline import Timeline
from tests.training.programs import recipe_of

BLOCK = channel_block()
CHILD = Path(__file__).parent / "arena_of.py"
SHAPES = ((256, 1024), (8, 32, 1024))
"""Of one MiB; only tensors of the same dims share memory by plan."""
LARGEST = 4


def graph_of(seed: int, nodes: int = 14) -> ir.Graph:
    """Return a random graph of operators that write in place, that do not, that are views, and that change the size."""
    draw = random.Random(seed)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(SHAPES[0]))
    w = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((1024, 1024)))
    ops = Ops(ir.Graph([x, w], [], nodes=[], opset_imports={"": OPSET}, name="g"))
    values = [x]
    for _ in range(nodes):
        value = draw.choice(values[-4:])
        alike = [v for v in values[-6:] if dims_of(v) == dims_of(value)]
        mib = math.prod(dims_of(value)) // 2**18
        kind = draw.choice(["Mul", "Neg", "Relu", "Tanh", "MatMul", "Reshape", "Concat", "Slice", "Sum"])
        if kind == "Mul":
            made = ops.Mul(value, draw.choice(alike))
        elif kind in ("Neg", "Relu", "Tanh"):
            made = getattr(ops, kind)(value)
        elif kind == "MatMul":
            made = ops.MatMul(value, w)
        elif kind == "Reshape" and mib == 1:
            made = ops.Reshape(value, SHAPES[len(value.shape) == 2])
        elif kind == "Concat" and mib < LARGEST:
            made = ops.Concat(value, draw.choice(alike), axis=0)
        elif kind == "Slice" and mib > 1:
            made = ops.Slice(value, [0], [value.shape[0] // 2], [0])
        elif kind == "Sum":
            made = ops.Sum(value, *(draw.choice(alike) for _ in range(3)))
        else:
            continue
        values.append(made)
    return _finished(ops, values)


def graph_in_blocks(seed: int, nodes: int = 12) -> ir.Graph:
    """Return a random graph of convolutions in blocks of channels, which add to a tensor in place where they can."""
    draw = random.Random(seed)
    shape = (1, 64, 64, 64)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    ops = Ops(ir.Graph([x], [], nodes=[], opset_imports={"": OPSET, DOMAIN: 1}, name="g"), target=Target(block=BLOCK))
    kernel = ops.constant(np.full((64, 1, 1, 1), 0.5, np.float32))
    values = [x]
    for _ in range(nodes):
        value, other = draw.choice(values[-3:]), draw.choice(values[-3:])
        kind = draw.choice(["Mul", "Relu", "ReorderInput", "ReorderOutput", "Conv", "Conv", "Conv"])
        if kind == "Mul":
            made = ops.Mul(value, other)
        elif kind == "Relu":
            made = ops.Relu(value)
        elif kind == "Conv":
            given = [value, kernel, None, draw.choice([other, None])]
            made = ops.emit("Conv", given, {"group": 64, "kernel_shape": [1, 1]}, domain=DOMAIN)
        else:
            made = into_blocks(ops, value) if kind == "ReorderInput" else out_of_blocks(ops, value, 64)
        made.type, made.shape = x.type, ir.Shape(shape)
        values.append(made)
    return _finished(ops, values)


def _finished(ops: Ops, values: list[ir.Value]) -> ir.Graph:
    for value in values[1:]:
        if not value.uses():
            total = ops.ReduceSum(value, keepdims=0)
            total.name = f"total{len(ops.graph.outputs)}"
            ops.graph.outputs.append(total)
    simplify(ops.graph)  # as ONNX Runtime does: it computes nothing twice
    for i, node in enumerate(ops.graph):
        node.name = f"n{i}"
    return ops.graph


def allocator_of(path: Path, reuse: bool, region: int) -> dict[str, list[Any]]:
    """Return what ONNX Runtime's own allocator says of a model, see `arena_of.py`."""
    command = [sys.executable, str(CHILD), str(path), str(int(reuse)), str(region)]
    told: dict[str, list[Any]] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return told


def regions_of(graph: ir.Graph, reuse: bool, region: int) -> tuple[list[int], list[str]]:
    """Return the KiB that the timeline says are touched of each region, and its order of the nodes."""
    found = Timeline(graph, {v.name or "" for v in graph.outputs}, reuse=reuse)
    return [size // 1024 for size in found.follow(region).regions], [n.name or "" for n in found._nodes]


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="what is touched is read from /proc")
@pytest.mark.parametrize("reuse", [True, False], ids=["planned reuse", "no reuse"])
@pytest.mark.parametrize("region", [0, 48 << 20], ids=["growing", "one region"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [graph_of, graph_in_blocks] if BLOCK else [graph_of])
def test_the_allocator_touches_what_the_timeline_says(
    kind: Callable[[int], ir.Graph], seed: int, region: int, reuse: bool, tmp_path: Path
) -> None:
    graph = kind(seed)
    path = tmp_path / "graph.onnx"
    ir.save(ir.Model(graph, ir_version=IR_VERSION), path)
    real = allocator_of(path, reuse, region)
    regions, order = regions_of(graph, reuse, region)
    assert [name for name in order if name in real["order"]] == real["order"]
    # A region does not begin where a page does.
    assert real["regions"] == pytest.approx(regions, abs=12)


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="what is touched is read from /proc")
@pytest.mark.skipif(not BLOCK, reason="this processor has no layout of blocks")
def test_one_region_for_all_saves_what_growing_ones_waste(tmp_path: Path) -> None:
    """Tensors of two sizes, each a little more than half of what is left of a region."""
    recipe = recipe_of("""network N { input x: [1, 28, 28]
      output y = x -> (conv(32, 3x3) -> relu -> maxpool(2)) * 2 -> flatten -> dense(10) }
    train N { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = 100 }""")
    program = build(recipe, Target(alone=True, block=BLOCK))
    work = program.manifest["work"]
    fixed = fix_sizes(program.step, sizes_of(recipe))
    ir.save(fixed, tmp_path / "step.onnx")
    touched = []
    for region in (0, work["region"]):
        real = allocator_of(tmp_path / "step.onnx", work["reuse"], region)["regions"]
        followed = regions_of(fixed.graph, work["reuse"], region)[0]
        assert sum(real) == pytest.approx(sum(followed), rel=0.03)
        touched.append(sum(real))
    assert work["region"] > touched[1] * 1024
    assert touched[1] < 0.9 * touched[0]


@pytest.mark.skipif(not BLOCK, reason="this processor has no layout of blocks")
@pytest.mark.parametrize("batch", [16, 20])
def test_a_batch_of_symbolic_size_takes_what_one_of_fixed_size_takes(batch: int) -> None:
    """Also where samples fill up blocks, whose number is a symbol of its own."""
    recipe = recipe_of(f"""network N {{ input x: [3, 16, 16]
      output y = x -> (conv(16, 3x3, pad = 1) -> batchnorm -> relu) * 3 -> global_avgpool -> dense(10) }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = {batch} }}""")
    program = build(recipe, Target(alone=True, block=BLOCK))
    bound = {s["output"] for s in program.manifest["state"]}
    fixed = Timeline(fix_sizes(program.step, sizes_of(recipe)).graph, bound, reuse=False)
    symbolic = Timeline(program.step.graph, bound, sizes_of(recipe), reuse=False)
    assert any(".blocks" in str(d) for n in program.step.graph for v in n.outputs for d in dims_of(v) or ())
    assert symbolic.follow(0).held == fixed.follow(0).held


def test_the_number_of_blocks_is_rounded_up() -> None:
    assert whole_blocks(Target(block=8), 13) == 16
    assert number(str(whole_blocks(Target(block=8), "batch")), {"batch": 13}) == 16
    assert number(str(whole_blocks(Target(block=16), "batch")), {"batch": 16}) == 16
    assert number("8*batch.blocks8", {"time": 13}) == "8*batch.blocks8"
