"""Gradients of ONNX graphs, as ONNX graphs.

`differentiate` appends gradient nodes to a graph under construction; `gradient` extends a whole model. Rules live in
`rules`, one file per family of operators.
"""

from nnspec.autodiff import rules as rules
from nnspec.autodiff.driver import differentiate
from nnspec.autodiff.errors import GradientError
from nnspec.autodiff.model import gradient
from nnspec.autodiff.registry import GRADIENTS, ZERO

__all__ = ["GRADIENTS", "ZERO", "GradientError", "differentiate", "gradient"]
