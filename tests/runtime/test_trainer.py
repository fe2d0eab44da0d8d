"""Training against NumPy: the same order, the same batches, the same weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nnspec_runtime import Program, Trainer, TrainingSession, evaluate, load_data, load_weights, predict
from nnspec_runtime.errors import DataError, DivergedError, ProgramError
from nnspec_runtime.order import epoch_order

from tests.runtime import programs


def batches_of(data, batch, seed, epochs):
    """The batches of some epochs, in the order that the trainer must take."""
    for epoch in range(epochs):
        order = epoch_order(len(data["label"]), batch, seed, epoch)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            yield data["x"][chosen], data["label"][chosen]


@pytest.mark.parametrize("count", [40, 42, 41, 3], ids=["whole", "smaller last", "last of one", "fewer than a batch"])
def test_training_equals_numpy(count):
    program = programs.mlp(batch=4, epochs=3, seed=5)
    data = programs.blobs(count)
    trainer = Trainer(program, load_data(program, data))
    result = trainer.fit()
    batches = list(batches_of(data, 4, 5, 3))
    expected = programs.numpy_mlp(program.initial_state(), batches)
    state = trainer.session.state()
    for name in [*programs.MLP, *(f"{name}.momentum" for name in programs.MLP)]:
        # float32 against float64, up to 33 steps: rounding is judged by the largest element, not by each.
        np.testing.assert_allclose(state[name], expected[name], rtol=0, atol=2e-5 * np.abs(expected[name]).max())
    assert state["step"] == result.steps == len(batches)
    # The epoch's loss weighs the smaller last batch by its samples.
    rows = np.array([len(label) for _, label in batches])
    per_epoch = (expected["losses"] * rows).reshape(3, -1).sum(1) / count
    np.testing.assert_allclose([record["train"]["loss"] for record in result.history], per_epoch, rtol=1e-5)
    assert all(record["samples"] == count for record in result.history)


def test_step_by_step_equals_numpy():
    program = programs.mlp()
    session = TrainingSession(program)
    data = programs.blobs(30)
    cuts = [(0, 8), (8, 16), (16, 19), (19, 20), (20, 30)]
    batches = [(data["x"][a:b], data["label"][a:b]) for a, b in cuts]
    losses = [session.step({"x": x, "label": label})["loss"] for x, label in batches]
    expected = programs.numpy_mlp(program.initial_state(), batches)
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)
    np.testing.assert_allclose(session.state()["w1"], expected["w1"], rtol=1e-5, atol=1e-6)


def test_the_two_buffers_alternate_and_stay():
    session = TrainingSession(programs.mlp())
    batch = programs.blobs(4)
    addresses = []
    for _ in range(4):
        before = {name: array.copy() for name, array in session.state().items()}
        source = session.values()["w1"]
        session.step(batch)
        # The step read one buffer, left it as it was, and wrote the other.
        np.testing.assert_array_equal(source.numpy(), before["w1"])
        assert not np.array_equal(session.state()["w1"], before["w1"])
        addresses.append(session.values()["w1"].data_ptr())
    assert addresses[0] != addresses[1]
    assert addresses[:2] == addresses[2:]
    constant = session.values()["one"].data_ptr()
    session.step(batch)
    assert session.values()["one"].data_ptr() == constant


def test_a_step_refuses_other_dtypes_and_missing_arrays():
    session = TrainingSession(programs.mlp())
    batch = programs.blobs(4)
    with pytest.raises(DataError, match="'x' should be float32, but is float64"):
        session.step({**batch, "x": batch["x"].astype(np.float64)})
    with pytest.raises(DataError, match="lacks 'label'"):
        session.step({"x": batch["x"]})
    with pytest.raises(ValueError, match="float64"):
        session.load({"w1": np.zeros((programs.HIDDEN, programs.FEATURES))})


def test_every_sample_is_used_once_an_epoch_in_an_order_of_its_own():
    orders = [epoch_order(103, 10, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(103))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[3], epoch_order(103, 10, 1, 1))
    # The documented recipe: the raw numbers of Philox with the key (seed, epoch), sorted.
    raw = np.random.Philox(key=np.array([1, 1], np.uint64)).random_raw(103)
    assert list(orders[3]) == sorted(range(103), key=lambda at: raw[at])


def test_batches_by_length_hold_neighbours():
    lengths = np.random.default_rng(3).integers(1, 100, 1003)
    order = epoch_order(1003, 10, 0, 0, lengths=lengths)
    assert sorted(order) == list(range(1003))
    spread = [np.ptp(lengths[order[at : at + 10]]) for at in range(0, 1000, 10)]
    assert np.mean(spread) < 5  # a random batch of ten spreads over about 80
    longest = [lengths[order[at]] for at in range(0, 1000, 10)]
    assert longest != sorted(longest), "the batches themselves are shuffled"


def test_validation_and_evaluate_agree_with_numpy():
    program = programs.softmax_regression(batch=7, epochs=1)
    train, held = programs.blobs(50), programs.blobs(45, seed=1)
    data, validation = load_data(program, train), load_data(program, held)
    result = Trainer(program, data, validation=validation).fit()
    logits = held["x"] @ result.weights["weight"].T + result.weights["bias"]
    accuracy = (logits.argmax(1) == held["label"]).mean()
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -logp[np.arange(45), held["label"]].mean()
    told = result.history[0]["validation"]
    assert told == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-5)
    assert evaluate(program, validation, result.weights) == told
    assert evaluate(program, validation)["loss"] != told["loss"]
    probs = predict(program, load_data(program, {"x": held["x"]}, purpose="predict"), result.weights)["probs"]
    np.testing.assert_allclose(probs, np.exp(logp), rtol=1e-5)


def test_a_program_from_disk_trains_as_the_one_in_memory(tmp_path):
    program = programs.mlp(batch=8, epochs=2)
    data = programs.blobs(50)
    loaded = Program.load(programs.save(program, tmp_path))
    first, second = (Trainer(one, load_data(one, data)).fit() for one in (program, loaded))
    for name, weight in first.weights.items():
        np.testing.assert_array_equal(weight, second.weights[name])


def test_training_learns():
    program = programs.mlp(batch=16, epochs=10)
    result = Trainer(program, load_data(program, programs.blobs(400))).fit()
    assert result.history[-1]["train"]["accuracy"] > 0.95
    held = load_data(program, programs.blobs(200, seed=4))
    assert evaluate(program, held, result.weights)["accuracy"] > 0.95


def test_history_and_weights_are_written(tmp_path):
    program = programs.mlp(batch=8, epochs=2)
    data = load_data(program, programs.blobs(20))
    result = Trainer(program, data, validation=data, out=tmp_path / "run").fit()
    history = json.loads((tmp_path / "run/history.json").read_text())
    assert history["network"] == "Small"
    assert history["epochs"] == list(result.history)
    assert [(record["epoch"], record["step"]) for record in history["epochs"]] == [(1, 3), (2, 6)]
    assert set(history["epochs"][0]["validation"]) == {"loss", "accuracy"}
    weights = load_weights(tmp_path / "run/weights.safetensors")
    assert weights.keys() == programs.MLP.keys()
    for name in weights:
        np.testing.assert_array_equal(weights[name], result.weights[name])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors", "history.json", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_early_stopping_keeps_the_best_weights(tmp_path, metric):
    program = programs.mlp(batch=8, epochs=50, stop={"patience": 3, "metric": metric})
    data = programs.blobs(80)
    # Validation labels that are wrong: the better the training, the worse these figures.
    held = load_data(program, {"x": data["x"], "label": (data["label"] + 1) % programs.CLASSES})
    result = Trainer(program, load_data(program, data), validation=held, out=tmp_path).fit()
    figures = [record["validation"][metric] for record in result.history]
    best = int(np.argmin(figures) if metric == "loss" else np.argmax(figures))
    assert result.stopped_early
    assert result.best_epoch == best + 1
    assert len(result.history) == best + 1 + 3
    short = Trainer(program, load_data(program, data), epochs=best + 1).fit()
    stored = load_weights(tmp_path / "weights.safetensors")
    for name, weight in short.weights.items():
        np.testing.assert_array_equal(result.weights[name], weight)
        np.testing.assert_array_equal(stored[name], weight)
    again = Trainer(program, load_data(program, data), validation=held, out=tmp_path, resume=True)
    assert again.fit().steps == result.steps, "what has stopped early does not go on when resumed"


def test_a_diverging_loss_stops_with_the_step_and_keeps_the_checkpoint(tmp_path):
    program = programs.softmax_regression(batch=4, epochs=5, rate=1e38)
    trainer = Trainer(program, load_data(program, programs.blobs(40)), out=tmp_path, checkpoint_steps=1)
    with pytest.raises(
        DivergedError, match=r"the loss became (NaN|infinite) in step \d+ .*lower learning rate"
    ) as caught:
        trainer.fit()
    kept = load_weights(tmp_path / "checkpoint.safetensors")
    assert caught.value.step == trainer.position.step + 1
    assert kept.keys() == {"weight", "bias"}
    assert not (tmp_path / "weights.safetensors").exists()


def test_carried_states_go_from_batch_to_batch_and_start_anew_each_epoch():
    program = programs.carrying(batch=3, epochs=2)
    rng = np.random.default_rng(0)
    data = {name: rng.standard_normal(11).astype(np.float32) for name in ("x", "y")}
    result = Trainer(program, load_data(program, data), validation=load_data(program, data)).fit()
    w, losses = 0.5, []
    for _ in range(2):
        h = np.zeros(3)
        for start in range(0, 11, 3):  # in the order of the data: row i of a batch continues row i of the last
            x, y = data["x"][start : start + 3], data["y"][start : start + 3]
            h = h[: len(x)] + x
            error = w * h - y
            losses.append((error**2).mean() * len(x))
            w -= 0.01 * (2 * error * h).mean()
    assert result.weights["w"] == pytest.approx(w, rel=1e-5)
    assert result.history[1]["train"]["loss"] == pytest.approx(sum(losses[4:]) / 11, rel=1e-5)
    h, total = np.zeros(3), 0.0
    for start in range(0, 11, 3):
        x, y = data["x"][start : start + 3], data["y"][start : start + 3]
        h = h[: len(x)] + x
        total += ((w * h - y) ** 2).sum()
    assert result.history[1]["validation"]["loss"] == pytest.approx(total / 11, rel=1e-5)


def sequence_data(count=50, longest=12):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, longest + 1, count)
    words = rng.standard_normal((count, longest, programs.FEATURES)).astype(np.float32)
    return {
        "words": words,
        "words.lengths": lengths,
        "tags": np.broadcast_to(np.arange(longest) % 9, (count, longest)).copy(),
        "label": rng.integers(0, programs.CLASSES, count),
    }


def test_sequences_are_cut_to_the_longest_of_their_batch():
    program = programs.sequences(batch=4, epochs=1, bucket=True)
    raw = sequence_data()
    data = load_data(program, raw)
    trainer = Trainer(program, data)
    result = trainer.fit()
    lengths = raw["words.lengths"]
    order = epoch_order(50, 4, 0, 0, lengths=data.lengths)
    total = 0.0
    for start in range(0, 50, 4):
        chosen = order[start : start + 4]
        cut = raw["tags"][chosen][:, : lengths[chosen].max()]  # the graph sums the tags it is given
        total += cut.sum() * len(chosen)
    assert result.history[0]["train"]["tagsum"] == pytest.approx(total / 50)
    assert total < raw["tags"].sum() * 4, "nothing was cut"


def test_figures_are_weighed_by_the_count_that_the_graph_gives():
    program = programs.sequences(batch=4)
    raw = sequence_data(10)
    data = load_data(program, raw)
    told = evaluate(program, data)
    order = np.argsort(data.lengths, kind="stable")
    state = program.initial_state()
    losses, counts = [], []
    for start in range(0, 10, 4):
        chosen = order[start : start + 4]
        lengths = raw["words.lengths"][chosen]
        x = np.stack([raw["words"][at, :size].mean(0) for at, size in zip(chosen, lengths, strict=True)])
        logits = x @ state["weight"].T + state["bias"]
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        losses.append(-logp[np.arange(len(x)), raw["label"][chosen]].mean())
        counts.append(lengths.sum())
    assert told["loss"] == pytest.approx(np.average(losses, weights=counts), rel=1e-5)
    assert abs(told["loss"] - np.average(losses, weights=[4, 4, 2])) > 1e-4


def test_predicted_sequences_come_in_the_order_of_the_data_filled_with_zeros():
    program = programs.sequences(batch=4)
    raw = sequence_data(10)
    raw["words.lengths"][:4] = 5
    data = load_data(program, {name: raw[name] for name in ("words", "words.lengths")}, purpose="predict")
    results = predict(program, data)
    assert results["probs"].shape == (10, programs.CLASSES)
    np.testing.assert_array_equal(results["echo"][:4, :5], raw["words"][:4, :5])
    assert not results["echo"][:4, 5:].any()


def test_graph_and_manifest_must_agree():
    program = programs.mlp()
    content = program.manifest.model_dump()
    content["state"] = [one for one in content["state"] if one["name"] != "b2"]
    with pytest.raises(ProgramError, match="asks for the input 'b2', which the manifest does not name"):
        TrainingSession(Program(content, step=program.step, state=program.state))
    content = program.manifest.model_dump()
    content["metrics"] = [{"name": "recall", "output": "recall"}]
    with pytest.raises(ProgramError, match="has no output 'recall'"):
        TrainingSession(Program(content, step=program.step, state=program.state))
    with pytest.raises(ProgramError, match="onnxruntime refuses the step graph"):
        TrainingSession(Program(program.manifest, step=b"no graph", state=program.state))
    with pytest.raises(ProgramError, match="has no step graph"):
        TrainingSession(Program(program.manifest))


def test_a_schedule_is_told_how_long_training_lasts():
    program = programs.mlp(batch=4, epochs=3)
    content = program.manifest.model_dump()
    for name in ("steps_per_epoch", "epochs"):
        content["state"] = [*content["state"], programs.state(name, [], "constant", "int64", fixed=True)]
    start = {**program.state, "steps_per_epoch": np.array(0), "epochs": np.array(0)}
    told = Program(content, step=program.step, state=start)
    trainer = Trainer(told, load_data(told, programs.blobs(14)), epochs=7)
    state = trainer.session.state()
    assert (state["steps_per_epoch"], state["epochs"]) == (4, 7)


def test_only_a_change_by_more_than_min_delta_is_an_improvement():
    data = programs.blobs(80)
    stop = {"patience": 2, "metric": "loss", "min_delta": 10.0}
    program = programs.mlp(batch=8, epochs=50, stop=stop)
    result = Trainer(program, load_data(program, data)).fit()
    losses = [record["train"]["loss"] for record in result.history]
    assert losses[2] < losses[0]
    assert (result.best_epoch, len(losses), result.stopped_early) == (1, 3, True)
