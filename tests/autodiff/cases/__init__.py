"""The cases of every rule, one module per family as in `nnspec/autodiff/rules`; importing them registers them."""

from tests.autodiff.cases import (
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
