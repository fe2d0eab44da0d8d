"""Rules that end training early. The trainer follows them; no graph knows of them."""

from __future__ import annotations

from nnspec.recipe.base import AtLeast, Positive, Stop


class Patience(Stop, keyword="patience"):
    """Stop when nothing gets better: `stop = patience(5, metric = accuracy)`; the best weights are kept.

    The metric is that of the validation data, or of the training data where there is none.
    """

    epochs: Positive
    """How many epochs in a row may bring no improvement."""
    metric: str = "loss"
    """`loss`, or the name of a metric."""
    min_delta: AtLeast = 0.0
    """The least change that counts as an improvement."""
