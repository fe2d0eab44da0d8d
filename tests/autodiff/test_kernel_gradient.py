"""The gradient of a convolution's weight: every lowering gives the same, on every shape that it takes."""

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from nnspec_runtime.layout import channel_block

from nnspec.autodiff.rules import kernel_gradient
from nnspec.autodiff.rules.kernel_gradient import LOWERINGS, choose
from nnspec.autodiff.rules.window import Window
from nnspec.autodiff.terms import Emit, Term
from nnspec.ops import IR_VERSION, OPSET, Ops, Target
from nnspec.ops.blocks import DOMAIN

BLOCK = channel_block()
SHAPES = {
    "plain": ((2, 3, 6, 7), (4, 3, 3, 3), {}),
    "padded": ((2, 3, 6, 7), (4, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "wide kernel": ((2, 5, 6, 7), (2, 5, 1, 3), {"pads": [0, 1, 0, 1]}),
    "uneven": ((2, 3, 6, 7), (4, 3, 3, 2), {"pads": [0, 1, 2, 0]}),
    "stride leaves rows": ((2, 3, 8, 9), (4, 3, 3, 3), {"strides": [3, 2], "pads": [1, 0, 0, 1]}),
    "stride along one axis": ((2, 3, 7, 9), (4, 3, 3, 2), {"strides": [1, 2], "pads": [1, 0, 1, 1]}),
    "dilated": ((2, 3, 9, 9), (4, 3, 3, 2), {"dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "dilated strided": ((2, 3, 9, 10), (4, 3, 3, 2), {"dilations": [2, 3], "strides": [2, 3], "pads": [1, 2, 2, 1]}),
    "pads above kernel": ((1, 2, 3, 3), (2, 2, 2, 2), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "pads above kernel, dense": ((1, 2, 3, 4), (2, 2, 2, 3), {"pads": [2, 0, 2, 1]}),
    "stride above kernel": ((2, 2, 9, 8), (3, 2, 2, 2), {"strides": [3, 3]}),
    "one place": ((2, 3, 4, 5), (2, 3, 1, 1), {}),
    "one place strided": ((2, 3, 5, 5), (2, 3, 1, 1), {"strides": [2, 2], "pads": [1, 0, 0, 0]}),
    "one sample, one channel": ((1, 1, 5, 5), (1, 1, 3, 3), {"pads": [1, 1, 1, 1]}),
    "1-D": ((2, 3, 9), (4, 3, 3), {"pads": [2, 0], "dilations": [2]}),
    "3-D": ((2, 2, 4, 5, 3), (3, 2, 2, 3, 1), {"strides": [1, 2, 1], "pads": [0, 1, 0, 1, 1, 0]}),
    "depthwise": ((3, 8, 6, 7), (8, 1, 3, 3), {"group": 8, "pads": [1, 1, 1, 1]}),
    "depthwise uneven": ((3, 8, 6, 7), (8, 1, 3, 2), {"group": 8, "pads": [2, 0, 0, 1]}),
    "depthwise strided": ((3, 8, 7, 8), (8, 1, 3, 3), {"group": 8, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise stride leaves rows": ((3, 8, 8, 9), (8, 1, 3, 2), {"group": 8, "strides": [3, 2], "pads": [1, 0, 0, 0]}),
    "depthwise stride above kernel": ((3, 8, 9, 8), (8, 1, 2, 2), {"group": 8, "strides": [3, 4]}),
    "depthwise dilated": ((2, 8, 9, 9), (8, 1, 3, 2), {"group": 8, "dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "depthwise dilated strided": (
        (2, 8, 9, 10),
        (8, 1, 3, 2),
        {"group": 8, "dilations": [2, 3], "strides": [2, 3], "pads": [1, 2, 2, 1]},
    ),
    "depthwise pads above kernel": ((2, 8, 3, 3), (8, 1, 2, 2), {"group": 8, "pads": [3, 3, 3, 3]}),
    "depthwise 1-D": ((3, 8, 9), (8, 1, 3), {"group": 8, "pads": [1, 1], "strides": [2]}),
    "blocks": ((4, 16, 6, 7), (24, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks uneven": ((3, 8, 6, 7), (16, 8, 3, 2), {"pads": [2, 0, 0, 1]}),
    "blocks strided": ((9, 16, 7, 8), (8, 16, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "blocks, stride leaves rows": ((5, 8, 8, 9), (16, 8, 3, 2), {"strides": [3, 2], "pads": [1, 0, 0, 0]}),
    "blocks, stride above kernel": ((2, 8, 9, 8), (8, 8, 2, 2), {"strides": [3, 4]}),
    "blocks, dilated rows": (
        (2, 8, 9, 9),
        (8, 8, 3, 2),
        {"dilations": [2, 1], "strides": [2, 1], "pads": [1, 2, 0, 1]},
    ),
    "blocks of odd channels": ((2, 25, 5, 6), (31, 25, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks filled up": ((2, 28, 5, 6), (20, 28, 3, 3), {"pads": [1, 1, 1, 1]}),
    "blocks, pads above kernel": ((2, 8, 3, 3), (8, 8, 2, 2), {"pads": [3, 3, 3, 3]}),
    "blocks, 1-D": ((3, 8, 9), (16, 8, 3), {"pads": [1, 1], "strides": [2]}),
    "groups": ((2, 4, 5, 5), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
}
ALONE = {"taps", "batched_gemm", "gemm", "conv", "lags"}
"""For convolutions without groups."""


def _applies(lowering: str, group: int, filters: int, depth: int) -> bool:
    if group == 1:
        return lowering in ALONE
    return lowering in ("gemm", "batched_gemm") or (lowering in ("sums", "stacked") and (group, depth) == (filters, 1))


def _cases() -> list[object]:
    return [
        pytest.param(shape, lowering, id=f"{shape}-{lowering}")
        for shape, lowering in itertools.product(SHAPES, LOWERINGS)
        if _applies(lowering, SHAPES[shape][2].get("group", 1), *SHAPES[shape][1][:2])
    ]


def _direct(x: np.ndarray, dy: np.ndarray, w: tuple[int, ...], settings: dict) -> np.ndarray:
    """The definition, place by place, in float64."""
    axes = len(w) - 2
    pads = settings.get("pads", [0] * 2 * axes)
    strides, dilations = settings.get("strides", [1] * axes), settings.get("dilations", [1] * axes)
    group = settings.get("group", 1)
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    dw = np.zeros(w)
    per = w[0] // group
    for place in itertools.product(*(range(k) for k in w[2:])):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(place, dilations, dy.shape[2:], strides, strict=True)
        )
        met = padded[(slice(None), slice(None), *window)]
        for m in range(w[0]):
            g = m // per
            for c in range(w[1]):
                dw[(m, c, *place)] = (met[:, g * w[1] + c] * dy[:, m]).sum()
    return dw


def _model(shape: str, lowering: str | None, symbolic: bool, target: Target) -> tuple[ir.Model, tuple[int, ...]]:
    x, w, settings = SHAPES[shape]
    batch = "batch" if symbolic else x[0]
    given = {"x": (batch, *x[1:]), "w": w}
    values = {n: ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(d)) for n, d in given.items()}
    imports = {"": OPSET, DOMAIN: 1}
    ops = Ops(ir.Graph(list(values.values()), [], nodes=[], opset_imports=imports), target=target)
    y = ops.Conv(values["x"], values["w"], **settings)
    out = tuple(int(d) for d in list(y.shape)[1:])
    dy = ir.Value(name="dy", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((batch, *out)))
    ops.graph.inputs.append(dy)
    axes = len(w) - 2
    pads = settings.get("pads", [0] * 2 * axes)
    ones = [1] * axes
    window = Window(
        w[2:],
        tuple(settings.get("strides", ones)),
        tuple(settings.get("dilations", ones)),
        tuple(pads[:axes]),
        tuple(pads[axes:]),
    )
    emit = Emit(ops)
    terms = [Term(v, emit) for v in (values["x"], dy, values["w"])]
    group = settings.get("group", 1)
    name = lowering or choose(*terms, window, group)
    dw = LOWERINGS[name](*terms, window, group).value
    dw.name = "dw"
    ops.graph.outputs.append(dw)
    return ir.Model(ops.graph, ir_version=IR_VERSION), (x[0], *out)


@pytest.mark.parametrize("symbolic", [False, True], ids=["fixed", "symbolic"])
@pytest.mark.parametrize(("shape", "lowering"), _cases())
def test_lowering(shape: str, lowering: str, symbolic: bool) -> None:
    model, out = _model(shape, lowering, symbolic, Target())
    _check(model, shape, SHAPES[shape][0], out)


@pytest.mark.skipif(not BLOCK, reason="this processor has no layout of blocks")
@pytest.mark.parametrize("batch", [None, 1, 8, 13])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s.startswith("blocks")])
def test_in_blocks(shape: str, batch: int | None) -> None:
    """With a batch of fixed size, and one of symbolic size in batches that do and do not fill whole blocks."""
    model, out = _model(shape, "blocks", batch is not None, Target(block=BLOCK))
    samples = batch or out[0]
    _check(model, shape, (samples, *SHAPES[shape][0][1:]), (samples, *out[1:]))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("shape", [s for s in SHAPES if SHAPES[s][2].get("group", 1) == 1])
def test_sample_by_sample(shape: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_gradient, "_LARGE", 1)
    model, out = _model(shape, "lags", True, Target())
    assert sum(node.op_type == "Scan" for node in model.graph) == 1
    _check(model, shape, (batch, *SHAPES[shape][0][1:]), (batch, *out[1:]))


def _check(model: ir.Model, shape: str, x: tuple[int, ...], out: tuple[int, ...]) -> None:
    _, w, settings = SHAPES[shape]
    rng = np.random.default_rng(3)
    feeds = {"x": rng.standard_normal(x).astype(np.float32), "dy": rng.standard_normal(out).astype(np.float32)}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    feeds |= {i.name: np.zeros(w, np.float32) for i in session.get_inputs() if i.name == "w"}
    dw = session.run(None, feeds)[0]
    expected = _direct(feeds["x"], feeds["dy"], w, settings)
    np.testing.assert_allclose(dw, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
