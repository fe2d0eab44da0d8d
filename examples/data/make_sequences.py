"""Make the sequences of the recurrent examples: `python examples/data/make_sequences.py TASK FILE.npz [--seed N]`.

Every task is a function of a generator of random numbers and the number of samples; see their docstrings. The same seed
gives the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]

# Words of slot filling, by what they are.
PADDING, ARRIVE, LEAVE, ON = 0, 1, 2, 3
FILLERS = range(4, 12)
CITIES = range(12, 24)
MONTHS = range(24, 36)
DAYS = range(36, 40)
OTHER, ARRIVING, LEAVING, DESTINATION, DEPARTURE, TIME = range(6)

# Words of sentiment.
NOT = 1
PRAISE = range(2, 8)
BLAME = range(8, 14)
NEUTRAL = range(14, 30)

ALPHABET = "abcdefghijklmnopqrstuvwxyz ."
SENTENCES = (
    "some gates stay open and remember all.",
    "some gates are shut so that nothing is lost.",
    "the memory of a long sentence is carried on.",
    "the state of a short one is soon forgotten.",
)


def slots(rng: np.random.Generator, count: int) -> Arrays:
    """Ticket requests, a tag for each word: fillers, then trips, each with a verb, a city and perhaps a date."""
    sentences: list[list[tuple[int, int]]] = []
    for _ in range(count):
        words = [(int(rng.choice(FILLERS)), OTHER) for _ in range(rng.integers(0, 4))]
        for leaves in rng.permutation(2)[: rng.integers(1, 3)]:
            words += [(LEAVE, LEAVING), (int(rng.choice(CITIES)), DEPARTURE)] if leaves else []
            words += [] if leaves else [(ARRIVE, ARRIVING), (int(rng.choice(CITIES)), DESTINATION)]
            if rng.random() < 0.5:
                words += [(ON, OTHER), (int(rng.choice(MONTHS)), TIME), (int(rng.choice(DAYS)), TIME)]
        sentences.append(words)
    lengths = np.array([len(s) for s in sentences])
    padded = np.zeros((count, lengths.max(), 2), np.int64)
    for row, words in enumerate(sentences):
        padded[row, : len(words)] = words
    return {"sentence": padded[..., 0], "tag": padded[..., 1], "sentence.lengths": lengths}


def sentiment(rng: np.random.Generator, count: int) -> Arrays:
    """Reviews of neutral words, praise and blame, some of it turned around by `not`; positive where praise prevails."""
    length = 16
    review = np.zeros((count, length), np.int64)
    lengths = np.zeros(count, np.int64)
    positive = np.zeros(count, np.int64)
    for row in range(count):
        score = 0
        while score == 0:
            words: list[int] = []
            score = 0
            size = rng.integers(5, length + 1)
            while len(words) < size - 1:
                if rng.random() < 0.6:
                    words.append(int(rng.choice(NEUTRAL)))
                    continue
                praise, turned = rng.random() < 0.5, rng.random() < 0.4
                words += [NOT] * turned + [int(rng.choice(PRAISE if praise else BLAME))]
                score += 1 if praise != turned else -1
        review[row, : len(words)] = words
        lengths[row], positive[row] = len(words), score > 0
    return {"review": review, "review.lengths": lengths, "positive": positive}


def text(rng: np.random.Generator, count: int, window: int = 10, streams: int = 20) -> Arrays:
    """Sentences in random order, cut into windows; row i of a batch goes on where row i of the last one ended."""
    per_stream = count // streams
    rows = []
    for _ in range(streams):
        whole = ""
        while len(whole) <= per_stream * window:
            whole += SENTENCES[rng.integers(len(SENTENCES))] + " "
        codes = np.array([ALPHABET.index(c) for c in whole[: per_stream * window + 1]])
        rows.append(codes)
    stream = np.stack(rows)
    pieces = stream[:, :-1].reshape(streams, per_stream, window).transpose(1, 0, 2)
    following = stream[:, 1:].reshape(streams, per_stream, window).transpose(1, 0, 2)
    return {"text": pieces.reshape(-1, window), "following": following.reshape(-1, window)}


def adding(rng: np.random.Generator, count: int, steps: int = 100) -> Arrays:
    """Random numbers, two of them marked, one in each half: their sum (Hochreiter and Schmidhuber 1997)."""
    values = rng.random((count, steps), np.float32)
    marks = np.zeros((count, steps), np.float32)
    rows = np.arange(count)
    marks[rows, rng.integers(0, steps // 2, count)] = 1
    marks[rows, rng.integers(steps // 2, steps, count)] = 1
    return {"x": np.stack([values, marks], -1), "sum": (values * marks).sum(1)}


def copying(rng: np.random.Generator, count: int, steps: int = 100, symbols: int = 4) -> Arrays:
    """A symbol, then `steps - 2` steps of noise, then a mark: the symbol is asked for."""
    sequence = rng.integers(symbols, 2 * symbols, (count, steps))
    sequence[:, 0] = rng.integers(0, symbols, count)
    sequence[:, -1] = 2 * symbols
    return {"sequence": sequence, "first": sequence[:, 0].copy()}


TASKS: dict[str, Callable[[np.random.Generator, int], Arrays]] = {
    "slots": slots,
    "sentiment": sentiment,
    "text": text,
    "adding": adding,
    "copying": copying,
}


def make(task: str, count: int, seed: int) -> Arrays:
    """Return a task's arrays, by name."""
    return TASKS[task](np.random.Generator(np.random.PCG64(seed)), count)


def main() -> None:
    """Write a task's arrays to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    np.savez_compressed(options.file, **make(options.task, options.count, options.seed))


if __name__ == "__main__":
    main()
