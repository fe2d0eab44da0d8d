"""Averages of loss and metrics over an epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnspec_runtime.program import Figure


class Averages:
    """Sum the batch means of loss and metrics, each weighed by its samples or by the count that the graph gives.

    `outputs` are the scalar outputs to read after each step, in the order in which `add` takes their values:
    the figures, then the counts that some of them are weighed by.
    """

    def __init__(self, figures: Iterable[Figure]) -> None:
        self.figures = tuple(figures)
        named = [figure.output for figure in self.figures] + [f.weight for f in self.figures if f.weight is not None]
        self.outputs: tuple[str, ...] = tuple(dict.fromkeys(named))
        places = {name: place for place, name in enumerate(self.outputs)}
        self._plan = [
            (at, places[figure.output], places[figure.weight] if figure.weight is not None else -1)
            for at, figure in enumerate(self.figures)
        ]
        self.reset()

    def reset(self) -> None:
        """Start a new epoch."""
        self.sums = [0.0] * len(self.figures)
        self.weights = [0.0] * len(self.figures)
        self.samples = 0

    def add(self, values: Sequence[float], rows: int) -> None:
        """Take the values of one batch of `rows` samples. A mean over nothing (weight 0) counts nothing."""
        self.samples += rows
        sums, weights = self.sums, self.weights
        for at, value, weight in self._plan:
            count = rows if weight < 0 else values[weight]
            if count:
                sums[at] += values[value] * count
                weights[at] += count

    def means(self) -> dict[str, float]:
        """Return the weighted mean of each figure by name; 0 where nothing was counted."""
        return {
            figure.name: total / weight if weight else 0.0
            for figure, total, weight in zip(self.figures, self.sums, self.weights, strict=True)
        }

    def snapshot(self) -> dict[str, object]:
        """Return the running sums as plain numbers, for a checkpoint."""
        return {"sums": tuple(self.sums), "weights": tuple(self.weights), "samples": self.samples}

    def restore(self, sums: Sequence[float], weights: Sequence[float], samples: int) -> None:
        """Continue from the sums of `snapshot`."""
        if len(sums) != len(self.figures) or len(weights) != len(self.figures):
            raise ValueError("the running sums belong to other metrics")
        self.sums, self.weights, self.samples = list(sums), list(weights), samples
