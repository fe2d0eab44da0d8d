"""Shapes, counts and JSON of random networks agree with ONNX's own inference and with what ONNX Runtime returns."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import given

from nnspec.compile import export_model, initial_weights
from nnspec.ir import Network
from nnspec.summary import summarize
from tests.properties.specs import INPUTS, SYMBOLIC, bounded, fixed, networks

BATCH = 2


def exported(network: Network) -> onnx.ModelProto:
    proto = ir.to_proto(export_model(network, initial_weights(network)))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def inferred(proto: onnx.ModelProto, sizes: dict[str, int]) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes that ONNX infers from the inputs' shapes alone; None for a dim that it does not know."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for value in bare.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                symbol = dim.dim_param
                dim.dim_value = BATCH if symbol == "batch" else eval(symbol, {}, sizes)
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    return {
        v.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim)
        for v in (*found.graph.value_info, *found.graph.output)
        if v.type.tensor_type.HasField("shape")
    }


def check(network: Network, sizes: dict[str, int]) -> None:
    proto = exported(network)
    public = {o.value: o.name for o in network.outputs}
    shapes = inferred(proto, sizes)
    for name, type_ in network.types().items():
        wanted = (BATCH,) * type_.batch + fixed(type_, sizes)
        for known in {name, public.get(name, name)} & shapes.keys():
            assert len(shapes[known]) == len(wanted), known
            assert all(a is None or a == b for a, b in zip(shapes[known], wanted, strict=True)), (
                known,
                shapes[known],
                wanted,
            )
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feed = {i.name: rng.standard_normal((BATCH, *fixed(i.type, sizes)), np.float32) for i in network.inputs}
    types = network.types()
    for output, result in zip(network.outputs, session.run([o.name for o in network.outputs], feed), strict=True):
        type_ = types[output.value]
        assert result.shape == (BATCH,) * type_.batch + fixed(type_, sizes), output.name


@bounded(100)
@given(networks(INPUTS))
def test_fixed_sizes(network: Network) -> None:
    check(network, {})


@bounded(60)
@given(networks(SYMBOLIC))
def test_symbolic_sizes(network: Network) -> None:
    for sizes in ({"H": 24, "W": 31, "T": 17}, {"H": 37, "W": 26, "T": 30}):
        check(network, sizes)


@bounded(60)
@given(networks(INPUTS))
def test_counts_and_json(network: Network) -> None:
    proto = exported(network)
    counts = summarize(network).counts
    assert {i.name: tuple(i.dims) for i in proto.graph.initializer} == {w.name: w.shape for w in network.weights}
    assert sum(int(np.prod(i.dims)) for i in proto.graph.initializer) == counts.parameters + counts.buffers
    assert Network.from_json(network.to_json()) == network
