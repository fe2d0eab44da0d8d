"""The list of cases is whole, and every network stands in every list of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnspec.summary import summarize
from tests.benchmarks.cases import CASES

HERE = Path(__file__).parent
# Parameters of the network by hand, and the batch.
EXPECTED = {
    "mlp-64": (64 * 64 + 64 + 64 * 10 + 10, 32),
    "mlp-500": (784 * 500 + 500 + 500 * 500 + 500 + 5010, 100),
    "mlp-2000": (784 * 2000 + 2000 + 2 * (2000 * 2000 + 2000) + 20010, 256),
    "lecture-cnn": (25 * 9 + 25 + 50 * 25 * 9 + 50 + 1250 * 100 + 100 + 1010, 100),
    "resnet20": (272474, 64),  # 0.27 M in He et al. 2016, with projections
    "separable": (38314, 32),
    "lstm-128": (4 * (28 * 128 + 128 * 128 + 128) + 1290, 100),
    "lstm-512": (4 * (512 * 512 * 2 + 512) + 5130, 64),
    "lstm-32": (4 * (32 * 32 * 2 + 32) + 330, 16),
    "gru-128": (3 * (28 * 128 + 128 * 128 + 128) + 1290, 100),
    "text-cnn": (5000 * 128 + 128 * 100 * (3 + 4 + 5) + 300 + 602, 50),
    "alphago-192": (48 * 192 * 25 + 192 + 11 * (192 * 192 * 9 + 192) + 192 + 361, 16),
    "transformer": (1000 * 128 + 64 * 128 + 2 * (12 * 128 * 128 + 9 * 128 + 4 * 128) + 1290, 32),
}
WITH_ADAM = {"mlp-64", "mlp-500", "lecture-cnn", "resnet20", "lstm-128", "transformer"}


def test_every_case_is_there():
    assert [c.name for c in CASES if c.optimizer == "sgd"] == list(EXPECTED)
    assert {c.name for c in CASES if c.optimizer == "adam"} == {f"{name}-adam" for name in WITH_ADAM}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_each_is_the_network_that_it_is_called(case):
    recipe = case.recipe()
    parameters, batch = EXPECTED[case.name.removesuffix("-adam")]
    assert summarize(recipe.network).counts.parameters == parameters
    assert recipe.batch == case.batch == batch
    x, label = case.data()
    assert x.shape == (batch, *case.x)
    assert label.shape == (batch,)
    assert label.max() < case.classes


@pytest.mark.parametrize("models", ["torch_models.py", "keras_models.py"])
def test_every_network_has_a_model_to_summarize(models):
    text = (HERE / models).read_text()
    assert all(f'    "{name}": ' in text for name in EXPECTED)
