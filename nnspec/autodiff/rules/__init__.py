"""The gradient rules, one module per family of operators; importing them fills the table."""

from nnspec.autodiff.rules import (
    activation,
    arithmetic,
    conv,
    index,
    linear,
    loss,
    normalization,
    pool,
    reduction,
    resize,
    scan,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "conv",
    "index",
    "linear",
    "loss",
    "normalization",
    "pool",
    "reduction",
    "resize",
    "scan",
    "shape",
]
