"""A decode graph says what a search in NumPy finds that drives the same network from outside, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from nnspec.cli import main
from nnspec.compile import compile_recipe
from nnspec.diagnostics import NnspecError, SpecError
from nnspec.ir import Network
from nnspec.lower import forward_model, lower
from nnspec.source import Source
from tests.sequence.graphs import Arrays, network_of, session, tensors

BEGIN, END, LENGTH, SYMBOLS = 1, 2, 6, 7

SPEC = """
cell attend(units) on x given memory {
  state h: [units] = 0.25
  query = (x, h) -> concat -> dense(8)
  context = softmax(memory @ query) @ memory
  next h = tanh((x, h, context) -> concat -> dense(units))
  return next h
}
cell counting(units) on x {
  state h: [units]
  next h = tanh((x, h) -> concat -> dense(units)) * cos(real(step))
  return next h
}
cell learned(units) on x {
  param first: [units] = normal(1)
  state h: [units] = first
  next h = tanh((x, h) -> concat -> dense(units))
  return next h
}
network Translator {
  input source: int[S] masked
  input feed: int[N] masked
  encoded, h = source -> embedding(11, 6) -> gru(8)
  said = feed -> embedding(7, 5)
  DECODER
  output logits = state -> dense(7)
  answer, score = generate(logits, feed, begin = 1, end = 2, length = 6OPTIONS)
  output answer
  output score
}
train Translator {
  target label: int[N]
  loss = cross_entropy(logits, label)
  METRIC
  optimizer = sgd(lr = 0.1)
}
"""

STEPWISE = {
    "gru": "state = said -> gru(8, initial = h)",
    "stack": "state = said -> lstm(8) * 2 -> gru(8, initial = h)",
    "luong": """d = said -> gru(8, initial = h)
      weights = softmax(d @ (encoded -> dense(8) -> transpose))
      state = (weights @ encoded, d) -> concat -> dense(8) -> layernorm -> tanh""",
    "attention cell": "state = said -> attend(8, memory = encoded)",
    "learned start": "state = (said, h -> repeat(feed.shape[0])) -> concat -> learned(8)",
}
PREFIX = {
    "causal convolution": """d = (said, h -> repeat(feed.shape[0])) -> concat -> transpose
      state = d -> conv(8, 3, pad = [2, 0]) -> relu -> transpose -> gru(8)""",
    "running sum": "state = (said -> cumsum(axis = 0)) + (h -> dense(5))",
    "time index": "state = (said, h -> repeat(feed.shape[0])) -> concat -> counting(8)",
    "vouched for": """steps = (said * 0 + 1) -> slice(0, 1, axis = 1) -> cumsum
      scores = said @ (said -> transpose) - 1000 * ((steps -> transpose) > steps)
      state = (softmax(scores) @ said, h -> repeat(feed.shape[0])) -> concat -> dense(8)""",
}


def build(decoder: str, options: str = "", metric: str = "") -> str:
    return SPEC.replace("DECODER", decoder).replace("OPTIONS", options).replace("METRIC", metric)


def some_weights(network: Network, end: float = 2.5) -> Arrays:
    """Return weights large enough for answers that differ; the larger `end`, the shorter they are."""
    rng = np.random.default_rng(1)
    found = {w.name: (1.3 * rng.standard_normal(w.shape)).astype(np.float32) for w in network.weights}
    for array in found.values():
        if array.shape == (SYMBOLS,):
            array[END] += end
    return found


def sources(count: int = 12) -> Arrays:
    rng = np.random.default_rng(2)
    return {"source": rng.integers(0, 11, (count, 5)), "source.lengths": rng.integers(1, 6, count)}


@dataclass
class Sequence:
    said: list[int]
    worth: float = 0.0

    @property
    def done(self) -> bool:
        return self.said[-1:] == [END]


class Search:
    """Beam search outside of the graph; a beam of 1 is the greedy search."""

    def __init__(self, network: Network, weights: Arrays) -> None:
        self.plain: ort.InferenceSession = session(forward_model(network, tensors(weights), outputs=["logits"]))

    def next_worth(self, source: Arrays, said: list[int]) -> np.ndarray:
        feed = {"feed": np.array([[BEGIN, *said]]), "feed.lengths": np.array([1 + len(said)])}
        wanted = {i.name for i in self.plain.get_inputs()}
        (logits,) = self.plain.run(None, {k: v for k, v in {**source, **feed}.items() if k in wanted})
        last = logits[0, -1].astype(np.float64)
        return last - last.max() - np.log(np.exp(last - last.max()).sum())

    def best(self, source: Arrays, beam: int, penalty: float) -> Sequence:
        followed = [Sequence([])]
        for _ in range(LENGTH):
            grown: list[Sequence] = []
            for one in followed:
                if one.done:
                    grown.append(one)
                    continue
                worth = self.next_worth(source, one.said)
                grown += [Sequence([*one.said, s], one.worth + worth[s]) for s in range(SYMBOLS)]
            grown.sort(key=lambda s: -s.worth / len(s.said) ** penalty)
            followed = grown[:beam]
            if all(s.done for s in followed):
                break
        return followed[0]


def answers(network: Network, weights: Arrays, feed: Arrays) -> Arrays:
    decoder = session(forward_model(network, tensors(weights), outputs=["answer", "score"]))
    assert {i.name for i in decoder.get_inputs()} <= {"source", "source.lengths"}
    wanted = {i.name for i in decoder.get_inputs()}
    return dict(
        zip(["answer", "score"], decoder.run(None, {k: v for k, v in feed.items() if k in wanted}), strict=True)
    )


@pytest.mark.parametrize(("beam", "penalty"), [(1, 0.0), (3, 0.0), (4, 1.5)])
@pytest.mark.parametrize("kind", [*STEPWISE, *PREFIX])
def test_decode_graph_equals_a_search_from_outside(kind: str, beam: int, penalty: float) -> None:
    options = f", beam = {beam}, length_penalty = {penalty}" + (", causal = true" if kind == "vouched for" else "")
    network = network_of(build({**STEPWISE, **PREFIX}[kind], options))
    feed = sources(5)
    lengths = set()
    for weights in [some_weights(network, end) for end in (0, 1, 4)]:
        found = answers(network, weights, feed)
        search = Search(network, weights)
        for row in range(len(feed["source"])):
            n = feed["source.lengths"][row]
            alone = {"source": feed["source"][row : row + 1, :n], "source.lengths": np.array([n])}
            best = search.best(alone, beam, penalty)
            assert found["answer"][row].tolist() == best.said + [-1] * (LENGTH - len(best.said))
            np.testing.assert_allclose(found["score"][row], best.worth, rtol=1e-4, atol=1e-4)
            lengths.add(len(best.said))
    assert len(lengths) > 1, "answers of one length show nothing of the end"


@pytest.mark.parametrize("kind", STEPWISE)
def test_recurrences_go_on_instead_of_starting_again(kind: str) -> None:
    network = network_of(build(STEPWISE[kind]))
    model = forward_model(network, tensors(some_weights(network)), outputs=["answer"])
    (loop,) = (n for n in model.graph if n.op_type == "Loop")
    inner = {n.op_type for n in loop.attributes["body"].as_graph()}
    assert not inner & {"Scan", "GRU", "LSTM"}, "a step of one needs no loop in the loop"
    recurrent = sum(len(n.layer.states) for n in network.nodes if n.layer.keyword == "recurrence")
    assert len(loop.outputs) >= 4 + recurrent - 1


def test_what_no_step_changes_is_computed_before_the_loop() -> None:
    network = network_of(build(STEPWISE["luong"]))
    model = forward_model(network, tensors(some_weights(network)), outputs=["answer"])
    (loop,) = (n for n in model.graph if n.op_type == "Loop")
    body = loop.attributes["body"].as_graph()
    produced = {v for n in body for v in n.outputs} | set(body.inputs)
    for node in body:
        assert any(v in produced for v in node.inputs if v is not None), f"{node.name} is the same in every step"


def test_a_beam_scores_at_least_as_well_as_the_greedy_search() -> None:
    network = {b: network_of(build(STEPWISE["gru"], f", beam = {b}")) for b in (1, 20)}
    weights, feed = some_weights(network[1]), sources(40)
    greedy, beam = (answers(network[b], weights, feed)["score"] for b in (1, 20))
    assert (beam >= greedy - 1e-5).all()
    assert (beam > greedy + 1e-3).any()


def test_the_batch_does_not_matter() -> None:
    network = network_of(build(STEPWISE["luong"], ", beam = 2"))
    weights, feed = some_weights(network), sources()
    together = answers(network, weights, feed)["answer"]
    for row in range(len(together)):
        alone = answers(network, weights, {k: v[row : row + 1] for k, v in feed.items()})["answer"]
        np.testing.assert_array_equal(alone[0], together[row])


def test_training_graphs_generate_only_for_a_metric() -> None:
    for metric, expected in (("", 0), ("metric exact = sequence_accuracy(answer, label)", 1)):
        recipe = compile_recipe(Source("test.nn", build(STEPWISE["gru"], metric=metric)))
        from nnspec.training import build as build_program

        program = build_program(recipe)
        for model in (program.step, program.eval):
            assert sum(n.op_type == "Loop" for n in model.graph) == expected


def test_outputs_select_what_is_exported() -> None:
    network = network_of(build(STEPWISE["gru"]))
    model = forward_model(network, tensors(some_weights(network)), outputs=["score", "logits"])
    assert [o.name for o in model.graph.outputs] == ["score", "logits"]
    assert {i.name for i in model.graph.inputs} >= {"source", "feed"}
    with pytest.raises(NnspecError, match="no output `anwser`: did you mean `answer`"):
        forward_model(network, outputs=["anwser"])


def test_the_command_line_exports_a_decoder_that_needs_the_source_alone(tmp_path: Path) -> None:
    spec = tmp_path / "translator.nn"
    spec.write_text(build(STEPWISE["luong"]))
    assert main(["export", str(spec), "-o", str(tmp_path / "answer.onnx"), "--outputs", "answer,score"]) == 0
    opened = ort.InferenceSession(str(tmp_path / "answer.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in opened.get_inputs()] == ["source", "source.lengths"]
    answer, score = opened.run(None, sources(3))
    assert (answer.shape, score.shape) == ((3, LENGTH), (3,))


BAD = [
    ("state = said -> gru(8, initial = h, reverse = true)", "", "sees later steps of the `feed`"),
    ("state = said -> bidirectional(gru(4))", "", "sees later steps of the `feed`"),
    ("state = said -> transpose -> conv(8, 3, pad = 1) -> transpose", "", "`conv1` in line"),
    ("state = said - (said -> mean(axis = 0, keep = true))", "", "`mean1` in line"),
    ("a, b = said -> gru(8)\n  state = a + b", "", "sees later steps of the `feed`"),
    ("state = said -> attend(8, memory = said -> dense(8))", "", "sees later steps of the `feed`"),
    ("state = said -> gru(8)", "end = 7", "the decoder never says 7"),
    ("state = said -> gru(8)", "begin = 7", "`embedding2` knows 7 symbols, and `begin` is 7"),
]


@pytest.mark.parametrize(("decoder", "option", "message"), BAD)
def test_what_cannot_generate_is_an_error(decoder: str, option: str, message: str) -> None:
    text = build(decoder)
    if option:
        text = text.replace({"end": "end = 2", "begin": "begin = 1"}[option.split()[0]], option)
    with pytest.raises(SpecError) as error:
        network_of(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("feed: int[N] masked", "feed: int[S] masked"), "the input `source` has the length `S` of the `feed`"),
        (("feed: int[N] masked", "feed: int[6]"), "must be a sequence of whole numbers of any length"),
        (("output logits = state -> dense(7)", "output logits = state -> dense(8)"), "says 8 different symbols"),
        (("generate(logits, feed", "generate(logits, source"), "one row of logits for each step"),
    ],
)
def test_a_feed_that_is_none_is_an_error(change: tuple[str, str], message: str) -> None:
    text = build("state = (said, h -> repeat(feed.shape[0])) -> concat -> attend(8, memory = encoded)")
    with pytest.raises(SpecError) as error:
        network_of(text.replace(*change))
    assert message in str(error.value)


def test_an_error_shows_the_feed_and_the_argument() -> None:
    with pytest.raises(SpecError) as error:
        network_of(build("state = said -> gru(8, reverse = true)"))
    text = str(error.value)
    assert "error[shape-mismatch]: the logits are not computed causally: `gru2` in line" in text
    assert "causal = true" in text
    with pytest.raises(SpecError) as error:
        network_of(build(STEPWISE["gru"]).replace("end = 2", "end = 9"))
    assert "at most 6" in str(error.value)


def test_logits_that_do_not_depend_on_the_feed_are_an_error() -> None:
    text = build("state = (h -> repeat(feed.shape[0]))")
    with pytest.raises(SpecError) as error:
        network_of(text)
    assert "the logits do not depend on the `feed`" in str(error.value)


def test_generating_is_a_loop_that_cannot_be_unrolled() -> None:
    text = build(STEPWISE["gru"]).replace("int[S] masked", "int[5]").replace("int[N] masked", "int[N]")
    with pytest.raises(NnspecError, match="cannot be unrolled"):
        lower(network_of(text), unroll=True, wanted=[network_of(text).outputs[1].value])
