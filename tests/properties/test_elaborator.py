"""Whatever a spec says, the compiler answers with a network or with diagnostics, and a network exports."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from hypothesis import given

from nnspec.compile import check_file, compile_network, compile_recipe
from nnspec.diagnostics import SpecError, render
from nnspec.ir import Network
from nnspec.lower import forward_model
from nnspec.source import Source
from tests.properties.specs import EXAMPLES, LIMIT, bounded, calls, mutations


def explained(error: SpecError) -> None:
    assert error.diagnostics
    assert all(d.message and d.labels for d in error.diagnostics)
    assert str(error)


@bounded(200)
@given(mutations(EXAMPLES))
def test_stirred_examples_compile_or_are_explained(source: Source) -> None:
    found = check_file(source, limit=LIMIT)
    assert (render(found) == "") == (not found)
    for compile_it in (compile_network, compile_recipe):
        try:
            compile_it(source, limit=LIMIT)
        except SpecError as error:
            explained(error)


@bounded(250)
@given(calls())
def test_any_call_compiles_or_is_explained(source: Source) -> None:
    try:
        network = compile_network(source, limit=LIMIT).network
    except SpecError as error:
        explained(error)
        return
    assert Network.from_json(network.to_json()) == network
    onnx.checker.check_model(ir.to_proto(forward_model(network)), full_check=True)
