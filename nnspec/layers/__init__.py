"""Every layer, one family per file. Importing this package registers them all."""

from nnspec.layers import (
    activation,
    conv,
    ctc,
    ctc_decoding,
    dense,
    loss,
    math,
    metric,
    norm,
    pool,
    recurrent,
    reduce,
    sequence,
    shape,
)

__all__ = [
    "activation",
    "conv",
    "ctc",
    "ctc_decoding",
    "dense",
    "loss",
    "math",
    "metric",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "sequence",
    "shape",
]
