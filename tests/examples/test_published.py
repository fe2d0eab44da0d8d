"""Each example has exactly the parameters and products that its paper's table gives, and runs as ONNX."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nnspec.compile import compile_network, export_model, initial_weights
from nnspec.dims import evaluate
from nnspec.ir import Network
from nnspec.lower import forward_model
from nnspec.source import Source
from nnspec.summary import summarize
from nnspec.syntax.format import format_source
from tests.examples import formulas

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = 3 * 10**7
"""Networks up to this many weights are exported with real ones; of larger ones the weights stay inputs, and zero."""


@dataclass(frozen=True)
class Case:
    """An example, what it is set to, and what must come out."""

    file: str
    parameters: int
    macs: int | str
    outputs: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    formula: tuple[int, int] | None = None
    run: bool = True

    @property
    def label(self) -> str:
        return self.file + "".join(f"-{v}" for v in self.settings.values()).replace(", ", ",")


IMAGENET = {"logits": "[1000]"}
CASES = [
    Case("digits", 56_714, 1_788_544, {"logits": "[10]"}, {}, formulas.digits()),
    Case("lecture_cnn", 137_660, 1_639_350, {"logits": "[10]", "probs": "[10]"}, {}, formulas.lecture_cnn()),
    Case("lenet5", 61_706, 416_520, {"logits": "[10]"}, {}, formulas.lenet5()),
    Case("alexnet", 60_965_224, 724_406_816, IMAGENET, {}, formulas.alexnet(2)),
    Case("alexnet", 62_378_344, 1_135_256_096, IMAGENET, {"groups": 1}, formulas.alexnet(1), run=False),
    Case("vgg", 138_357_544, 15_470_264_320, IMAGENET, {}, formulas.vgg([2, 2, 3, 3, 3])),
    Case("vgg", 143_667_240, 19_632_062_464, IMAGENET, {"layers": 19}, formulas.vgg([2, 2, 4, 4, 4]), run=False),
    Case("googlenet", 6_998_552, 1_582_671_872, IMAGENET, {}, formulas.googlenet()),
    Case(
        "resnet",
        11_689_512,
        1_814_073_344,
        IMAGENET,
        {"depths": [2, 2, 2, 2], "bottlenecks": False},
        formulas.resnet([2, 2, 2, 2], bottlenecks=False),
    ),
    Case(
        "resnet",
        21_797_672,
        3_663_761_408,
        IMAGENET,
        {"depths": [3, 4, 6, 3], "bottlenecks": False},
        formulas.resnet([3, 4, 6, 3], bottlenecks=False),
        run=False,
    ),
    Case("resnet", 25_557_032, 4_089_184_256, IMAGENET, {}, formulas.resnet([3, 4, 6, 3], bottlenecks=True)),
    Case(
        "resnet",
        44_549_160,
        7_801_405_440,
        IMAGENET,
        {"depths": [3, 4, 23, 3]},
        formulas.resnet([3, 4, 23, 3], bottlenecks=True),
        run=False,
    ),
    Case(
        "resnet",
        60_192_808,
        11_513_626_624,
        IMAGENET,
        {"depths": [3, 8, 36, 3]},
        formulas.resnet([3, 8, 36, 3], bottlenecks=True),
        run=False,
    ),
    Case("mobilenet", 4_231_976, 568_740_352, IMAGENET, {}, formulas.mobilenet()),
    Case("highway", 85_660, 84_700, {"logits": "[10]"}, {}, formulas.highway(50, 9)),
    Case("alphago_policy", 3_882_793, 1_400_726_208, {"move": "[361]"}, {}, formulas.alphago_policy(192)),
    Case("siamese", 807_680, 9_056_768, {"distance": "[]"}, {}, formulas.siamese()),
    Case("autoencoder", 65_025, 755_776, {"latent": "[16]", "restored": "[1, 28, 28]"}, {}, formulas.autoencoder(16)),
    Case(
        "segmentation",
        47_829,
        "10080*H*W + 18432*(H//2)*(W//2) + 19104*(H//4)*(W//4)",
        {"scores": "[21, 4*(H//4), 4*(W//4)]", "label": "int[4*(H//4), 4*(W//4)]"},
    ),
    Case("textcnn", 360_902 + 300 * 10_000, "360000*T - 1139400", {"logits": "[2]"}),
]


def network_of(case: Case) -> Network:
    compiled = compile_network(EXAMPLES / f"{case.file}.nn", settings=case.settings)
    assert compiled.warnings == ()
    return compiled.network


def test_every_example_has_a_case() -> None:
    assert {c.file for c in CASES} == {p.stem for p in EXAMPLES.glob("*.nn")}


def test_the_table_of_the_readme_tells_these_figures() -> None:
    rows = [
        line for line in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert {row.split("`")[1] for row in rows} == {f"{c.file}.nn" for c in CASES}
    for case in CASES:
        if not case.settings:
            (row,) = (row for row in rows if row.startswith(f"| `{case.file}.nn`"))
            assert f"| {case.parameters:,} |" in row
            assert not isinstance(case.macs, int) or row.endswith(f"| {case.macs:,} |")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.label)
def test_figures(case: Case) -> None:
    network = network_of(case)
    summary = summarize(network)
    assert summary.counts.parameters == case.parameters
    assert summary.counts.frozen == 0
    assert str(summary.macs) == str(case.macs)
    assert {name: str(type_) for name, type_ in summary.outputs.items()} == case.outputs
    if case.formula is not None:
        assert (case.parameters, case.macs) == case.formula
    assert Network.from_json(network.to_json()) == network


def test_text_convolutions_count_each_window() -> None:
    network = compile_network(EXAMPLES / "textcnn.nn", settings={"vocabulary": 50}).network
    summary = summarize(network)
    for length in (5, 17, 200):
        assert (summary.counts.parameters, evaluate(summary.macs, {"T": length})) == formulas.textcnn(50, length)


SIZES = {"H": 37, "W": 20, "T": 11}


@pytest.mark.parametrize("case", [c for c in CASES if c.run], ids=lambda c: c.label)
def test_exports_and_runs(case: Case) -> None:
    network = network_of(case)
    types = network.types()
    total = sum(w.size for w in network.weights)
    large = total > SMALL
    model = forward_model(network) if large else export_model(network, initial_weights(network))
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    if not large:
        assert sum(int(np.prod(i.dims)) for i in proto.graph.initializer) == total
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        feed: dict[str, Any] = {w.name: np.zeros(w.shape, np.float32) for w in network.weights} if large else {}
        for i in network.inputs:
            shape = [batch, *(evaluate(d, SIZES) for d in i.type.shape)]
            feed[i.name] = (
                rng.standard_normal(shape, np.float32) if i.type.dtype == "float32" else rng.integers(0, 50, shape)
            )
        results = session.run([o.name for o in network.outputs], feed)
        for output, result in zip(network.outputs, results, strict=True):
            assert result.shape == (batch, *(evaluate(d, SIZES) for d in types[output.value].shape))
            assert np.isfinite(result).all()


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.nn")), ids=lambda p: p.stem)
def test_examples_are_in_the_one_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(Source(str(path), text)) == text
