"""What an import brings with it, and the names of the public API."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nnspec


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program of its own has loaded at its end."""
    code = f"{program}\nimport sys; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_import_nnspec_is_cheap():
    assert {name.split(".")[0] for name in loaded_by("import nnspec")}.isdisjoint(
        {"pydantic", "numpy", "onnx", "onnx_ir", "onnxruntime", "click", "rich", "lark"}
    )


@pytest.mark.parametrize("module", ["nnspec.compile", "nnspec.summary", "nnspec.recipe", "nnspec.cli.spec"])
def test_the_compiler_needs_no_onnx_before_it_lowers(module):
    found = loaded_by(f"import {module}")
    assert found.isdisjoint({"onnx", "onnx_ir", "onnxruntime", "numpy", "rich", "nnspec_runtime"})


@pytest.mark.parametrize("module", ["nnspec.training", "nnspec.lower", "nnspec.autodiff", "nnspec.export"])
def test_the_compiler_never_loads_the_runtime(module):
    assert loaded_by(f"import {module}").isdisjoint({"onnxruntime", "nnspec_runtime"})


@pytest.mark.parametrize("name", nnspec.__all__)
def test_public_names_are_there(name):
    assert getattr(nnspec, name).__doc__
    assert name in dir(nnspec)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="module 'nnspec' has no attribute 'compiler'"):
        nnspec.compiler  # noqa: B018
