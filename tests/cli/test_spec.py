"""check, summary, compile and fmt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnspec.ir import Network

BAD = """network Bad {
  input image: [1, 4, 4]
  a = image -> conv(8, 5x5)
  output b = image -> dens(3)
}
"""


def test_check_says_ok(run, spec):
    ran = run("check", spec)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{spec}: ok\n"


def test_check_reports_every_error_of_every_file(run, spec, tmp_path):
    bad = tmp_path / "bad.nn"
    bad.write_text(BAD)
    ran = run("check", bad, spec, tmp_path / "missing.nn")
    assert ran.status == 1
    assert "error[shape-mismatch]: a 5x5 kernel does not fit a 4x4 image" in ran.err
    assert "error[unknown-name]: no layer is called `dens`" in ran.err
    assert "did you mean `dense`?" in ran.err
    assert f"error: there is no file {tmp_path / 'missing.nn'}" in ran.err
    assert ran.out == f"{bad}: 2 errors\n{spec}: ok\n"


def test_check_prints_json(run, spec, tmp_path):
    bad = tmp_path / "bad.nn"
    bad.write_text(BAD)
    missing = tmp_path / "missing.nn"
    ran = run("check", bad, spec, missing, "--format", "json")
    assert (ran.status, ran.err) == (1, "")
    found = json.loads(ran.out)
    assert found["files"] == [
        {"file": str(bad), "errors": 2, "warnings": 0},
        {"file": str(spec), "errors": 0, "warnings": 0},
        {"file": str(missing), "errors": 1, "warnings": 0, "problem": f"there is no file {missing}"},
    ]
    kernel = next(d for d in found["diagnostics"] if d["code"] == "shape-mismatch")
    assert set(kernel) == {"severity", "code", "message", "labels", "help", "chain"}
    assert kernel["severity"] == "error"
    place = kernel["labels"][0]
    assert place == {
        "file": str(bad), "line": 3, "column": 24, "end_line": 3, "end_column": 27, "text": "needs at least 5x5",
    }  # fmt: skip


def test_check_covers_every_network_and_train_block_once(run, tmp_path):
    path = tmp_path / "two.nn"
    path.write_text(
        "network A { input x: [3]\n output y = x -> dense(0) }\n"
        "network B { input x: [3]\n output y = x -> dense(2) }\n"
        "train A { target t: int loss = cross_entropy(y, t) optimizer = sgd(0.1) }\n"
        "train B { target t: int loss = cross_entropy(y, u) optimizer = sgd(0.1) }\n"
    )
    found = json.loads(run("check", path, "--format", "json").out)["diagnostics"]
    assert [(d["code"], d["labels"][0]["line"]) for d in found if d["severity"] == "error"] == [
        ("out-of-range", 2),
        ("unknown-name", 6),
    ]


def test_check_leaves_warnings_at_status_0(run, tmp_path):
    path = tmp_path / "unused.nn"
    path.write_text("network A { input x: [3]\n  input z: [3]\n  output y = x -> dense(2) }\n")
    ran = run("check", path)
    assert ran.status == 0
    assert ran.out == f"{path}: 1 warning\n"
    assert "warning[unused]" in ran.err


def test_check_applies_settings_where_they_belong(run, tmp_path):
    path = tmp_path / "two.nn"
    path.write_text(
        "network A(units) { input x: [3]\n output y = x -> dense(units) }\n"
        "network B { input x: [3]\n output y = x -> dense(2) }\n"
    )
    assert run("check", path, "--set", "units=4").status == 0
    assert "the parameter `units` needs a value" in run("check", path).err
    unknown = run("check", path, "--set", "unit=4")
    assert unknown.status == 1
    assert "no network has a parameter `unit`" in unknown.err


def test_summary_prints_a_table(run, spec):
    ran = run("summary", spec)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "Points(at: [2])"
    assert "dense1  dense  [8]             24    16              all" in ran.out
    assert "parameters         42 (all trainable), 168 bytes" in ran.out


def test_summary_json_is_the_contract(run, spec):
    found = json.loads(run("summary", spec, "--format", "json", "--set", "hidden=4").out)
    assert found == {
        "network": "Points",
        "inputs": {"at": [2]},
        "outputs": {"logits": [2]},
        "layers": [
            {"name": "dense1", "kind": "dense", "output": [4], "parameters": 12, "macs": 8,
             "receptive_field": "all", "line": 3},
            {"name": "tanh1", "kind": "tanh", "output": [4], "parameters": 0, "macs": 0,
             "receptive_field": "all", "line": 3},
            {"name": "dense2", "kind": "dense", "output": [2], "parameters": 10, "macs": 8,
             "receptive_field": "all", "line": 3},
        ],
        "parameters": {"trainable": 22, "frozen": 0, "buffers": 0},
        "macs": 16,
        "activation_bytes": 40,
    }  # fmt: skip


def test_summary_html_is_a_page(run, spec):
    ran = run("summary", spec, "--format", "html")
    assert ran.status == 0
    assert ran.out.startswith("<!doctype html>")
    assert "<td>dense1</td><td>dense</td>" in ran.out


def test_summary_asks_which_network(run, tmp_path):
    path = tmp_path / "two.nn"
    path.write_text(
        "network A { input x: [3]\n output y = x -> dense(2) }\nnetwork B { input x: [3]\n output y = x -> relu }\n"
    )
    unclear = run("summary", path)
    assert unclear.status == 1
    assert "declares several networks: A, B" in unclear.err
    assert run("summary", path, "--network", "B").out.startswith("B(x: [3])")
    assert "did you mean `A`?" not in run("summary", path, "--network", "C").err


def test_summary_folds_blocks(run, tmp_path):
    path = tmp_path / "blocks.nn"
    path.write_text(
        "block two(n) on x { return x -> dense(n) -> relu }\nnetwork A { input x: [3]\n output y = x -> two(4) * 2 }\n"
    )
    lines = run("summary", path, "--depth", "1").out.splitlines()
    assert [line.split()[:2] for line in lines[4:6]] == [["two1", "block"], ["two2", "block"]]
    assert lines[6].startswith("---")


def test_summary_raises_the_size_limit(run, tmp_path):
    path = tmp_path / "long.nn"
    path.write_text("network A { input x: [3]\n output y = x -> relu * 50 }\n")
    refused = run("summary", path, "--limit", "49")
    assert refused.status == 1
    assert "error[too-large]" in refused.err
    assert run("summary", path, "--limit", "50").status == 0


@pytest.mark.parametrize(
    "text", ["hidden", "=3", "hidden=", "1x=3", "hid den=3"], ids=["no-value", "no-name", "empty", "digit", "space"]
)
def test_summary_refuses_a_setting_that_is_none(run, spec, text):
    ran = run("summary", spec, "--set", text)
    assert ran.status == 2
    assert "is not NAME=VALUE" in ran.err


def test_summary_explains_a_value_that_does_not_parse(run, spec):
    ran = run("summary", spec, "--set", "hidden=3 +")
    assert ran.status == 1
    assert "error[syntax]" in ran.err


def test_summary_refuses_a_setting_given_twice(run, spec):
    assert "'hidden' is set twice" in run("summary", spec, "--set", "hidden=1", "--set", "hidden=2").err


def test_compile_emits_every_stage(run, spec):
    tree = run("compile", spec, "--emit", "tree")
    assert tree.out.startswith("(network Points")
    network = Network.from_json(run("compile", spec, "--emit", "ir").out)
    assert [w.name for w in network.weights] == ["dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias"]
    forward = run("compile", spec, "--emit", "forward").out
    assert 'Points (float[batch,2] at, float[8,2] "dense1.weight"' in forward
    assert "Gemm <transB: int = 1>" in forward
    gradient = run("compile", spec, "--emit", "gradient").out
    assert '"dense1.weight.grad"' in gradient
    step = run("compile", spec, "--emit", "step").out
    assert '"dense1.weight.next"' in step
    assert '"dense1.weight.grad"' not in step.split("=>")[1].split("{")[0]


def test_compile_needs_a_train_block_for_the_step(run, tmp_path):
    path = tmp_path / "plain.nn"
    path.write_text("network A { input x: [3]\n output y = x -> dense(2) }\n")
    ran = run("compile", path, "--emit", "step")
    assert ran.status == 1
    assert "declares no train block" in ran.err


def test_compile_refuses_an_unknown_stage(run, spec):
    assert run("compile", spec, "--emit", "asm").status == 2


def test_fmt_lays_out_in_place(run, tmp_path):
    path = tmp_path / "ugly.nn"
    path.write_text("network   A{input x:[3]\n output y=x->dense( 2 ) # two\n}\n")
    path.chmod(0o640)
    unchanged = run("fmt", "--check", path)
    assert unchanged.status == 1
    assert f"{path} is not formatted" in unchanged.err
    assert run("fmt", path).status == 0
    text = path.read_text()
    assert "output y = x -> dense(2)" in text
    assert "# two" in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    again = run("fmt", path)
    assert (again.status, again.err) == (0, "")
    assert run("fmt", "--check", path).status == 0


def test_fmt_leaves_what_does_not_parse(run, tmp_path):
    path = tmp_path / "broken.nn"
    path.write_text("network A {\n")
    ran = run("fmt", path)
    assert ran.status == 1
    assert "error[syntax]" in ran.err
    assert path.read_text() == "network A {\n"


def test_fmt_follows_links(run, tmp_path):
    path = tmp_path / "real.nn"
    path.write_text("network   A{input x:[3]\n output y=x->dense(2)}\n")
    link = tmp_path / "link.nn"
    link.symlink_to(path)
    assert run("fmt", link).status == 0
    assert link.is_symlink()
    assert "output y = x" in path.read_text()


def test_every_example_compiles(run):
    examples = sorted(Path(__file__).parents[2].joinpath("examples").rglob("*.nn"))
    assert len(examples) >= 10
    ran = run("check", *examples)
    assert ran.status == 0, ran.err
