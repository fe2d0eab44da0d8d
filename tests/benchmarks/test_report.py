"""The tables."""

from __future__ import annotations

import pytest

from tests.benchmarks.report import geometric_mean, report

MACHINE = {"cpu": "AMD EPYC", "threads": 2, "python": "3.11.7", "versions": {"onnxruntime": "1.31.1", "torch": None}}


def case(name, own, peers, absent=(), **more):
    return {
        "case": name,
        "nnspec_ms": own,
        "peers": peers,
        "ratio": min(peers.values()) / own if peers else None,
        "absent": dict(absent),
        "same": True,
        "spread": {f: [ms, ms * 2] for f, ms in {"nnspec": own, **peers}.items()},
        "first_step_s": {"nnspec": 0.5, **dict.fromkeys(peers, 2.0)},
        **more,
    }


LSTM = [("torch-compile", "InductorError: no LSTM")]
ALL = {"torch-eager": 2.0, "torch-compile": 8.0, "jax": 4.0}


def test_the_training_table_has_a_column_for_each_peer():
    cases = [case("mlp-64", 1.0, ALL), case("lstm", 10.0, {"torch-eager": 80.0, "jax": 90.0}, LSTM)]
    lines = report({"machine": MACHINE, "cases": cases}).splitlines()
    assert lines[0] == "AMD EPYC, 2 threads, Python 3.11.7, onnxruntime 1.31.1."
    at = lines.index("| case | nnspec | torch-eager | torch-compile | jax | ratio |")
    assert lines[at + 2 : at + 5] == [
        "| mlp-64 | 1.000 (1.000-2.000) | 2.000 (2.000-4.000) | 8.000 (8.000-16.000) | 4.000 (4.000-8.000) | 2.00 |",
        "| lstm | 10.0 (10.0-20.0) | 80.0 (80.0-160.0) | fails[^1] | 90.0 (90.0-180.0) | 8.00 |",
        "| geometric mean |  |  |  |  | **4.00** |",
    ]
    assert lines[-1] == "[^1]: InductorError: no LSTM"


def test_equal_reasons_share_a_note():
    cases = [case(name, 1.0, {"jax": 2.0}, LSTM) for name in ("lstm", "gru")]
    text = report({"machine": MACHINE, "cases": cases})
    assert text.count("[^1]:") == 1
    assert "[^2]" not in text
    assert text.count("fails[^1]") == 4  # times and first steps


def test_all_that_was_measured_has_its_table():
    peaks = {"process": 300 << 20, "training": 5 << 19, "exact": True}
    memory = {"memory": dict.fromkeys(("nnspec", "jax"), peaks), "memory_predicted": 3 << 20}
    inference = [{"batch": b, "nnspec_ms": 0.01, "peers": {"jax": 0.03}, "ratio": 3.0} for b in (1, 32)]
    limit = {"fraction": {"nnspec": 0.42}, "bound": "memory"}
    found = {
        "machine": {**MACHINE, "gpu": "some GPU"},
        "cases": [case("mlp-64", 1.0, {"jax": 2.0}, inference=inference, limit=limit, **memory)],
        "summary": [{"case": "mlp-64", "seconds": {"nnspec": 0.4, "keras": 3.5}, "absent": {"torchinfo": "no torch"}}],
        "overhead": {
            "step": {"case": "mlp-64", "step_us": 44.0, "onnxruntime_us": 40.0, "python_us": 4.0},
            "session": {"case": "resnet-50, batch 32", "compile_s": 1.5, "session_s": 2.5},
            "loading": {"case": "mlp-500", "step_ms": 3.1, "epoch_step_ms": 3.2},
        },
    }
    text = report(found)
    assert text.startswith("some GPU with AMD EPYC")
    assert "| mlp-64 | 1.000 (1.000-2.000) | 2.000 (2.000-4.000) | 2.00 | 0.42 memory |" in text
    assert "| mlp-64 | 0.010 | 3.00 | 0.010 | 3.00 | 0.5 | 2.0 |" in text
    assert "| mlp-64 | 2.5 (300) | 2.5 (300) | 3.0 |" in text
    assert "| mlp-64 | 0.40 | 3.50 | fails[^1] |" in text
    assert "| creating its session | 2.50 s |" in text
    for table in (part.splitlines() for part in text.split("\n\n") if part.startswith("|")):
        assert len({line.count("|") for line in table}) == 1


def test_memory_that_could_not_be_reset_is_said_to_be_so():
    memory = {"nnspec": {"process": 300 << 20, "training": 2 << 20, "exact": False}}
    one = case("mlp-64", 1.0, {}, memory=memory, memory_predicted=3 << 20)
    assert "does not let a process reset" in report({"machine": MACHINE, "cases": [one]})


def test_the_mean_is_geometric_over_the_ratios_that_there_are():
    assert geometric_mean([{"ratio": 1.0}, {"ratio": 4.0}, {"ratio": None}]) == pytest.approx(2.0)
    assert geometric_mean([]) is None


def test_without_peers_there_is_no_ratio():
    text = report({"machine": MACHINE, "cases": [case("mlp-64", 1.0, {})]})
    assert "| mlp-64 | 1.000 (1.000-2.000) |  |" in text
    assert "geometric" not in text
