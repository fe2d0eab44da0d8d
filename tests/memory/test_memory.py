"""The predicted peak of a training step, against what the process takes; and the allocator that it follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnspec.cli.runtime import this_cpu
from nnspec.ops import PORTABLE, Target
from nnspec.training import build, save
from nnspec.training.arena import Arena
from nnspec.training.memory import training_memory
from nnspec.training.memory_table import as_json, memory_table
from tests.training.programs import recipe_of

CHILD = Path(__file__).parent / "measure.py"
NETWORKS = {
    "wide weights": ("[784]", "dense(1500) -> relu -> dense(1500) -> relu -> dense(10)", "adam(0.001)", 128),
    "wide activations": ("[256]", "(dense(512) -> tanh) * 8 -> dense(10)", "sgd(0.1)", 4096),
    "recurrent": ("[50, 64]", "lstm(256) -> last -> dense(10)", "sgd(0.1)", 64),
    "normalised": (
        "[3, 32, 32]",
        "(conv(32, 3x3, pad = 1) -> batchnorm -> relu) * 4 -> global_avgpool -> dense(10)",
        "sgd(0.1, momentum = 0.9)",
        64,
    ),
    "recomputed": ("[256]", "(recompute (dense(512) -> tanh) * 3) * 3 -> dense(10)", "sgd(0.1)", 4096),
}
SMALL = """network S { input x: [4] output y = x -> dense(4) -> relu -> dense(2) }
    train S { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) batch = 2 }"""


def text(network: str) -> str:
    shape, body, optimizer, batch = NETWORKS[network]
    body = body.replace("(recompute (dense(512) -> tanh) * 3)", "(recompute ((dense(512) -> tanh) * 3))")
    return f"""network N {{ input x: {shape} output y = x -> {body} }}
    train N {{ target t: int loss = cross_entropy(y, t) optimizer = {optimizer} batch = {batch} }}"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("target", [PORTABLE, this_cpu()], ids=["portable", "this CPU"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_predicted_peak_is_what_the_process_takes(network: str, target: Target, tmp_path: Path) -> None:
    recipe = recipe_of(text(network))
    save(build(recipe_of(SMALL), target), tmp_path / "small")
    save(build(recipe, target), tmp_path / "step")
    programs = [str(tmp_path / "small.json"), str(tmp_path / "step.json")]
    done = subprocess.run([sys.executable, str(CHILD), *programs], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)["peak"]
    assert training_memory(recipe, target=target).peak == pytest.approx(measured, rel=0.2)


def test_memory_is_found_again_and_neighbours_join() -> None:
    arena = Arena()
    first = arena.take(300_000)
    second = arena.take(300_000)
    assert arena.touched == 600_000
    arena.give(first)
    again = arena.take(290_000)
    assert arena.touched == 600_000, "the freed piece fits"
    arena.give(again)
    arena.give(second)
    arena.take(1 << 20)
    assert arena.touched == 1 << 20, "both joined with the rest of their region"


def test_a_large_tensor_takes_a_region_of_its_own_size_class() -> None:
    arena = Arena()
    a = arena.take(5 << 20)
    arena.give(a)
    arena.take(3 << 20)
    assert arena.touched == 5 << 20


def test_a_region_has_a_table_of_its_places() -> None:
    arena = Arena(first=1 << 30)
    arena.take(1 << 20)
    assert arena.held == (1 << 20) + (1 << 30) // 256 * 8


def test_the_table_and_the_json_say_the_same() -> None:
    memory = training_memory(recipe_of(text("recurrent")))
    content = as_json(memory)
    parts = ("weights", "optimizer", "second_copies", "data", "activations", "fragments", "session")
    assert content["peak"] == memory.peak == sum(content[p] for p in parts)
    assert sum(one["bytes"] for one in content["live"]) == content["activations"]
    sizes = [one["bytes"] for one in content["live"]]
    assert sizes == sorted(sizes, reverse=True)
    table = memory_table(memory)
    assert content["live"][0]["name"] in table
    assert "peak " in table


def test_weights_optimizer_and_copies_are_counted_exactly() -> None:
    memory = training_memory(recipe_of(text("wide weights")))
    weights = 4 * (784 * 1500 + 1500 + 1500 * 1500 + 1500 + 1500 * 10 + 10)
    assert memory.weights == weights
    assert memory.optimizer == 2 * weights + 8, "two moments and the step"
    assert memory.second_copies == 3 * weights + 8
    assert memory.data == 2 * 128 * (784 * 4 + 8)
