"""Which operators gradient graphs are made of: such as ONNX Runtime has on its CUDA provider too."""

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.autodiff import differentiate
from nnspec.ops import Ops
from tests.autodiff import cases as cases
from tests.autodiff.check import CASES, Case, _declare

ON_CUDA = frozenset(
    """Abs Add ArgMax Cast Compress Concat Constant Conv ConvTranspose Cos CumSum DepthToSpace Div Einsum Equal Erf Exp
    Expand Floor Gather GatherElements GatherND Gemm Greater GreaterOrEqual HardSigmoid Identity
    Less LessOrEqual Log LogSoftmax
    MatMul Max Min Mul Neg NonZero OneHot Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceMean ReduceProd ReduceSum
    Relu Reshape Resize ReverseSequence Scan ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice Softmax
    Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Transpose Trilu Unsqueeze Where""".split()  # noqa: SIM905
)
"""Kernels of ONNX Runtime 1.31's CUDA provider at opset 21; Shape, Size, Range work on the host there."""
FORWARD_ON_CPU_ALONE = {"Cosh": {"Sinh"}}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operators_run_on_both_providers(case: Case) -> None:
    values = [_declare(i, a, "static", np.float32) for i, a in enumerate(case.inputs)]
    ops = Ops(ir.Graph(values, [], nodes=[], opset_imports={"": case.opset}), case.opset)
    made = case.build(ops, *values)
    start = len(ops.graph)
    for out in made if isinstance(made, tuple | list) else [made]:
        if out.dtype == ir.DataType.FLOAT:
            differentiate(ops, out, [values[i] for i in case.wrt])
    emitted = [n for node in list(ops.graph)[start:] for n in (node, *_inner(node))]
    assert {n.op_type for n in emitted} <= ON_CUDA | FORWARD_ON_CPU_ALONE.get(case.op, set())
    for node in emitted:
        assert not any(v.dtype == ir.DataType.DOUBLE for v in node.outputs), node
        # Only pads that the graph computes need places, which are integers, to be padded: on the host then.
        if node.op_type == "Pad" and "from outside" not in case.label:
            assert node.inputs[0].dtype == ir.DataType.FLOAT, "CUDA pads no integers"


def _inner(node):
    return list(node.attributes["body"].as_graph()) if "body" in node.attributes else []
