"""Build ONNX graphs: every ONNX operator is a method of `Ops`.

`ops.Conv(x, w, b, strides=[2, 2])` appends the node and returns its output value, whose type and shape are known at
once, so that the caller may ask for them. Everything that nnspec emits goes through here.
"""

from nnspec.ops.builder import IR_VERSION, OPSET, Operand, Ops
from nnspec.ops.infer import Dims, dims_of, numbers
from nnspec.ops.target import CUDA, PORTABLE, Target

__all__ = ["CUDA", "IR_VERSION", "OPSET", "PORTABLE", "Dims", "Operand", "Ops", "Target", "dims_of", "numbers"]
