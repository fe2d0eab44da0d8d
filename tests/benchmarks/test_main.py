"""The command line: what it writes, and its exit status."""

from __future__ import annotations

import json

import jsonschema
import nnspec_runtime.session
import pytest

from tests.benchmarks import __main__ as command
from tests.benchmarks.process import Failure

from .test_measure import Fake

POSITIVE = {"type": "number", "exclusiveMinimum": 0}
# What `--json` promises; further keys may stand beside these.
SCHEMA = {
    "type": "object",
    "required": ["machine", "cases"],
    "properties": {
        "machine": {"type": "object", "required": ["cpu", "threads", "python", "versions"]},
        "cases": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["case", "nnspec_ms", "peers", "ratio"],
                "properties": {
                    "case": {"type": "string"},
                    "nnspec_ms": POSITIVE,
                    "peers": {
                        "type": "object",
                        "required": ["torch-eager", "torch-compile", "jax"],
                        "additionalProperties": POSITIVE,
                    },
                    "ratio": POSITIVE,
                },
            },
        },
    },
}


def starter(**by_framework):
    """Frameworks that are one millisecond slower each, but for what is given of some."""

    def start(framework, case, setup, mode):
        settings = by_framework.get(framework.replace("-", "_"), {})
        if isinstance(settings, str):
            raise Failure(settings)
        order = ["nnspec", "jax", "torch-eager", "torch-compile"]
        return Fake([], framework, mode, **{"ms": 1.0 + order.index(framework), **settings})

    return start


def run(tmp_path, *arguments, **by_framework):
    """Return exit status, the JSON that was written, and the tables."""
    files = tmp_path / "found.json", tmp_path / "found.md"
    given = ["--only", "mlp-64-adam", "--no-summary", "--rounds", "2", "--seconds", "0.01"]
    given += ["--json", str(files[0]), "--markdown", str(files[1])]
    status = command.main([*given, *arguments], starter(**by_framework))
    return status, json.loads(files[0].read_text()), files[1].read_text()


def test_the_file_holds_what_is_promised(tmp_path, capsys):
    status, found, tables = run(tmp_path)
    jsonschema.validate(found, SCHEMA)
    case = found["cases"][0]
    assert status == 0
    assert case["case"] == "mlp-64-adam"
    assert case["ratio"] == pytest.approx(min(case["peers"].values()) / case["nnspec_ms"])
    assert "| mlp-64-adam | 1.000 (1.000-1.000) |" in tables
    assert "2.00x  yes" in capsys.readouterr().out


def test_exit_status_1_where_a_case_does_not_compute_the_same(tmp_path, capsys):
    status, found, tables = run(tmp_path, jax={"loss": 0.6})
    assert status == 1
    assert found["cases"][0]["same"] is False
    assert "`mlp-64-adam` does not compute the same thing." in tables
    assert "  NO" in capsys.readouterr().out


def test_exit_status_1_where_nnspec_fails(tmp_path, capsys):
    status, found, tables = run(tmp_path, nnspec="no such kernel")
    assert status == 1
    assert found["cases"][0]["error"] == "no such kernel"
    assert set(SCHEMA["properties"]["cases"]["items"]["required"]) <= set(found["cases"][0])
    assert "`mlp-64-adam` failed: no such kernel" in tables


def test_a_peer_that_fails_is_named_with_its_reason(tmp_path, capsys):
    status, found, tables = run(tmp_path, torch_compile="InductorError: no LSTM")
    assert status == 0
    assert "torch-compile" not in found["cases"][0]["peers"]
    assert found["cases"][0]["absent"] == {"torch-compile": "InductorError: no LSTM"}
    assert "fails[^1]" in tables
    assert "[^1]: InductorError: no LSTM" in tables
    assert "torch-compile fails: InductorError: no LSTM" in capsys.readouterr().out


def test_memory_alone(tmp_path, capsys):
    status, found, tables = run(tmp_path, "--memory")
    assert status == 0
    assert found["cases"][0]["ratio"] is None
    assert found["cases"][0]["memory"]["nnspec"] == {"process": 100 << 20, "training": 1 << 20, "exact": True}
    assert "| mlp-64-adam | 1.0 (100) |" in tables
    parameters = 64 * 64 + 64 + 64 * 10 + 10
    assert found["cases"][0]["memory_predicted"] > 2 * 3 * 4 * parameters  # two sets of weights and moments
    assert "Milliseconds" not in tables


def test_no_memory(tmp_path, capsys):
    _, found, tables = run(tmp_path, "--no-memory")
    assert "memory" not in found["cases"][0]
    assert "MiB" not in tables


def test_without_a_gpu_one_line_says_so_and_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nnspec_runtime.session, "why_no_cuda", lambda: "this machine has no NVIDIA driver")
    file = tmp_path / "found.json"
    assert command.main(["--gpu", "--json", str(file)], starter()) == 0
    assert capsys.readouterr().out == "no GPU here: this machine has no NVIDIA driver; nothing was measured\n"
    assert not file.exists()


@pytest.mark.parametrize("arguments", [["--only", "no-such-case"], ["--peers", "abacus"]])
def test_exit_status_2_for_what_is_unknown(arguments, capsys):
    assert command.main(arguments, starter()) == 2
    assert capsys.readouterr().err == f"unknown: {arguments[1]}\n"
