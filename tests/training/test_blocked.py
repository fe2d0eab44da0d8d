"""A step made for the CPU at hand, convolutions in blocks of channels: the same numbers as the portable step."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from nnspec_runtime.layout import channel_block

from nnspec.compile import compile_recipe
from nnspec.ops import IR_VERSION, OPSET, Ops, Target
from nnspec.source import Source
from nnspec.training import build
from nnspec.training.blocked import DOMAIN, use_blocks
from nnspec.training.simplify import simplify

from .programs import assert_same_moves, portable_and_here

BLOCK = channel_block()
pytestmark = pytest.mark.skipif(not BLOCK, reason="this processor has no layout of blocks")

TRAIN = """
train Net {{
  target label: int
  loss = cross_entropy(logits, label)
  optimizer = sgd(lr = 0.1)
  batch = {batch}
}}"""

# Smooth activations where numbers are compared: at the edge of relu a last bit decides whether an element counts.
NETWORKS = {
    "dense": ("[16, 9, 9]", "conv(24, 3x3) -> tanh -> conv(16, 3x2, stride = 2, pad = 1) -> tanh"),
    "odd channels": ("[20, 9, 8]", "conv(24, 3x3, bias = false) -> tanh -> conv(20, 3x3, pad = 1) -> tanh"),
    "uneven channels": (
        "[25, 9, 8]",
        "conv(30, 3x3) -> tanh -> conv(29, 3x3, pad = 1) -> tanh -> conv(26, 2x2) -> tanh",
    ),
    "dilated": ("[16, 9, 9]", "conv(16, 3x3, dilation = 2) -> tanh -> conv(16, 2x2) -> tanh"),
    "one axis": ("[16, 20]", "conv(24, 3, pad = 1) -> tanh -> conv(16, 5, stride = 2) -> tanh"),
    "depthwise": (
        "[16, 9, 8]",
        "conv(16, 3x3, groups = 16, pad = 1) -> tanh -> conv(16, 3x3, groups = 16, stride = 2, pad = 1) -> tanh",
    ),
    "depthwise, one axis": ("[16, 20]", "conv(16, 3, groups = 16, stride = 2, pad = 1) -> tanh"),
    "too few filters": ("[3, 8, 8]", "conv(4, 3x3) -> tanh -> conv(5, 3x3) -> tanh"),
    "few channels": ("[3, 8, 8]", "conv(4, 3x3) -> tanh -> conv(20, 3x3, stride = 2, pad = 1) -> tanh"),
    "few channels, one axis": ("[2, 20]", "conv(13, 3, stride = 2, pad = 1) -> tanh -> conv(16, 3) -> tanh"),
    "one axis, odd channels": ("[16, 20]", "conv(20, 3) -> tanh -> conv(28, 3) -> softplus -> conv(12, 2) -> tanh"),
    "channels last": (
        "[20, 16]",
        "transpose -> conv(24, 3) -> tanh -> transpose -> layernorm -> transpose -> conv(18, 3) -> tanh",
    ),
    "branches": ("[16, 9, 8]", "tanh -> branches"),
    "branches, one axis": ("[20, 16]", "tanh -> transpose -> branches_of_text"),
    "pools": (
        "[3, 15, 14]",
        "conv(20, 3x3) -> tanh -> maxpool(2) -> conv(16, 3x3, pad = 1) -> tanh -> maxpool(1x2) -> maxpool(2x1)",
    ),
    "pools, one axis": ("[16, 21]", "conv(12, 2) -> tanh -> maxpool(2) -> conv(16, 3) -> maxpool(2) -> tanh"),
    "other pools": (
        "[16, 14, 14]",
        "conv(16, 3x3) -> tanh -> maxpool(3) -> conv(16, 3x3, pad = 1) -> maxpool(2, stride = 1) -> avgpool(2)",
    ),
    "points": ("[16, 8, 8]", "conv(16, 1x1) -> tanh"),
    "normalised": (
        "[3, 9, 9]",
        "conv(16, 3x3, bias = false) -> batchnorm -> tanh -> conv(24, 3x3, bias = false) -> batchnorm -> sigmoid",
    ),
    "normalised, few channels": (
        "[3, 9, 9]",
        "conv(12, 3x3) -> batchnorm -> tanh -> conv(20, 3x3) -> batchnorm -> tanh",
    ),
    "residual": ("[16, 8, 9]", "conv(16, 3x3, pad = 1) -> residual -> residual"),
    "strided residual": ("[16, 8, 9]", "conv(16, 3x3, pad = 1) -> narrower -> residual"),
    "points between": (
        "[16, 8, 8]",
        "conv(16, 3x3) -> tanh -> conv(24, 1x1) -> tanh -> conv(16, 1x1, stride = 2) -> tanh",
    ),
    "activations": ("[16, 8, 8]", "conv(16, 3x3) -> gelu -> conv(16, 3x3) -> softplus -> conv(16, 3x3) -> elu"),
    "scaled channels": ("[16, 8, 8]", "conv(16, 3x3) -> excited -> conv(16, 3x3) -> tanh"),
    "plain in between": ("[16, 8, 8]", "conv(16, 3x3) -> softmax(axis = 1) -> conv(16, 3x3) -> tanh"),
    "dropped and pooled": (
        "[3, 12, 12]",
        "conv(16, 3x3) -> dropout(0.3) -> tanh -> maxpool(2) -> conv(24, 3x3) -> tanh",
    ),
    "recomputed": ("[16, 8, 9]", "conv(16, 3x3, pad = 1) -> (recompute (residual -> residual)) -> avgpool(2)"),
    "grouped": (
        "[8, 8, 8]",
        "conv(16, 3x3, groups = 2) -> batchnorm -> tanh -> conv(16, 3x3, groups = 16) -> conv(32, 1x1) -> groupnorm(4)",
    ),
    "mean at the end": ("[16, 8, 8]", "conv(16, 3x3) -> tanh -> global_avgpool"),
}
BLOCKS = """
block branches on x {
  a = x -> conv(20, 3x3, pad = 1)
  b = x -> conv(20, 1x1)
  c = x -> conv(20, 3x3, pad = 1, bias = false)
  return a + b + c -> tanh
}
block branches_of_text on x {
  a = x -> conv(20, 3) -> tanh -> global_maxpool
  b = x -> conv(24, 4) -> tanh -> global_avgpool
  c = x -> conv(12, 5) -> tanh -> global_maxpool
  return (a, b, c) -> concat
}
block residual on x {
  y = x -> conv(x.channels, 3x3, pad = 1, bias = false) -> batchnorm -> tanh
    -> conv(x.channels, 3x3, pad = 1, bias = false) -> batchnorm
  return x + y -> tanh
}
block narrower on x {
  y = x -> conv(24, 3x3, pad = 1, stride = 2, bias = false) -> batchnorm -> tanh
  s = x -> conv(24, 1x1, stride = 2, bias = false) -> batchnorm
  return y + s -> tanh
}
block excited on x {
  s = x -> global_avgpool -> dense(8) -> tanh -> dense(16) -> sigmoid -> reshape([16, 1, 1])
  return x * s
}
"""


def _recipe(shape: str, layers: str, batch: int = 5):
    text = f"{BLOCKS}network Net {{ input x: {shape}\n  output logits = x -> {layers} -> flatten -> dense(3) }}"
    return compile_recipe(Source("net.nn", text + TRAIN.format(batch=batch)))


def _batch(recipe, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = tuple(int(d) for d in recipe.network.inputs[0].type.shape)
    x = rng.standard_normal((rows, *shape)).astype(np.float32)
    return {"x": x, "label": rng.integers(0, 3, rows)}


def _blocked(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.domain == DOMAIN and n.op_type == "Conv"]


@pytest.mark.parametrize("batch", [5, 8], ids="batches of {}".format)
@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers(name: str, batch: int) -> None:
    """Samples fill whole blocks or do not; in the first case gradients of kernels are made in blocks."""
    recipe = _recipe(*NETWORKS[name], batch)
    sessions = portable_and_here(recipe)
    for rows in (batch, batch, 2):
        data = _batch(recipe, rows)
        losses = [s.step(data)["loss"] for s in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert_same_moves(sessions, 2e-5)


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("dense", 2, 0),  # the second one's input gradient has a stride
        ("odd channels", 2, 1),
        ("depthwise", 2, 2),  # the gradients of both weights
        ("too few filters", 0, 0),
        ("few channels", 1, 0),
        ("points", 0, 0),
    ],
)
def test_what_is_blocked(name: str, forward: int, backward: int) -> None:
    step = build(_recipe(*NETWORKS[name]), Target(block=8)).step
    convolutions = _blocked(step)
    named = [n for n in convolutions if n.name and n.name.startswith("conv")]
    assert (len(named), len(convolutions) - len(named)) == (forward, backward)


def test_relu_is_part_of_the_convolution_and_blocks_go_on() -> None:
    recipe = _recipe("[16, 9, 9]", "conv(16, 3x3) -> relu -> conv(16, 3x3) -> relu")
    step = build(recipe, Target(block=8)).step
    assert [n.attributes.get_string("activation", "") for n in _blocked(step)][:2] == ["Relu", "Relu"]
    second = _blocked(step)[1]
    assert second.inputs[0].producer() is _blocked(step)[0]
    rows = _batch(recipe, 5)
    losses = [s.step(rows)["loss"] for s in portable_and_here(recipe)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_normalisation_and_activations_stay_in_blocks() -> None:
    layers = "conv(16, 3x3, bias = false) -> batchnorm -> relu -> conv(16, 3x3, bias = false) -> batchnorm -> relu"
    step = build(_recipe("[16, 9, 9]", layers, batch=8), Target(block=8)).step
    assert "BatchNormalization" not in {n.op_type for n in step.graph}
    convolutions = [n for n in _blocked(step) if n.attributes.get_int("group", 1) == 1]
    data = convolutions[1].inputs[0].producer()
    assert (data.op_type, data.domain, data.attributes.get_string("activation", "")) == ("Conv", DOMAIN, "Relu")
    # Nothing is read plain but by what flattens the result, and as the kernels of the two weight gradients.
    out_of = [n for n in step.graph if n.op_type == "ReorderOutput" and len(n.inputs[0].shape) == 4]
    images = [n for n in out_of if n.outputs[0].shape[0] == "batch"]
    assert len(images) == 3


def test_the_last_addition_is_in_place() -> None:
    """The gradient through batch normalisation is added to dy, which nothing reads after it."""
    step = build(_recipe(*NETWORKS["residual"]), Target(block=8)).step
    summed = [n for n in _blocked(step) if len(n.inputs) == 4]
    assert summed
    order = {n: i for i, n in enumerate(step.graph)}
    for node in summed:
        assert all(order[reader] <= order[node] for reader in node.inputs[3].consumers())


def test_without_a_target_the_step_is_standard() -> None:
    recipe = _recipe(*NETWORKS["dense"])
    assert {n.domain for n in build(recipe).step.graph} == {""}
    assert {n.domain for n in build(recipe, Target(block=0)).step.graph} == {""}


def test_the_block_is_that_of_the_kernels() -> None:
    """A convolution with a kernel in blocks of the probed size gives what the plain one gives."""
    x = np.random.default_rng(0).standard_normal((1, 64, 5, 5)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((64, 64, 3, 3)).astype(np.float32)
    values = [
        ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(a.shape))
        for n, a in (("x", x), ("w", w))
    ]
    results = []
    for block in (0, BLOCK):
        inputs = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in values]
        ops = Ops(ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="one"))
        y = ops.Conv(*inputs)
        y.name = "y"
        ops.graph.outputs.append(y)
        if block:
            use_blocks(ops.graph, Target(block=block))
        results += _run(ir.Model(ops.graph, ir_version=IR_VERSION), {"x": x, "w": w})
    np.testing.assert_allclose(*results, atol=1e-3)


def test_a_network_with_pools_trains_the_same() -> None:
    recipe = _recipe("[1, 14, 13]", "conv(12, 3x3) -> relu -> maxpool(2) -> conv(16, 3x3) -> relu -> maxpool(2)")
    sessions = portable_and_here(recipe)
    for rows in (5, 2, 5):
        losses = [s.step(_batch(recipe, rows))["loss"] for s in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_images_of_symbolic_size() -> None:
    layers = "conv(16, 3x3, pad = 1) -> batchnorm -> tanh -> residual -> conv(24, 3x3, stride = 2) -> global_avgpool"
    recipe = _recipe("[16, H, W]", layers, batch=8)
    sessions = portable_and_here(recipe)
    rng = np.random.default_rng(0)
    for height, width in ((9, 8), (12, 7), (9, 8)):
        x = rng.standard_normal((8, 16, height, width)).astype(np.float32)
        losses = [s.step({"x": x, "label": np.arange(8) % 3})["loss"] for s in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_cell_with_a_convolution() -> None:
    """The body of a loop has no imports of its own: the model has to name the operators that it uses."""
    recipe = compile_recipe(
        Source(
            "net.nn",
            """cell convolved(width) on x {
              state h: [width * 36]
              z = h -> reshape([width, 6, 6]) -> conv(width, 3x3, pad = 1, bias = false) -> flatten
              next h = x + z -> tanh
              return next h
            }
            network Net { input x: [3, 576]
              output logits = x -> convolved(16) -> last -> dense(3) }"""
            + TRAIN.format(batch=8),
        )
    )
    model = build(recipe, Target(alone=True, block=BLOCK)).step
    assert DOMAIN not in {n.domain for n in model.graph}
    assert model.graph.opset_imports[DOMAIN] == 1
    sessions = portable_and_here(recipe)
    for _ in range(3):
        losses = [s.step(_batch(recipe, 8))["loss"] for s in sessions]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def _pooled(kernel: tuple[int, int], channels: int, block: int) -> ir.Model:
    """Return a graph of a convolution, pooling with indices and what puts a gradient where the maxima were."""
    shapes = {"x": (3, channels, 9, 10), "w": (channels, channels, 3, 3)}
    high, wide = 9 // kernel[0], 10 // kernel[1]
    shapes["dy"] = (3, channels, high, wide)
    float32 = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=n, type=float32, shape=ir.Shape(s)) for n, s in shapes.items()]
    ops = Ops(ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="one"))
    x = ops.Conv(*inputs[:2], pads=[1, 1, 1, 1])
    y, indices = ops.MaxPool(x, outputs=2, kernel_shape=kernel, strides=kernel)
    dx = ops.MaxUnpool(inputs[2], indices, ops.Shape(x), kernel_shape=kernel, strides=kernel)
    dx.shape = x.shape
    for name, value in (("y", y), ("dx", dx)):
        value.name = name
        ops.graph.outputs.append(value)
    if block:
        use_blocks(ops.graph, Target(block=block, alone=True))
        simplify(ops.graph)
        assert all(n.domain == DOMAIN for n in ops.graph if n.op_type == "MaxPool")
    return ir.Model(ops.graph, ir_version=IR_VERSION)


@pytest.mark.parametrize("missing", [0, 2], ids="{} channels missing".format)
@pytest.mark.parametrize("kernel", [(2, 2), (1, 2), (2, 1)])
def test_of_equal_maxima_the_first_one_counts(kernel: tuple[int, int], missing: int) -> None:
    channels = 2 * BLOCK - missing
    rng = np.random.default_rng(0)
    # Few different numbers, the smallest that there are among them: each window is likely to have its maximum twice.
    values = np.array([-1, 0, 1e-45, 2e-45, 1, 3e38], np.float32)
    data = {"x": rng.choice(values, (3, channels, 9, 10)), "w": np.zeros((channels, channels, 3, 3), np.float32)}
    data["w"][:, :, 1, 1] = np.eye(channels)
    data["dy"] = rng.standard_normal((3, channels, 9 // kernel[0], 10 // kernel[1])).astype(np.float32)
    plain, blocked = (_run(_pooled(kernel, channels, block), data) for block in (0, BLOCK))
    for expected, found in zip(plain, blocked, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_pooling_what_is_no_number_stays_inside() -> None:
    """A step whose loss is lost must end as one that says so, not by writing beside the tensor."""
    channels = 2 * BLOCK
    data = {"x": np.full((3, channels, 9, 10), np.nan, np.float32)}
    data |= {"w": np.zeros((channels, channels, 3, 3), np.float32), "dy": np.ones((3, channels, 4, 5), np.float32)}
    _, dx = _run(_pooled((2, 2), channels, BLOCK), data)
    assert dx.sum() == data["dy"].size


def test_a_sum_of_one_term_keeps_what_follows() -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((2, 16, 5, 5)), "w": rng.standard_normal((16, 16, 3, 3))}
    data = {name: value.astype(np.float32) for name, value in data.items()}
    results = []
    for block in (0, BLOCK):
        float32 = ir.TensorType(ir.DataType.FLOAT)
        inputs = [ir.Value(name=n, type=float32, shape=ir.Shape(a.shape)) for n, a in data.items()]
        ops = Ops(ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="one"))
        y = ops.Relu(ops.Sum(ops.Conv(*inputs)))
        y.name = "y"
        ops.graph.outputs.append(y)
        if block:
            use_blocks(ops.graph, Target(block=block))
        results += _run(ir.Model(ops.graph, ir_version=IR_VERSION), data)
    assert results[0].min() == 0
    np.testing.assert_allclose(*results, atol=1e-4)


def _run(model: ir.Model, data: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, data)
