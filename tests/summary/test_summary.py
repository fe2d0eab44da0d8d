"""What a network amounts to, against counts done by hand, the weights drawn, and the graph exported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnspec.compile import compile_network, initial_weights
from nnspec.diagnostics import SpecError
from nnspec.dims import evaluate
from nnspec.source import Source
from nnspec.summary import Counts, Summary, summarize
from nnspec.summary.html import page
from nnspec.summary.table import size, table


def summary_of(text: str, **values: object) -> Summary:
    return summarize(compile_network(Source("test.nn", text), settings=values).network)


SHARED = """network Twins {
  input left: [1, 8, 8]
  input right: [1, 8, 8]
  shared embed = conv(4, 3x3) -> relu -> flatten -> dense(5)
  a = left -> embed
  b = right -> embed
  output distance = l2norm(a - b)
}"""


def test_shared_weights_count_once_and_their_products_each_time():
    found = summary_of(SHARED)
    weights = (4 * 9 + 4) + (144 * 5 + 5)
    assert found.counts == Counts(trainable=weights)
    assert found.macs == 2 * (4 * 36 * 9 + 144 * 5)
    later = [layer for layer in found.layers if layer.shared]
    assert [layer.kind for layer in later] == ["conv", "dense"]
    assert all(layer.counts == Counts() for layer in later)
    assert sum(layer.counts.parameters for layer in found.layers) == weights


def test_frozen_weights_and_buffers_are_apart():
    found = summary_of(
        "network A { input x: [3, 8, 8]\n"
        "  output y = x -> freeze conv(4, 3x3) -> batchnorm -> global_avgpool -> dense(2) }"
    )
    assert found.counts == Counts(trainable=8 + 10, frozen=4 * 27 + 4, buffers=8)
    assert found.counts.bytes == 4 * (18 + 112 + 8)
    assert found.as_json()["parameters"] == {"trainable": 18, "frozen": 112, "buffers": 8}


def test_activation_memory_is_the_sum_of_all_outputs():
    found = summary_of(
        "block shift on x { param b: x.shape = zeros\n return x + b }\n"
        "network A { input x: [3]\n  y = x -> dense(4) -> relu -> shift\n"
        "  output best = argmax(y)\n  output z = y * [1, 2, 3, 4] }"
    )
    kinds = [layer.kind for layer in found.layers]
    assert kinds == ["dense", "relu", "param", "add", "argmax", "literal", "mul"]
    # Reals take 4 bytes, the index 8; the parameter and the numbers in the spec are no activations.
    assert found.activation_bytes == 4 * (4 + 4 + 4 + 4) + 8


def test_symbolic_figures_are_expressions():
    text = "network A { input image: [3, H, W]\n  output y = image -> conv(8, 3x3, stride = 2, pad = 1) -> relu }"
    found = summary_of(text)
    assert found.as_json()["layers"][0]["output"] == [8, "(H + 1)//2", "(W + 1)//2"]
    assert found.as_json()["macs"] == "216*((H + 1)//2)*((W + 1)//2)"
    assert found.as_json()["activation_bytes"] == "64*((H + 1)//2)*((W + 1)//2)"
    fixed = summary_of(text.replace("H", "64").replace("W", "33"))
    assert evaluate(found.macs, {"H": 64, "W": 33}) == fixed.macs
    assert evaluate(found.activation_bytes, {"H": 64, "W": 33}) == fixed.activation_bytes
    assert "216*((H + 1)//2)*((W + 1)//2) for one sample" in table(found)


def test_json_round_trips_and_names_all_results_of_a_layer():
    found = summary_of("network A { input x: [6]\n  a, b = x -> split(2)\n  output y = a * b }")
    content = json.loads(json.dumps(found.as_json()))
    assert content == found.as_json()
    assert content["layers"][0]["output"] == [3]
    assert content["layers"][0]["outputs"] == [[3], [3]]
    assert "outputs" not in content["layers"][1]


def test_table_puts_blocks_above_what_they_hold():
    text = (
        "block inner(n) on x { return x -> dense(n) -> relu }\n"
        "block outer(n) on x { return x -> inner(n) -> inner(n) }\n"
        "network A { input x: [3]\n  output y = x -> outer(4) -> dense(2) }"
    )
    rows = [line.split() for line in table(summary_of(text)).splitlines()[4:12]]
    assert [row[:2] for row in rows] == [
        ["outer1", "block"],
        ["inner1", "block"],
        ["dense1", "dense"],
        ["relu1", "relu"],
        ["inner2", "block"],
        ["dense1", "dense"],
        ["relu1", "relu"],
        ["dense1", "dense"],
    ]
    assert rows[0] == ["outer1", "block", "[4]", "36", "28", "all"]
    folded = table(summary_of(text), depth=1).splitlines()
    assert [line.split()[0] for line in folded[4:6]] == ["outer1", "dense1"]
    assert folded[6].startswith("-")


def test_html_shows_the_lines_of_the_table():
    found = summary_of(SHARED)
    text = page(found)
    assert text.count("<tr data-depth=") == len(found.layers) + 2
    assert "<script>" in text
    assert "http" not in text


def test_html_escapes():
    assert "<i>" not in page(summary_of("network A { input x: [3]\n  output y = x -> relu }").__class__(
        "<i>", {}, {}, (), Counts(), 0, 0
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (240771232, "230 MiB"),
        (2**50, "1,024 TiB"),
    ],
)
def test_sizes_have_units(count, text):
    assert size(count) == text


LAYERS = st.sampled_from(
    [
        "conv(4, 3x3, pad = 1)",
        "conv(6, 1x1, bias = false)",
        "conv(2, 3x3, pad = 1, groups = 2)",
        "conv_transpose(4, 2x2, stride = 2)",
        "batchnorm",
        "groupnorm(2)",
        "prelu",
        "relu",
        "maxpool(2)",
        "freeze conv(2, 3x3, pad = same)",
    ]
)


@settings(max_examples=40, deadline=None)
@given(chain=st.lists(LAYERS, min_size=1, max_size=6), units=st.integers(1, 9))
def test_counts_are_those_of_the_weights(chain, units):
    text = f"network A {{ input x: [2, 16, 16]\n output y = x -> {' -> '.join(chain)} -> flatten -> dense({units}) }}"
    # A pool may meet too small an image, and the groups too few channels.
    try:
        network = compile_network(Source("test.nn", text)).network
    except SpecError:
        return
    found = summarize(network)
    weights = initial_weights(network)
    assert found.counts.parameters + found.counts.buffers == sum(w.size for w in weights.values())
    assert found.counts.bytes == sum(w.nbytes for w in weights.values())
    assert sum(layer.counts.buffers for layer in found.layers) == found.counts.buffers
    assert all(w.dtype == np.float32 for w in weights.values())


def test_resnet_152_is_that_of_the_paper():
    path = Path(__file__).parents[2] / "examples" / "resnet.nn"
    found = summarize(compile_network(path, settings={"depths": [3, 8, 36, 3]}).network)
    assert found.counts.trainable == 60_192_808
    assert found.macs == 11_513_626_624


def test_a_summary_imports_no_onnx():
    program = (
        "import sys\n"
        "from nnspec.cli import main\n"
        "assert main(['summary', sys.argv[1]]) == 0\n"
        "assert main(['summary', sys.argv[1], '--format', 'html']) == 0\n"
        "heavy = {'onnx', 'onnx_ir', 'onnxruntime', 'numpy', 'lark', 'rich', 'safetensors', 'nnspec_runtime'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    path = Path(__file__).parents[2] / "examples" / "resnet.nn"
    ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")


def test_work_grows_linearly_with_the_layers():
    """Count the function calls of compiling and summarising: twice the layers, about twice the calls."""

    def calls(layers: int) -> int:
        lines = "".join(f"  x{i + 1} = x{i} -> conv(4, 3x3, pad = 1) -> relu\n" for i in range(layers))
        text = f"network A {{\n  input x0: [4, 8, 8]\n{lines}  output y = x{layers}\n}}\n"
        count = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(note)
        try:
            table(summary_of(text))
        finally:
            sys.setprofile(None)
        return count

    calls(10)
    small, large = calls(200), calls(400)
    assert large < 2.1 * small
