"""Small training programs built by hand with the onnx helper, and the same training in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nnspec_runtime import Program
from onnx import TensorProto, helper, numpy_helper

FEATURES, HIDDEN, CLASSES = 6, 5, 3
RATE, MOMENTUM = 0.1, 0.9

_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "float64": TensorProto.DOUBLE}


class Graph:
    """Collect nodes; `op` returns the name of the one result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def model(self, inputs: Sequence[tuple[str, str, Any]], outputs: Sequence[tuple[str, str, Any]]) -> bytes:
        def infos(parts: Sequence[tuple[str, str, Any]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, _TYPES[dtype], shape) for name, dtype, shape in parts]

        graph = helper.make_graph(self.nodes, "program", infos(inputs), infos(outputs), self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def state(name: str, shape: Sequence[Any], kind: str, dtype: str = "float32", fixed: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "input": name,
        "output": None if fixed else f"{name}.next",
        "dtype": dtype,
        "shape": list(shape),
        "kind": kind,
    }


def manifest(inputs: list[dict[str, Any]], states: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    settings = {"batch": 4, "epochs": 3, "seed": 0, "stop": None, "carry": False, "bucket": False}
    return {
        "format": "nnspec-training",
        "version": 1,
        "network": "Small",
        "train": "Small",
        "files": {"step": None, "eval": None, "predict": None, "state": None},
        "inputs": inputs,
        "state": states,
        "loss": {"output": "loss", "weight": parts.pop("weight", None)},
        "metrics": parts.pop("metrics", [{"name": "accuracy", "output": "accuracy", "weight": None}]),
        "outputs": parts.pop("outputs", [{"name": "probs", "dtype": "float32", "shape": ["batch", CLASSES]}]),
        "settings": settings | parts,
    }


FEATURE_INPUT = {"name": "x", "dtype": "float32", "shape": ["batch", FEATURES], "role": "input", "lengths": None,
                 "classes": None}  # fmt: skip
LABEL = {"name": "label", "dtype": "int64", "shape": ["batch"], "role": "target", "lengths": None, "classes": CLASSES}


def _cross_entropy(g: Graph, logits: str, *, gradient: bool) -> str:
    """Add loss and accuracy; return the gradient of the logits."""
    logp = g.op("LogSoftmax", logits, axis=-1)
    onehot = g.op("OneHot", "label", g.const(CLASSES, "int64"), g.const([0.0, 1.0]), axis=-1)
    each = g.op("ReduceSum", g.op("Mul", logp, onehot), g.const([1], "int64"), keepdims=0)
    g.op("Neg", g.op("ReduceMean", each, keepdims=0), out="loss")
    right = g.op("Cast", g.op("Equal", g.op("ArgMax", logits, axis=-1, keepdims=0), "label"), to=TensorProto.FLOAT)
    g.op("ReduceMean", right, keepdims=0, out="accuracy")
    if not gradient:
        return ""
    count = g.op("Cast", g.op("Shape", "label"), to=TensorProto.FLOAT)
    return g.op("Div", g.op("Sub", g.op("Softmax", logits, axis=-1), onehot), count)


def _dense(g: Graph, x: str, weight: str, bias: str) -> str:
    return g.op("Gemm", x, weight, bias, transB=1)


def _dense_gradient(g: Graph, x: str, dy: str) -> tuple[str, str]:
    return g.op("Gemm", dy, x, transA=1), g.op("ReduceSum", dy, g.const([0], "int64"), keepdims=0)


def softmax_regression(**settings: Any) -> Program:
    """Softmax regression with plain gradient descent: weight [C, F], bias [C]."""
    names = {"weight": [CLASSES, FEATURES], "bias": [CLASSES]}
    g = Graph()
    dz = _cross_entropy(g, _dense(g, "x", "weight", "bias"), gradient=True)
    for name, gradient in zip(names, _dense_gradient(g, "x", dz), strict=True):
        g.op("Sub", name, g.op("Mul", gradient, g.const(settings.get("rate", RATE))), out=f"{name}.next")
    states = [state(name, shape, "weight") for name, shape in names.items()]
    return _finish(g, names, states, settings, _dense_logits)


def _dense_logits(g: Graph) -> str:
    return _dense(g, "x", "weight", "bias")


MLP = {"w1": [HIDDEN, FEATURES], "b1": [HIDDEN], "w2": [CLASSES, HIDDEN], "b2": [CLASSES]}


def mlp(**settings: Any) -> Program:
    """One hidden layer, momentum, an integer step counter and a constant seed that the eval graph does not ask for."""
    g = Graph()
    pre = _dense(g, "x", "w1", "b1")
    h = g.op("Relu", pre)
    dz = _cross_entropy(g, _dense(g, h, "w2", "b2"), gradient=True)
    dw2, db2 = _dense_gradient(g, h, dz)
    dh = g.op("Mul", g.op("MatMul", dz, "w2"),
              g.op("Cast", g.op("Greater", pre, g.const(0.0)), to=TensorProto.FLOAT))  # fmt: skip
    dw1, db1 = _dense_gradient(g, "x", dh)
    rate = g.const(settings.pop("rate", RATE))
    for name, gradient in zip(MLP, (dw1, db1, dw2, db2), strict=True):
        velocity = g.op(
            "Add", g.op("Mul", f"{name}.momentum", g.const(MOMENTUM)), gradient, out=f"{name}.momentum.next"
        )
        g.op("Sub", name, g.op("Mul", velocity, rate), out=f"{name}.next")
    g.op("Add", "step", "one", out="step.next")
    states = [state(name, shape, "weight") for name, shape in MLP.items()]
    states += [state(f"{name}.momentum", shape, "optimizer") for name, shape in MLP.items()]
    states += [state("step", [], "counter", "int64"), state("one", [], "constant", "int64", fixed=True)]

    def logits(part: Graph) -> str:
        return _dense(part, part.op("Relu", _dense(part, "x", "w1", "b1")), "w2", "b2")

    return _finish(g, MLP, states, settings, logits)


def _finish(g: Graph, names: Any, states: Any, settings: Any, logits: Any) -> Program:
    """Make the three graphs and the program."""
    data = [("x", "float32", ["batch", FEATURES]), ("label", "int64", ["batch"])]
    every = [(one["name"], one["dtype"], one["shape"]) for one in states]
    written = [(one["output"], one["dtype"], one["shape"]) for one in states if one["output"]]
    scalars = [("loss", "float32", []), ("accuracy", "float32", [])]
    step = g.model(data + every, scalars + written)
    weights = [(name, "float32", shape) for name, shape in names.items()]
    evaluation, prediction = Graph(), Graph()
    _cross_entropy(evaluation, logits(evaluation), gradient=False)
    prediction.op("Softmax", logits(prediction), axis=-1, out="probs")
    settings.pop("rate", None)
    return Program(
        manifest([FEATURE_INPUT, LABEL], states, **settings),  # type: ignore[arg-type]
        step=step,
        eval=evaluation.model(data + weights, scalars),
        predict=prediction.model(data[:1] + weights, [("probs", "float32", ["batch", CLASSES])]),
        state=initial(states),
    )


def initial(states: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Random weights; optimizer state and counters are left to start at zero."""
    rng = np.random.default_rng(7)
    values = {
        one["name"]: (rng.standard_normal(one["shape"]) * 0.3).astype(one["dtype"])
        for one in states
        if one["kind"] in ("weight", "frozen", "buffer")
    }
    return values | {one["name"]: np.array(1, one["dtype"]) for one in states if one["kind"] == "constant"}


def sequences(**settings: Any) -> Program:
    """Softmax regression on the mean of a masked sequence [T, F]; loss and accuracy weighed by the number of steps."""
    names = {"weight": [CLASSES, FEATURES], "bias": [CLASSES]}
    inputs = [
        {"name": "words", "dtype": "float32", "shape": ["batch", "T", FEATURES], "role": "input",
         "lengths": "words.lengths", "classes": None},
        {"name": "words.lengths", "dtype": "int64", "shape": ["batch"], "role": "lengths", "of": "words",
         "lengths": None, "classes": None},
        {"name": "tags", "dtype": "int64", "shape": ["batch", "T"], "role": "target", "lengths": None, "classes": 9},
        LABEL,
    ]  # fmt: skip
    data = [("words", "float32", ["batch", "T", FEATURES]), ("words.lengths", "int64", ["batch"]),
            ("tags", "int64", ["batch", "T"]), ("label", "int64", ["batch"])]  # fmt: skip
    weights = [(name, "float32", shape) for name, shape in names.items()]

    def pooled(g: Graph) -> str:
        size = g.op("Squeeze", g.op("Shape", "words", start=1, end=2), g.const([0], "int64"))
        steps = g.op("Range", g.const(0, "int64"), size, g.const(1, "int64"))
        lengths = g.op("Unsqueeze", "words.lengths", g.const([1], "int64"))
        mask = g.op("Cast", g.op("Less", steps, lengths), to=TensorProto.FLOAT)
        total = g.op("ReduceSum", g.op("Mul", "words", g.op("Unsqueeze", mask, g.const([2], "int64"))),
                     g.const([1], "int64"), keepdims=0)  # fmt: skip
        return g.op("Div", total, g.op("Cast", lengths, to=TensorProto.FLOAT))

    def extras(g: Graph) -> None:
        g.op("ReduceSum", "words.lengths", keepdims=0, out="steps")
        g.op("Cast", g.op("ReduceSum", "tags", keepdims=0), to=TensorProto.FLOAT, out="tagsum")

    step, evaluation, prediction = Graph(), Graph(), Graph()
    x = pooled(step)
    dz = _cross_entropy(step, _dense(step, x, "weight", "bias"), gradient=True)
    extras(step)
    for name, gradient in zip(names, _dense_gradient(step, x, dz), strict=True):
        step.op("Sub", name, step.op("Mul", gradient, step.const(RATE)), out=f"{name}.next")
    _cross_entropy(evaluation, _dense(evaluation, pooled(evaluation), "weight", "bias"), gradient=False)
    extras(evaluation)
    prediction.op("Identity", "words", out="echo")
    prediction.op("Softmax", _dense(prediction, pooled(prediction), "weight", "bias"), axis=-1, out="probs")
    scalars = [("loss", "float32", []), ("accuracy", "float32", []), ("steps", "int64", []), ("tagsum", "float32", [])]
    states = [state(name, shape, "weight") for name, shape in names.items()]
    echo = ("echo", "float32", ["batch", "T", FEATURES])
    return Program(
        manifest(
            inputs, states, weight="steps",
            metrics=[{"name": "accuracy", "output": "accuracy", "weight": "steps"},
                     {"name": "tagsum", "output": "tagsum", "weight": None}],
            outputs=[{"name": "probs", "dtype": "float32", "shape": ["batch", CLASSES]},
                     {"name": "echo", "dtype": "float32", "shape": ["batch", "T", FEATURES]}], **settings,
        ),  # type: ignore[arg-type]
        step=step.model(data + weights, scalars + [(f"{n}.next", "float32", s) for n, s in names.items()]),
        eval=evaluation.model(data + weights, scalars),
        predict=prediction.model(data[:2] + weights, [("probs", "float32", ["batch", CLASSES]), echo]),
        state=initial(states),
    )  # fmt: skip


def carrying(**settings: Any) -> Program:
    """A sum over all batches of an epoch, scaled by one weight: h' = h + x; loss = mean (w h' - y)^2."""
    data = [("x", "float32", ["batch"]), ("y", "float32", ["batch"])]

    def forward(g: Graph) -> tuple[str, str]:
        h = g.op("Add", "h", "x", out="h.next")
        error = g.op("Sub", g.op("Mul", h, "w"), "y")
        g.op("ReduceMean", g.op("Mul", error, error), keepdims=0, out="loss")
        return h, error

    step, evaluation = Graph(), Graph()
    h, error = forward(step)
    slope = step.op("ReduceMean", step.op("Mul", step.op("Mul", error, h), step.const(2.0)), keepdims=0)
    step.op("Sub", "w", step.op("Mul", slope, step.const(0.01)), out="w.next")
    forward(evaluation)
    carry = ("h", "float32", ["batch"])
    outputs = [("loss", "float32", []), ("h.next", "float32", ["batch"])]
    states = [state("w", [], "weight"), state("h", ["batch"], "carry")]
    inputs = [
        {"name": "x", "dtype": "float32", "shape": ["batch"], "role": "input"},
        {"name": "y", "dtype": "float32", "shape": ["batch"], "role": "target"},
    ]
    return Program(
        manifest(inputs, states, metrics=[], outputs=[], carry=True, **settings),  # type: ignore[arg-type]
        step=step.model([*data, ("w", "float32", []), carry], [*outputs, ("w.next", "float32", [])]),
        eval=evaluation.model([*data, ("w", "float32", []), carry], outputs),
        state={"w": np.array(0.5, np.float32)},
    )


def save(program: Program, folder: Path) -> Path:
    """Write a program in memory to disk; return the manifest's path."""
    import json

    from nnspec_runtime import save_weights

    content = program.manifest.model_dump(mode="json")
    for name in ("step", "eval", "predict"):
        model = getattr(program, name)
        if model is not None:
            content["files"][name] = f"m.{name}.onnx"
            (folder / f"m.{name}.onnx").write_bytes(model)
    content["files"]["state"] = "m.state.safetensors"
    save_weights(folder / "m.state.safetensors", program.initial_state())
    path = folder / "m.json"
    path.write_text(json.dumps(content))
    return path


def blobs(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Make three noisy clusters that a line can tell apart almost everywhere."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((CLASSES, FEATURES)) * 2
    label = rng.integers(0, CLASSES, count)
    x = centres[label] + rng.standard_normal((count, FEATURES))
    return {"x": x.astype(np.float32), "label": label.astype(np.int64)}


def numpy_mlp(start: dict[str, np.ndarray], batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Train the MLP in float64 on the given batches; return weights, momentum and the mean losses."""
    w = {name: start[name].astype(np.float64) for name in MLP}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    losses = []
    for x, label in batches:
        pre = x @ w["w1"].T + w["b1"]
        h = np.maximum(pre, 0)
        z = h @ w["w2"].T + w["b2"]
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        losses.append(-np.log(p[np.arange(len(x)), label]).mean())
        dz = (p - np.eye(CLASSES)[label]) / len(x)
        dpre = (dz @ w["w2"]) * (pre > 0)
        gradients = {"w1": dpre.T @ x, "b1": dpre.sum(0), "w2": dz.T @ h, "b2": dz.sum(0)}
        for name, gradient in gradients.items():
            v[name] = MOMENTUM * v[name] + gradient
            w[name] = w[name] - RATE * v[name]
    return {**w, **{f"{name}.momentum": value for name, value in v.items()}, "losses": np.array(losses)}
