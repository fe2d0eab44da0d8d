"""Specs that would take forever, or all memory, end in one diagnostic soon."""

from __future__ import annotations

import pytest

from nnspec.compile import check_file, compile_network
from nnspec.diagnostics import Code, SpecError
from nnspec.source import Source


def network(body: str, before: str = "") -> Source:
    return Source("spec.nn", f"{before}\nnetwork N {{\n  input x: [4]\n{body}\n}}")


DOUBLING = "block b30 on x { return x -> relu }\n" + "\n".join(
    f"block b{i} on x {{ return (x -> b{i + 1}) + (x -> b{i + 1}) }}" for i in range(30)
)
NESTED = "block b300 on x { return x -> relu }\n" + "\n".join(
    f"block b{i} on x {{ return x -> b{i + 1} }}" for i in range(300)
)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (network("for i in range(100000) { for j in range(100000) { y = 3 } }\noutput y = x"), Code.TOO_LARGE),
        (network("output y = x -> ((relu * 0) * 100000) * 100000"), Code.TOO_LARGE),
        (network("y = x -> relu\nfor i in range(100000) { y = y -> relu }\noutput z = y"), Code.TOO_LARGE),
        (network("output y = x -> b0", DOUBLING), Code.TOO_LARGE),
        (network("output y = x -> b0", NESTED), Code.CYCLE),
        (network("output y = x -> (dense(100000000) -> dense(4)) * 500"), Code.TOO_LARGE),
    ],
    ids=["loops", "empty repetition", "layers", "doubling blocks", "nested blocks", "weights"],
)
def test_it_ends(source: Source, code: Code) -> None:
    found = check_file(source, limit=1000)
    assert [d.code for d in found] == [code]


def test_the_limit_can_be_raised() -> None:
    source = network("output y = x -> relu * 200")
    with pytest.raises(SpecError, match="--limit"):
        compile_network(source, limit=100)
    assert len(compile_network(source, limit=200).network.nodes) == 200


def test_symbolic_sizes_stay_small() -> None:
    lines = ["a0 = s.size + s.shape[0] + s.shape[1] + 1", *(f"a{i + 1} = a{i} * a{i}" for i in range(12))]
    found = check_file(network("input s: [H, W]\n" + "\n".join(lines) + "\noutput y = s -> repeat(a12)"))
    assert [d.code for d in found if d.severity == "error"] == [Code.ARITHMETIC]


def test_nested_lists_stay_small() -> None:
    lines = ["a0 = [1, 2]", *(f"a{i + 1} = [{', '.join([f'a{i}'] * 10)}]" for i in range(12))]
    found = check_file(network("\n".join(lines) + "\noutput y = x * a12"))
    assert [d.code for d in found if d.severity == "error"] == [Code.WRONG_TYPE]
