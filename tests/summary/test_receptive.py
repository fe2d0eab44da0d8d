"""Receptive fields, by hand and against the outputs that a changed pixel reaches."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest

from nnspec.compile import compile_network, export_model, initial_weights
from nnspec.source import Source
from nnspec.summary import summarize


def fields(body: str, shape: str = "[2, 32, 32]") -> list[object]:
    text = f"network A {{ input x: {shape}\n  {body} }}"
    return [layer.receptive_field for layer in summarize(compile_network(Source("t.nn", text)).network).layers]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("output y = x -> conv(4, 3x3) -> relu -> conv(4, 3x3)", [(3, 3), (3, 3), (5, 5)]),
        ("output y = x -> conv(4, 3x5, stride = 2) -> conv(4, 3x3)", [(3, 5), (7, 9)]),
        ("output y = x -> conv(4, 3x3, dilation = 2) -> maxpool(2) -> conv(4, 3x3)", [(5, 5), (6, 6), (10, 10)]),
        ("output y = x -> relu -> conv(4, 1x1)", [(1, 1), (1, 1)]),
        ("output y = x -> conv(4, 3x3) -> global_avgpool -> dense(3)", [(3, 3), "all", "all"]),
        ("output y = x -> conv(4, 3x3) -> flatten -> dense(3)", [(3, 3), (3, 3), "all"]),
        ("output y = x -> conv(4, 3x3) -> groupnorm(2)", [(3, 3), "all"]),
        ("output y = x -> conv(4, 3x3) -> batchnorm -> softmax(axis = 0)", [(3, 3)] * 3),
        ("output y = x -> avgpool(2) -> upsample(2) -> conv(4, 3x3)", [(2, 2), (2, 2), (4, 4)]),
        ("output y = x -> maxpool(2) -> conv_transpose(4, 2x2, stride = 2)", [(2, 2), (2, 2)]),
    ],
)
def test_chains(body, expected):
    assert fields(body) == expected


def test_branches_take_the_larger():
    body = "a = x -> conv(4, 5x3, pad = same)\n  b = x -> conv(4, 3x7, pad = same)\n  output y = a + b"
    assert fields(body) == [(5, 3), (3, 7), (5, 7)]


def test_what_sees_all_absorbs():
    assert fields("a = x -> mean(axis = 1, keep = true)\n  output y = x + a")[-1] == "all"


def test_numbers_of_the_spec_see_nothing():
    assert fields("output y = x * [[[2]], [[3]]]") == [None, (1, 1)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("output y = x -> dense(4) -> relu", [(1,), (1,)]),
        ("output y = x -> softmax(axis = 0)", ["all"]),
        ("output y = x -> transpose -> conv(4, 3) -> conv(4, 3) -> transpose", [(1,), (3,), (5,), (5,)]),
        ("output y = x -> mean(axis = 0)", ["all"]),
        ("output y = x @ transpose(x)", [(1,), "all"]),
        ("output y = x -> cumsum", ["all"]),
    ],
)
def test_sequences(body, expected):
    assert fields(body, "[20, 6]") == expected


def test_vectors_turned_into_images():
    body = "output y = x -> relu -> reshape([1, 8, 8]) -> conv(4, 3x3)"
    assert fields(body, "[64]") == [(1,), (1,), (3, 3)]


@pytest.mark.parametrize(
    "chain",
    [
        "conv(2, 3x3, pad = 1) -> conv(2, 5x3, pad = same)",
        "conv(2, 3x3, pad = 1, stride = 2) -> conv(2, 3x3, pad = 1)",
        "conv(2, 3x3, pad = 2, dilation = 2) -> avgpool(2)",
        "avgpool(2) -> upsample(2) -> conv(2, 3x3, pad = 1)",
        "conv(2, 3x3, pad = 1) -> conv_transpose(2, 4x4, stride = 2, pad = 1)",
        "avgpool(3, stride = 2, pad = 1) -> conv(2, 3x3, pad = 1) -> avgpool(2)",
    ],
)
def test_a_field_is_what_an_output_depends_on(chain):
    """Change each pixel; how far apart the pixels are that reach an output never exceeds its field, and attains it."""
    text = f"network A {{ input x: [1, 40, 40]\n  output y = x -> {chain} }}"
    network = compile_network(Source("t.nn", text)).network
    expected = summarize(network).layers[-1].receptive_field
    weights = {name: np.abs(w) + 0.1 for name, w in initial_weights(network).items()}
    model = onnx_ir.to_proto(export_model(network, weights)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    base = np.zeros((1, 1, 40, 40), np.float32)
    rest = session.run(None, {"x": base})[0]
    height, width = rest.shape[2:]
    rows: dict[int, list[int]] = {}
    columns: dict[int, list[int]] = {}
    for at in range(40):
        line, column = base.copy(), base.copy()
        line[0, 0, at, 20] = 1
        column[0, 0, 20, at] = 1
        for changed, seen, axes in ((line, rows, (0, 1, 3)), (column, columns, (0, 1, 2))):
            moved = (session.run(None, {"x": changed})[0] != rest).any(axis=axes)
            for place in np.flatnonzero(moved):
                seen.setdefault(int(place), []).append(at)
    middle = range(height // 3, 2 * height // 3), range(width // 3, 2 * width // 3)
    extents = tuple(
        max(max(seen[i]) - min(seen[i]) + 1 for i in inner) for seen, inner in zip((rows, columns), middle, strict=True)
    )
    assert extents == expected
