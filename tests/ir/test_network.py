"""The IR as a contract: JSON round trip, JSON Schema, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from nnspec.compile import compile_network
from nnspec.ir import Network, json_schema, registry

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.nn"))
LENET = Path(__file__).parents[2] / "examples" / "lenet5.nn"


def _network(path: Path) -> Network:
    from nnspec.compile import read_source
    from nnspec.elaborate import load_module

    module = load_module(read_source(path))
    return compile_network(path, next(iter(module.networks))).network


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_round_trip_and_schema(path: Path) -> None:
    network = _network(path)
    text = network.to_json()
    assert Network.from_json(text) == network
    assert Network.from_json(text).to_json() == text
    jsonschema.validate(json.loads(text), json_schema())


def test_every_layer_is_in_the_schema() -> None:
    kinds = {
        d["properties"]["kind"]["const"]
        for d in json_schema()["$defs"].values()
        if "const" in d.get("properties", {}).get("kind", {})
    }
    assert set(registry()) <= kinds


def _plain() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_network(LENET).to_json())
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n["nodes"].reverse(), "nothing before it gives"),
        (lambda n: n["nodes"][0]["weights"].update(weight="nowhere"), "does not hold"),
        (lambda n: n["weights"].append(n["weights"][0]), "two weights have one name"),
        (lambda n: n["nodes"].append(n["nodes"][-1]), "two values are called"),
        (lambda n: n["outputs"][0].update(value="nowhere"), "given by nothing"),
        (lambda n: n["nodes"][0]["layer"].update(kind="nolayer"), "unknown layer kind"),
        (lambda n: n["nodes"][0]["layer"].update(filters=0), "greater than or equal to 1"),
        (lambda n: n["nodes"][0]["layer"].update(fliters=3), "Extra inputs"),
        (lambda n: n["inputs"][0]["type"].update(shape=["H /"]), "not a dim"),
        (lambda n: n.update(surplus=1), "Extra inputs"),
        (lambda n: n.update(version=2), "Input should be 1"),
    ],
)
def test_what_is_refused(change: Any, message: str) -> None:
    plain = _plain()
    change(plain)
    with pytest.raises(ValidationError, match=message):
        Network.from_json(json.dumps(plain))


def test_networks_are_frozen() -> None:
    network = _network(LENET)
    with pytest.raises(ValidationError, match="frozen"):
        network.name = "other"  # type: ignore[misc]
