"""Whatever goes wrong is told in one sentence, with the right status."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

import nnspec.compile
from nnspec.cli import COMMANDS, failures


def process(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnspec", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_no_command_is_wrong_usage(run):
    ran = run("sumary")
    assert ran.status == 2
    assert "there is no command 'sumary': did you mean `summary`?" in ran.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    ran = run(name, "--help")
    assert ran.status == 0
    assert f"nnspec {name}" in ran.out


def test_help_lists_every_command(run):
    out = run("--help").out
    assert [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()] == list(COMMANDS)


def test_version(run):
    assert run("--version").out == f"nnspec {nnspec.__version__}\n"


def test_a_folder_is_no_spec(run, tmp_path):
    ran = run("summary", tmp_path)
    assert (ran.status, ran.err) == (1, f"error: {tmp_path} cannot be read: Is a directory\n")


def test_bytes_are_no_spec(run, tmp_path):
    path = tmp_path / "x.nn"
    path.write_bytes(b"\xff\xfe\x00network")
    ran = run("summary", path)
    assert (ran.status, ran.err) == (1, f"error: {path} is not UTF-8 text\n")


def test_a_file_that_may_not_be_read(run, spec, monkeypatch):
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    ran = run("check", spec)
    assert (ran.status, ran.err) == (1, f"error: {spec} cannot be read: Permission denied\n")


def test_an_interrupt_is_no_traceback(run, spec, monkeypatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nnspec.compile, "compile_network", interrupt)
    ran = run("summary", spec)
    assert (ran.status, ran.err) == (130, "\ninterrupted\n")


def test_a_mistake_of_our_own_is_told_apart(run, spec, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(nnspec.compile, "compile_network", fail)
    ran = run("summary", spec)
    assert ran.status == 70
    assert ran.err.startswith("error: nnspec itself failed: ZeroDivisionError: division by zero\n")
    monkeypatch.setenv("NNSPEC_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run("summary", spec)


def test_a_closed_pipe_is_quiet(spec):
    reader = subprocess.Popen(
        [sys.executable, "-m", "nnspec", "layers"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stderr is not None
    with reader:
        reader.stdout.close()
        assert reader.stderr.read() == ""
        assert reader.wait() == 1


def test_a_process_ends_with_its_status(tmp_path):
    path = tmp_path / "bad.nn"
    path.write_text("network A { input x: [3]\n output y = x -> dens(2) }\n")
    ran = process("check", path)
    assert ran.returncode == 1
    assert "\x1b[" not in ran.stderr
    assert "no layer is called `dens`" in ran.stderr
    assert process("summary").returncode == 2


def test_an_output_without_the_character_shows_its_escape(tmp_path):
    ran = process("summary", tmp_path / "sch\u00f6n.nn", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ran.returncode == 1
    assert ran.stderr.endswith("sch\\xf6n.nn\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals(monkeypatch, variables, colored):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert failures.has_color(Terminal()) is colored
    assert not failures.has_color(io.StringIO())


def test_every_command_has_a_case():
    sources = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in COMMANDS if f"def test_{name}_" not in sources] == []
