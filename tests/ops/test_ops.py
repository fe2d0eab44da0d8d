"""The graph builder: types and shapes as ONNX infers them, symbols, shape arithmetic, subgraphs."""

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest

from nnspec.ops import Ops, dims_of

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def graph(dtype=FLOAT, **inputs):
    """Return the builder of a new graph, and its inputs."""
    values = [ir.Value(name=n, type=ir.TensorType(dtype), shape=ir.Shape(d)) for n, d in inputs.items()]
    return Ops(ir.Graph(values, [], nodes=[], opset_imports={"": 21}, name="g")), *values


CASES = {
    "elementwise": lambda op, x: op.Mul(op.Relu(x), 0.5),
    "broadcast": lambda op, x: op.Add(x, op.constant(np.zeros((6, 1), np.float32))),
    "compare": lambda op, x: op.Where(op.Greater(x, 0.0), x, op.Neg(x)),
    "cast": lambda op, x: op.Cast(x, to=FLOAT),
    "convolution": lambda op, x: op.Conv(x, op.constant(np.zeros((5, 3, 3, 2), np.float32)), strides=[2, 1]),
    "pooling": lambda op, x: op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, outputs=2)[0],
    "reduction": lambda op, x: op.ReduceSum(x, [1, -1], keepdims=0),
    "softmax": lambda op, x: op.Softmax(x, axis=1),
    "transposition": lambda op, x: op.Transpose(x, perm=[0, 2, 3, 1]),
    "product": lambda op, x: op.MatMul(x, op.constant(np.zeros((7, 2), np.float32))),
    "splitting": lambda op, x: op.Split(x, [1, 2], axis=1, outputs=2)[1],
    "slicing": lambda op, x: op.Slice(x, [1], [-1], [2], [2]),
    "reshape": lambda op, x: op.Reshape(x, [0, -1]),
    "flatten": lambda op, x: op.Flatten(x),
    "gather": lambda op, x: op.Gather(x, [0, 2], axis=1),
    "pad": lambda op, x: op.Pad(x, [0, 0, 1, 2, 0, 0, 3, 0]),
    "resize": lambda op, x: op.Resize(x, None, np.array([1, 1, 2, 2], np.float32)),
    "one-hot": lambda op, x: op.OneHot(op.ArgMax(x, axis=1, keepdims=0), op.constant(4), np.array([0, 1], np.float32)),
    "top": lambda op, x: op.TopK(x, [2], axis=1, outputs=2)[0],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dims", [(2, 3, 6, 7), ("batch", 3, 6, 7)], ids=["static", "batch"])
def test_types_and_shapes_are_those_of_onnx(name: str, dims: tuple[int | str, ...]) -> None:
    op, x = graph(x=dims)
    y = CASES[name](op, x)
    found = y.dtype, dims_of(y)
    op.graph.outputs.append(op.Identity(y))
    proto = ir.to_proto(ir.Model(op.graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    del proto.graph.value_info[:]
    proto.graph.output[0].type.CopyFrom(onnx.TypeProto())
    tensor = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph.output[0].type.tensor_type
    expected = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    assert found[0] == tensor.elem_type
    for mine, theirs in zip(found[1], expected, strict=True):
        # ONNX makes up names for what it does not know.
        assert mine == theirs or (isinstance(theirs, str) and theirs.startswith("unk__"))


def test_a_symbol_meets_numbers() -> None:
    op, x, y, z = graph(x=["batch", 1, 3], y=["batch", 4, 1], z=["other", 1, 1])
    assert dims_of(op.Add(x, y)) == ("batch", 4, 3)
    assert dims_of(op.Add(x, z)) == (None, 1, 3)
    assert dims_of(op.Add(x, np.zeros((5, 1, 3), np.float32))) == (5, 1, 3)


def test_shapes_that_do_not_broadcast() -> None:
    op, x, y = graph(x=[2, 3], y=[2, 4])
    with pytest.raises(ValueError, match=r"Add: shapes \(2, 3\), \(2, 4\) do not broadcast"):
        op.Add(x, y)


def test_windows_over_symbolic_images_have_names() -> None:
    op, x = graph(x=["batch", 3, "H", "W"])
    weight = np.zeros((4, 3, 3, 3), np.float32)
    assert dims_of(op.Conv(x, weight, pads=[1, 1, 1, 1])) == ("batch", 4, "H", "W")
    strided = op.Conv(x, weight, strides=[2, 2])
    assert dims_of(strided) == ("batch", 4, "floor((H - 3)/2) + 1", "floor((W - 3)/2) + 1")
    assert dims_of(op.Add(strided, op.Conv(x, weight, strides=[2, 2]))) == dims_of(strided)


def test_shape_arithmetic_keeps_what_is_known() -> None:
    op, x = graph(x=["batch", 6, 8])
    shape = op.Shape(x)
    batch = op.Gather(shape, op.constant(0))
    rows = op.Mul(batch, op.constant(6))
    assert dims_of(op.Reshape(x, op.Concat(op.Unsqueeze(rows, [0]), [8], axis=0))) == ("6*batch", 8)
    assert dims_of(op.Reshape(x, op.Concat(op.Slice(shape, [0], [1]), [-1], axis=0))) == ("batch", 48)
    assert dims_of(op.Reshape(x, op.Concat([-1], op.Slice(shape, [2], [3]), axis=0))) == ("6*batch", 8)
    assert dims_of(op.Expand(op.constant(1.0), shape)) == ("batch", 6, 8)
    assert dims_of(op.ConstantOfShape(op.Slice(shape, [0], [2]))) == ("batch", 6)


def test_counting_to_a_size_gives_as_many() -> None:
    op, x = graph(x=["batch", 6, 8])
    size = op.Squeeze(op.Shape(x, start=0, end=1), [0])
    assert dims_of(op.Range(0, size, 1)) == ("batch",)
    assert dims_of(op.Range(0, op.Mul(size, 3), 1)) == ("3*batch",)
    assert dims_of(op.Range(0, 5, 1)) == (5,)
    assert dims_of(op.Range(0, -5, 1)) == (0,)
    assert dims_of(op.Range(1, size, 1)) == (None,)
    assert dims_of(op.Range(0, size, 2)) == (None,)


def test_known_shapes_become_constants() -> None:
    op, x = graph(x=[2, 6, 8])
    for value, expected in (
        (op.Shape(x), [2, 6, 8]),
        (op.Size(x), 96),
        (op.Div(op.Mul(op.Shape(x, start=1), [3, 1]), [2, -3]), [9, -2]),
        (op.Mod(op.Neg(op.Shape(x)), [4, -4, 5]), [2, -2, 2]),
        (op.ReduceProd(op.Gather(op.Shape(x), [0, -1]), keepdims=0), 16),
    ):
        assert value.producer().op_type == "Constant"
        np.testing.assert_array_equal(value.const_value.numpy(), expected)
    assert op.Mod(op.Shape(x), [4, -4, 5], fmod=1).producer().op_type == "Mod", "the sign is the dividend's"


def test_constants() -> None:
    op, x = graph(ir.DataType.FLOAT16, x=[3])
    assert op.constant([1, 2]) is op.constant([1, 2])
    assert op.constant([]).dtype == INT64
    assert op.constant(1.0).dtype == FLOAT
    assert op.constant(1).dtype == INT64
    assert op.constant(1.0) is not op.constant(1.0, ir.DataType.FLOAT16)
    scaled = op.Mul(x, 0.5)
    assert scaled.dtype == scaled.producer().inputs[1].dtype == ir.DataType.FLOAT16


def test_attributes_take_the_type_of_the_operator() -> None:
    op, x = graph(x=[3])
    attributes = op.LeakyRelu(x, alpha=1).producer().attributes
    assert attributes["alpha"].type == ir.AttributeType.FLOAT
    with pytest.raises(TypeError, match="LeakyRelu has no attribute 'slope'; it has alpha"):
        op.LeakyRelu(x, slope=1)


def test_equal_nodes_are_shared_on_request_but_never_random_ones() -> None:
    op, x = graph(x=[3])
    assert op.shared("ReduceSum", [x], {"keepdims": 0}) is op.shared("ReduceSum", [x], {"keepdims": 0})
    assert op.shared("ReduceSum", [x], {"keepdims": 0}) is not op.shared("ReduceSum", [x], {"keepdims": 1})
    assert op.shared("RandomNormalLike", [x]) is not op.shared("RandomNormalLike", [x])
    assert op.Exp(x) is not op.Exp(x)


def test_pruning_leaves_what_is_used() -> None:
    op, x = graph(x=[3])
    before = op.Exp(x)
    start = len(op.graph)
    kept = op.Mul(op.Sin(x), 2.0)
    op.shared("Cos", [op.Neg(x)])
    op.prune(start, keep=[kept])
    assert [n.op_type for n in op.graph] == ["Exp", "Sin", "Constant", "Mul"]
    assert before.producer() is not None
    again = op.shared("Cos", [op.shared("Neg", [x])])
    assert again.producer().graph is op.graph


def test_subgraphs() -> None:
    op, x, h = graph(x=["T", "batch", 4], h=["batch", 4])
    bodies = []
    for _ in range(2):
        body = op.subgraph([("state", FLOAT, ("batch", 4)), ("step", FLOAT, ("batch", 4))])
        state, step = body.graph.inputs
        after = body.Add(body.Mul(state, op.constant(np.float32(0.5))), step)
        body.graph.outputs.extend([after, body.ReduceSum(after, [1], keepdims=0)])
        last, sums = op.Scan(h, x, body=body.graph, num_scan_inputs=1, outputs=2)
        assert dims_of(last) == ("batch", 4)
        assert dims_of(sums) == ("T", "batch")
        bodies.append(body.graph)
    names = [v.name for b in bodies for v in (*b.inputs, *(o for n in b for o in n.outputs))]
    names += [o.name for n in op.graph for o in n.outputs]
    assert len(set(names)) == len(names)
    op.graph.outputs.extend([last, sums])
    onnx.checker.check_model(ir.to_proto(ir.Model(op.graph, ir_version=10)), full_check=True)


def test_branches() -> None:
    op, x = graph(x=["batch", 4])
    branches = []
    for name in ("Exp", "Neg"):
        branch = op.subgraph([], "branch")
        branch.graph.outputs.append(branch.emit(name, [x]))
        branches.append(branch.graph)
    y = op.If(op.constant(np.bool_(True)), then_branch=branches[0], else_branch=branches[1])
    assert (y.dtype, dims_of(y)) == (FLOAT, ("batch", 4))
