"""CTC equals PyTorch's, value and gradient; decoding collapses, then drops blanks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from nnspec.diagnostics import SpecError
from tests.sequence.graphs import Arrays, figures, network_of, run

SPEC = """
network Aligner(classes = 5) {
  input x: [T, classes] masked
  output logits = x * 1.0
}
train Aligner {
  target label: int[L] masked
  loss = ctc(logits, label%s)
  optimizer = sgd(lr = 0.1)
}
"""


@pytest.fixture(scope="module")
def torch() -> Arrays:
    with np.load(Path(__file__).parents[1] / "oracle" / "ctc.npz") as stored:
        return dict(stored)


def feed(torch: Arrays, rows: np.ndarray | slice) -> Arrays:
    return {
        "x": torch["logits"][rows],
        "x.lengths": torch["frames"][rows],
        "label": torch["label"][rows],
        "label.lengths": torch["lengths"][rows],
    }


def test_loss_and_gradient_equal_pytorch(torch: Arrays) -> None:
    found = figures(SPEC % "", feed(torch, torch["possible"]), by="x")
    np.testing.assert_allclose(found["loss"], torch["possible.loss"], rtol=1e-6)
    np.testing.assert_allclose(found["gradient"], torch["possible.gradient"], atol=1e-6)
    assert np.abs(torch["possible.gradient"]).max() > 0.05


def test_each_sample_equals_pytorch(torch: Arrays) -> None:
    for row, loss in enumerate(torch["each"]):
        found = figures(SPEC % "", feed(torch, slice(row, row + 1)))["loss"]
        np.testing.assert_allclose(found, loss / torch["lengths"][row], rtol=1e-6)


DECODER = """
network Decoder(classes = 5) {
  input x: [T, classes] masked
  greedy, greedy_length = ctc_greedy(x)
  beam, beam_length, score = ctc_beam(x, beam = 4)
  output greedy
  output greedy_length
  output beam
  output beam_length
  output score
}
"""


def best_labels(scores: np.ndarray) -> dict[tuple[int, ...], float]:
    """Return the log probability of every label by summing over every alignment."""
    steps, classes = scores.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=steps):
        label = tuple(s for s, _ in itertools.groupby(path) if s != 0)
        worth = float(scores[np.arange(steps), path].sum())
        found[label] = np.logaddexp(found.get(label, -np.inf), worth)
    return found


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def alignment(*symbols: int) -> np.ndarray:
    """Return logits that make one alignment nearly certain."""
    return 9 * np.eye(5, dtype=np.float32)[list(symbols)]


def decode(x: np.ndarray, lengths: list[int], text: str = DECODER) -> Arrays:
    return run(network_of(text), {"x": x.astype(np.float32), "x.lengths": np.array(lengths)})


def test_doubled_symbols_survive_a_blank_between() -> None:
    """The lecture drops blanks first and then trims repeats, which makes `hello` `helo`."""
    found = decode(np.stack([alignment(1, 1, 2, 2, 0, 2, 3), alignment(0, 1, 2, 2, 2, 0, 3)]), [7, 7])
    for kind in ("greedy", "beam"):
        assert found[kind].tolist() == [[1, 2, 2, 3, -1, -1, -1], [1, 2, 3, -1, -1, -1, -1]]
        assert found[f"{kind}_length"].tolist() == [4, 3]


def test_steps_behind_the_end_decode_to_nothing() -> None:
    found = decode(np.stack([alignment(1, 0, 2, 3, 4), alignment(4, 4, 3, 3, 2)]), [3, 5])
    for kind in ("greedy", "beam"):
        assert found[kind].tolist() == [[1, 2, -1, -1, -1], [4, 3, 2, -1, -1]]
    short = decode(alignment(1, 0, 2)[None], [3])
    np.testing.assert_allclose(found["score"][0], short["score"][0], rtol=1e-6)


def test_a_beam_as_wide_as_all_labels_finds_the_likeliest() -> None:
    text = DECODER.replace("classes = 5", "classes = 3").replace("beam = 4", "beam = 200")
    x = np.random.default_rng(5).standard_normal((40, 6, 3)).astype(np.float32)
    found = decode(x, [6] * 40, text)
    differs = 0
    for row in range(40):
        worth = best_labels(log_softmax(x[row].astype(np.float64)))
        label = max(worth, key=worth.__getitem__)
        assert found["beam"][row].tolist() == [*label, *[-1] * (6 - len(label))]
        assert found["beam_length"][row] == len(label)
        np.testing.assert_allclose(found["score"][row], worth[label], rtol=1e-5)
        differs += found["beam"][row].tolist() != found["greedy"][row].tolist()
    assert differs > 5, "a beam that only ever agrees with the greedy decoder shows nothing"


def prefix_search(scores: np.ndarray, beam: int) -> tuple[tuple[int, ...], float]:
    """Search with a dictionary from prefixes to the log probabilities of ending with a blank and with a symbol."""
    followed = {(): (0.0, -np.inf)}
    for step in scores:
        grown: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (blank, symbol) in followed.items():
            both = np.logaddexp(blank, symbol)
            ways = [(prefix, both + step[0], symbol + step[prefix[-1]] if prefix else -np.inf)]
            for s in range(1, len(step)):
                ways.append(((*prefix, s), -np.inf, (blank if prefix[-1:] == (s,) else both) + step[s]))
            for longer, *worth in ways:
                before = grown.get(longer, (-np.inf, -np.inf))
                grown[longer] = np.logaddexp(before[0], worth[0]), np.logaddexp(before[1], worth[1])
        best = sorted(grown, key=lambda p, of=grown: -np.logaddexp(*of[p]))[:beam]
        followed = {p: grown[p] for p in best}
    first = next(iter(followed))
    return first, float(np.logaddexp(*followed[first]))


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_beam_equals_a_search_in_python(beam: int) -> None:
    x = (1.5 * np.random.default_rng(9).standard_normal((25, 11, 5))).astype(np.float32)
    lengths = np.random.default_rng(1).integers(1, 12, 25)
    found = decode(x, lengths.tolist(), DECODER.replace("beam = 4", f"beam = {beam}"))
    for row, length in enumerate(lengths):
        label, worth = prefix_search(log_softmax(x[row, :length].astype(np.float64)), beam)
        assert found["beam"][row].tolist() == [*label, *[-1] * (11 - len(label))]
        assert found["beam_length"][row] == len(label)
        np.testing.assert_allclose(found["score"][row], worth, rtol=1e-4)


def test_a_narrow_beam_keeps_prefixes_that_meet_again() -> None:
    """Merging matters: the classic case in which the blank is likeliest in every step, and yet a symbol wins."""
    x = np.log(np.array([[0.55, 0.45, 1e-9], [0.55, 0.45, 1e-9]]))[None]
    text = DECODER.replace("classes = 5", "classes = 3").replace("beam = 4", "beam = 3")
    found = decode(x, [2], text)
    assert found["greedy_length"].tolist() == [0]
    assert found["beam"].tolist() == [[1, -1]]
    np.testing.assert_allclose(found["score"], [np.log(1 - 0.55**2)], rtol=1e-5)


def test_an_impossible_alignment_is_infinite_and_gives_no_gradient(torch: Arrays) -> None:
    found = figures(SPEC % "", feed(torch, slice(0, 6)), by="x")
    assert found["loss"] == np.inf
    assert np.isfinite(found["gradient"]).all()
    assert not found["gradient"][3].any()
    assert all(found["gradient"][row].any() for row in torch["possible"])


def test_zero_infinity_equals_pytorch(torch: Arrays) -> None:
    found = figures(SPEC % ", zero_infinity = true", feed(torch, slice(0, 6)), by="x")
    np.testing.assert_allclose(found["loss"], torch["all.loss"], rtol=1e-6)
    np.testing.assert_allclose(found["gradient"], torch["all.gradient"], atol=1e-6)


def test_padding_changes_neither_loss_nor_gradient(torch: Arrays) -> None:
    clean = feed(torch, torch["possible"])
    dirty = {name: array.copy() for name, array in clean.items()}
    for row in range(len(dirty["x"])):
        dirty["x"][row, dirty["x.lengths"][row] :] = 50
        dirty["label"][row, dirty["label.lengths"][row] :] = 4
    a, b = figures(SPEC % "", clean, by="x"), figures(SPEC % "", dirty, by="x")
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    for row in range(len(clean["x"])):
        assert not a["gradient"][row, clean["x.lengths"][row] :].any()


def test_symbols_that_cannot_be_give_infinity_not_nan(torch: Arrays) -> None:
    given = feed(torch, slice(0, 2))
    given["x"] = given["x"].copy()
    given["x"][:, :, 4] = -np.inf
    found = figures(SPEC % "", given, by="x")
    assert np.isfinite(found["loss"])
    assert np.isfinite(found["gradient"]).all()
    given["x"][1, :, 2] = -np.inf
    found = figures(SPEC % "", given, by="x")
    assert found["loss"] == np.inf
    assert np.isfinite(found["gradient"]).all()


def test_the_gradient_is_the_slope(torch: Arrays) -> None:
    """Long sequences, where a sum of probabilities instead of logarithms would underflow."""
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal((2, 150, 5))).astype(np.float32)
    given = {"x": x, "x.lengths": np.array([150, 120]), "label": rng.integers(1, 5, (2, 40))}
    given["label.lengths"] = np.array([40, 21])
    direction = rng.standard_normal(x.shape).astype(np.float32)
    found = figures(SPEC % "", given, by="x")
    step = np.float32(1e-2)
    up, down = (figures(SPEC % "", {**given, "x": x + s * direction})["loss"] for s in (step, -step))
    np.testing.assert_allclose((up - down) / (2 * step), (found["gradient"] * direction).sum(), rtol=2e-3)


def test_strides_shorten_the_lengths(torch: Arrays) -> None:
    """The steps of a strided convolution that read padding do not count."""
    text = """
    network Strided {
      input x: [T, 4] masked
      output logits = x -> transpose -> conv(5, 3, stride = 2, pad = 1) -> transpose
    }
    train Strided { target label: int[L] masked  loss = ctc(logits, label)  optimizer = sgd(lr = 0.1) }
    """
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 9, 4)).astype(np.float32)
    label = {"label": np.array([[1, 2, 1]]), "label.lengths": np.array([3])}
    alone = figures(text, {"x": x, "x.lengths": np.array([9]), **label})["loss"]
    padded = np.concatenate([x, np.zeros((1, 8, 4), np.float32)], 1)
    assert figures(text, {"x": padded, "x.lengths": np.array([9]), **label})["loss"] == pytest.approx(alone, rel=1e-6)
    assert figures(text, {"x": padded, "x.lengths": np.array([17]), **label})["loss"] != pytest.approx(alone, rel=1e-2)


def test_sequences_of_fixed_length_need_no_mask(torch: Arrays) -> None:
    text = SPEC.replace("[T, classes] masked", "[12, classes]").replace("int[L] masked", "int[3]") % ""
    found = figures(text, {"x": torch["logits"][:1], "label": torch["label"][:1, :3]})
    np.testing.assert_allclose(found["loss"], torch["each"][0] / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("input x: [12, 5]|target label: int[13]", "a label of 13 symbols cannot be aligned with 12 steps"),
        ("input x: [12, 5]|target label: [4]", "needs a sequence of whole numbers as its label, and gets [4]"),
        ("input x: [5]|target label: int[4]", "needs logits [T, classes], one row for each step, and gets [5]"),
        ("input x: [12, 5]|target label: int[4]|, blank = 5", "the blank is class 5, and there are 5 classes"),
    ],
)
def test_what_cannot_be_aligned_is_an_error(given: str, message: str) -> None:
    x, label, *more = given.split("|")
    text = (SPEC % (more[0] if more else "")).replace("input x: [T, classes] masked", x)
    text = text.replace("target label: int[L] masked", label)
    with pytest.raises(SpecError) as error:
        figures(text, {})
    assert message in str(error.value)
