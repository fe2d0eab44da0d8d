"""The wheel holds three packages and their data, and nothing else at the top."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_top_level_names(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {name for name in names if not name.endswith(".dist-info")}
    assert packages == {"nnspec", "nnspec_grammar", "nnspec_runtime"}


def test_data_files_are_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("nnspec", "grammar/nnspec_grammar", "runtime/nnspec_runtime"):
        folder = ROOT / package
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{folder.name}/{path.relative_to(folder).as_posix()}" in names
    assert {
        "nnspec_grammar/nn.lark",
        "nnspec_grammar/nn.json",
        "nnspec_grammar/std/lstm.nn",
        "nnspec/py.typed",
    } <= names


def test_only_prefixed_names_can_be_imported(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import sys; from importlib.util import find_spec\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "names = 'nnspec nnspec_grammar nnspec_runtime runtime grammar tests examples'.split()\n"
        "print([name for name in names if find_spec(name) is not None])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "['nnspec', 'nnspec_grammar', 'nnspec_runtime']\n"


def test_the_command_is_declared(wheel):
    archive = zipfile.ZipFile(wheel)
    (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "nnspec = nnspec.cli:main" in archive.read(entry).decode()
