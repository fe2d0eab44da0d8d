"""layers and schema: what the language knows, read off the classes."""

from __future__ import annotations

import json

import pytest

from nnspec.initializers import NAMED
from nnspec.ir import Network, registry
from nnspec.recipe import registry as settings
from nnspec.reference import entries


def test_layers_names_everything(run):
    ran = run("layers")
    assert (ran.status, ran.err) == (0, "")
    listed = {line.split("(")[0].strip() for line in ran.out.splitlines() if line.startswith("  ") and line[2] != " "}
    assert listed >= {*registry(), *settings(), *NAMED, "lstm", "gru"}


def test_layers_explains_one(run):
    out = run("layers", "conv").out
    assert out.startswith("conv(filters, kernel, stride = 1, pad = 0, ")
    assert "  pad: integer >= 0 or same or valid or size, 0 by default\n      Zeros around the image: " in out
    assert "init = he_normal" in out
    assert "y[f, p] = bias[f] + sum" in out


def test_layers_explains_all_meanings_of_a_name(run):
    out = run("layers", "constant").out
    assert "Setting of a train block: schedule" in out
    assert "Initialisers" in out


def test_layers_suggests_the_nearest(run):
    ran = run("layers", "covn")
    assert ran.status == 1
    assert "there is no layer `covn`; did you mean `conv`?" in ran.err


@pytest.mark.parametrize("entry", [e for e in entries() if not e.family.startswith("Init")], ids=lambda e: e.name)
def test_every_name_is_documented(entry):
    assert entry.text, f"{entry.name} has no docstring"
    if "standard library" not in entry.family:
        assert [a.name for a in entry.arguments if not a.meaning] == []


def test_schema_is_json_schema(run):
    schema = json.loads(run("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Network.model_fields)
    assert len(schema["$defs"]["Layer"]["oneOf"]) == len(registry())
