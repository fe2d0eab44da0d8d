"""State in one buffer: the same bits as with two, and only where all readers have run before the writer does."""

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from nnspec_runtime import Device, Program, TrainingSession

from nnspec.autodiff.driver import sources
from nnspec.cli.runtime import training_program
from nnspec.ops import OPSET, Ops, Target
from nnspec.training import build, in_place
from nnspec.training.in_place import write_in_place
from tests.training.cases import NETWORKS, OPTIMIZERS
from tests.training.programs import recipe_of

MORE = {
    "recurrent": ("[6, 5]", "lstm(8) -> gru(8) -> rnn(8) -> last -> dense(10)"),
    "sequence": ("[6, 8]", "dense(8) -> layernorm -> gelu -> dense(8) -> last -> dense(10)"),
    "embedding": ("int[7]", "embedding(300, 8) -> flatten -> dense(10)"),
    "embedding, few rows": ("int[7]", "embedding(30, 8) -> flatten -> dense(10)"),
    "depthwise": ("[16, 9, 9]", "conv(16, 3x3, groups = 16, pad = 1) -> conv(16, 3x3) -> relu -> flatten -> dense(10)"),
    "transposed": ("[8, 5, 5]", "conv_transpose(8, 3x3, stride = 2) -> relu -> flatten -> dense(10)"),
    "square": ("[8]", "(dense(8) -> tanh) * 3 -> dense(8) -> dense(10)"),
}


@pytest.fixture(autouse=True)
def _every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "LARGE", 1)
    monkeypatch.setattr("nnspec.training.joined.SMALL", 0)


def _text(network: str, settings: str) -> str:
    if network in NETWORKS:
        body, name = NETWORKS[network].text, re.search(r"network (\w+)", NETWORKS[network].text)[1]
    else:
        shape, layers = MORE[network]
        body, name = f"network N {{ input image: {shape}\n output logits = image -> {layers} }}", "N"
    loss = "target label: int\nloss = cross_entropy(logits, label)"
    return f"{body}\ntrain {name} {{ {loss}\n{settings}\nbatch = 6 }}"


def _data(recipe) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    image = recipe.network.inputs[0]
    shape = (recipe.batch, *(int(d) for d in image.type.shape))
    x = rng.integers(0, 30, shape) if image.type.dtype == "int64" else rng.standard_normal(shape).astype(np.float32)
    return {"image": x, "label": rng.integers(0, 10, recipe.batch)}


def _in_two(program: Program) -> Program:
    states = tuple(s.model_copy(update={"in_place": False}) for s in program.manifest.state)
    return replace(program, manifest=program.manifest.model_copy(update={"state": states}))


SETTINGS = {name: f"optimizer = {text}" for name, text in OPTIMIZERS.items()} | {
    "decayed": "optimizer = sgd(0.1)\nregularize = l2(0.01)",
    "clipped": "optimizer = adam(0.001)\nclip = norm(0.3)",
    "scheduled": "optimizer = sgd(0.1, momentum = 0.9)\nschedule = cosine",
}
CASES = [("mlp", s) for s in SETTINGS] + [(n, s) for n in (*MORE, "resnet", "lecture") for s in ("sgd", "adam")]


@pytest.mark.parametrize(("network", "settings"), CASES)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_as_with_two_buffers(network: str, settings: str, threads: int) -> None:
    recipe = recipe_of(_text(network, SETTINGS[settings]))
    device = Device(threads=threads)
    program = training_program(recipe, device)
    states = [s for s in program.manifest.state if s.kind in ("weight", "optimizer") and s.output]
    assert sum(s.in_place for s in states) >= len(states) // 2
    one, two = TrainingSession(program, device), TrainingSession(_in_two(program), device)
    batch = _data(recipe)
    for _ in range(4):
        assert one.step(batch) == two.step(batch)
    after = two.state()
    for name, value in one.state().items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def _leading_to(writer: ir.Node) -> set[ir.Node]:
    """Return the nodes that run before another one in whatever order."""
    leading: set[ir.Node] = set()
    todo = [writer]
    while todo:
        for value in sources(todo.pop()):
            node = value.producer()
            if node is not None and node not in leading:
                leading.add(node)
                todo.append(node)
    return leading


@pytest.mark.parametrize(("network", "settings"), CASES)
def test_all_readers_lead_to_the_writer(network: str, settings: str) -> None:
    """Found anew, from the finished graph alone: what moves elements counts as the state, and so do its readers."""
    program = build(recipe_of(_text(network, SETTINGS[settings])), Target(alone=True))
    graph = program.step.graph
    inputs = {v.name: v for v in graph.inputs}
    outputs = {v.name: v for v in graph.outputs}
    states = [s for s in program.manifest["state"] if s["in_place"]]
    assert states
    movers = {"Reshape", "Transpose", "Slice", "Gather", "Concat", "Split", "Cast", "Pad", "Squeeze", "Unsqueeze"}
    for state in states:
        writer = outputs[state["output"]].producer()
        leading = _leading_to(writer)
        values = [inputs[state["input"]]]
        for value in values:
            for node in [n for n in graph if value in sources(n)]:
                if node.op_type in movers:
                    values += node.outputs
                else:
                    assert node is writer or node in leading, (state["name"], node)


def _graph(make) -> tuple[ir.Graph, ir.Value]:
    names = ("p", "g", "x")
    given = [ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4, 4])) for n in names]
    ops = Ops(ir.Graph(given, [], nodes=[], opset_imports={"": OPSET}))
    for name, value in make(ops, *given).items():
        value.name = name
        ops.graph.outputs.append(value)
    return ops.graph, given[0]


REFUSED = {
    "a function of it that is no sum": lambda op, p, g, x: {"next": op.Tanh(op.Add(p, g))},
    "a product joined with the sum": lambda op, p, g, x: {"next": op.Add(op.MatMul(p, x), g)},
    "a product with its own addend": lambda op, p, g, x: {"next": op.Gemm(p, x, p)},
    "broadcast": lambda op, p, g, x: {"next": op.Add(op.ReduceSum(p, [0], keepdims=1), g), "r": op.Slice(p, [0], [1])},
    "nothing changes": lambda op, p, g, x: {"next": op.Identity(p)},
    "itself alone": lambda op, p, g, x: {"next": op.Add(p, p)},
    "moved out": lambda op, p, g, x: {"next": op.Sub(p, g), "r": op.Transpose(p, perm=[1, 0])},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    graph, p = _graph(REFUSED[name])
    assert write_in_place(graph, [(p, "next")]) == set()


def test_what_reads_the_next_value_and_the_last_one_is_refused() -> None:
    def make(op, p, g, x):
        after = op.Sub(p, g)
        return {"next": after, "r": op.MatMul(p, op.Exp(after))}

    graph, p = _graph(make)
    assert write_in_place(graph, [(p, "next")]) == set()


@pytest.mark.parametrize("moved", [False, True])
def test_the_writer_waits_for_a_late_reader(moved: bool) -> None:
    def make(op, p, g, x):
        source = op.Transpose(p, perm=[1, 0]) if moved else p
        return {"next": op.Sub(p, g), "r": op.MatMul(x, source)}

    graph, p = _graph(make)
    assert write_in_place(graph, [(p, "next")]) == {"p"}
    writer = next(n for n in graph if n.op_type == "Sub")
    reader = next(n for n in graph if n.op_type == "MatMul")
    assert reader in _leading_to(writer)
