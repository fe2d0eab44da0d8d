"""Make the data of the sequence examples: `python examples/data/make_transductions.py TASK FILE.npz [--seed N]`.

Every task is a function of a generator of random numbers and the number of samples; see their docstrings. The same seed
gives the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]

PADDING, BEGIN, END = 0, 1, 2
"""What a decoder's symbols begin with."""

ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()  # noqa: SIM905
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
NUMBER_WORDS = ["", *ONES, *TENS, "hundred", "thousand", "and"]

TREE_WORDS = {"D": range(1, 4), "A": range(4, 8), "N": range(8, 16), "V": range(16, 22), "of": [22], "with": [23]}
TREE_SYMBOLS = ["", "<", ">", "(S", "(NP", "(VP", "(PP", ")", "D", "A", "N", "V", "P"]

PHONES, BANDS = 8, 16


def padded(rows: Sequence[Sequence[int]], name: str) -> Arrays:
    """Return sequences as one array filled up with padding, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    whole = np.full((len(rows), lengths.max()), PADDING, np.int64)
    for at, row in enumerate(rows):
        whole[at, : len(row)] = row
    return {name: whole, f"{name}.lengths": lengths}


def spoken(rows: Sequence[Sequence[int]], label: str) -> Arrays:
    """Return what a decoder is to say, and what it is fed meanwhile: the same, one step later."""
    feed = padded([[BEGIN, *row] for row in rows], "said")
    return {**feed, label: padded([[*row, END] for row in rows], label)[label]}


def words_of(number: int) -> list[str]:
    """Return a number below ten thousand in words."""
    words = []
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            words += [ONES[number // size], name]
        number %= size
    if words and number:
        words.append("and")
    if number >= 20:
        words.append(TENS[number // 10 - 2])
        number %= 10
        return words + ([ONES[number]] if number else [])
    return words + ([ONES[number]] if number or not words else [])


def numbers(rng: np.random.Generator, count: int, chosen: NDArray[np.int64] | None = None) -> Arrays:
    """Numbers below ten thousand: words, and the digits to say, 3 for a zero to 12 for a nine; no number twice."""
    values = rng.permutation(10_000)[:count] if chosen is None else chosen
    source = [[NUMBER_WORDS.index(w) for w in words_of(int(v))] for v in values]
    return {**padded(source, "words"), **spoken([[3 + int(d) for d in str(v)] for v in values], "digits")}


def trees(rng: np.random.Generator, count: int) -> Arrays:
    """Sentences of a small grammar and their syntactic trees, written in brackets.

    A phrase with `of` belongs to the noun before it, one with `with` to the verb: the words decide about the tree.
    """

    def symbol(text: str) -> int:
        return TREE_SYMBOLS.index(text)

    def word(kind: str, tag: str) -> tuple[list[int], list[int]]:
        return [int(rng.choice(TREE_WORDS[kind]))], [symbol(tag)]

    def node(label: str, *parts: tuple[list[int], list[int]]) -> tuple[list[int], list[int]]:
        said = [s for _, tree in parts for s in tree]
        return [w for words, _ in parts for w in words], [symbol(label), *said, symbol(")")]

    def noun(depth: int) -> tuple[list[int], list[int]]:
        parts = [word("D", "D"), *([word("A", "A")] if rng.random() < 0.4 else []), word("N", "N")]
        if depth and rng.random() < 0.3:
            return node("(NP", *parts, node("(PP", word("of", "P"), noun(depth - 1)))
        return node("(NP", *parts)

    def verb() -> tuple[list[int], list[int]]:
        parts = [word("V", "V"), noun(1)]
        if rng.random() < 0.4:
            parts.append(node("(PP", word("with", "P"), noun(0)))
        return node("(VP", *parts)

    made = [node("(S", noun(1), verb()) for _ in range(count)]
    return {**padded([words for words, _ in made], "words"), **spoken([tree for _, tree in made], "tree")}


def strings(rng: np.random.Generator, count: int) -> Arrays:
    """Strings of three to six out of seven symbols, 3 to 9, to be said again from memory."""
    rows = [(3 + rng.integers(0, 7, rng.integers(3, 7))).tolist() for _ in range(count)]
    return {**padded(rows, "string"), **spoken(rows, "copy")}


def documents(rng: np.random.Generator, count: int) -> Arrays:
    """Documents of two to four sentences of four words; each sentence is about one of six things, in its own words."""
    lengths = rng.integers(2, 5, count)
    words = np.zeros((count, 4, 4), np.int64)
    for row, length in enumerate(lengths):
        for at in range(length):
            subject, tone = rng.integers(0, 6), rng.integers(0, 2)
            words[row, at] = 1 + np.array([subject, 6 + tone, 8 + (subject + tone) % 6, 14 + subject // 2])
    return {"document": words, "document.lengths": lengths, "again": words.copy()}


def phone_table() -> NDArray[np.float32]:
    """Return the spectrum of each phone, two formants, and of silence in the last row."""
    bands = np.arange(BANDS)
    table = np.zeros((PHONES + 1, BANDS), np.float32)
    for phone in range(PHONES):
        for formant in (2 + phone % 4, 8 + 2 * (phone // 4) + 3 * (phone % 2)):
            table[phone] += np.exp(-0.5 * (bands - formant) ** 2)
    return table


def sound(rng: np.random.Generator, phones: Sequence[int], gaps: Sequence[int]) -> NDArray[np.float32]:
    """Return the spectrogram of phones: each of its own length and loudness, silence before some, noise over all."""
    table, frames = phone_table(), []
    shift = rng.integers(-1, 2)
    for phone, gap in zip(phones, gaps, strict=True):
        frames += [table[PHONES]] * gap
        frames += [np.roll(table[phone], shift) * rng.uniform(0.7, 1.3)] * int(rng.integers(2, 5))
    return np.stack(frames) + 0.15 * rng.standard_normal((len(frames), BANDS)).astype(np.float32)


def sounds(rows: Sequence[NDArray[np.float32]], name: str) -> Arrays:
    """Return spectrograms as one array filled up with zeros, and their lengths."""
    lengths = np.array([len(row) for row in rows])
    whole = np.zeros((len(rows), lengths.max(), BANDS), np.float32)
    for at, row in enumerate(rows):
        whole[at, : len(row)] = row
    return {name: whole, f"{name}.lengths": lengths}


def speech(rng: np.random.Generator, count: int) -> Arrays:
    """Spectrograms of two to six phones, and the phones, 1 to 8; one that comes twice has a gap before it."""
    labels, rows = [], []
    for _ in range(count):
        phones = rng.integers(0, PHONES, rng.integers(2, 7)).tolist()
        gaps = [
            int(rng.integers(1, 3)) if i and p == phones[i - 1] else int(rng.integers(0, 2))
            for i, p in enumerate(phones)
        ]
        rows.append(sound(rng, phones, gaps))
        labels.append([1 + p for p in phones])
    return {**sounds(rows, "sound"), **padded(labels, "phones")}


SPOKEN_WORDS = [(0, 5, 2), (5, 0, 2), (2, 5, 0), (3, 6, 1), (6, 3, 1), (1, 6, 3)]
"""Words of three phones; those made of the same phones differ in their order alone."""


def segments(rng: np.random.Generator, count: int) -> Arrays:
    """Spectrograms of single words, and which of six they are, which the network is never told."""
    words = rng.integers(0, len(SPOKEN_WORDS), count)
    rows = [sound(rng, SPOKEN_WORDS[w], [0, 0, 0]) for w in words]
    made = sounds(rows, "segment")
    return {**made, "same": made["segment"], "word": words}


def terms(rng: np.random.Generator, count: int) -> Arrays:
    """Documents of common words, 9 to 40, with one term, 1 to 8, somewhere; the document's topic is the term's."""
    rows, topics = [], []
    for _ in range(count):
        words = rng.integers(9, 41, rng.integers(6, 15)).tolist()
        term = int(rng.integers(1, 9))
        words[rng.integers(0, len(words))] = term
        rows.append(words)
        topics.append((term - 1) // 2)
    return {**padded(rows, "document"), "topic": np.array(topics)}


TASKS: dict[str, Callable[[np.random.Generator, int], Arrays]] = {
    "numbers": numbers,
    "trees": trees,
    "strings": strings,
    "documents": documents,
    "speech": speech,
    "segments": segments,
    "terms": terms,
}


def main() -> None:
    """Write the arrays of one task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="How many samples.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    np.savez_compressed(given.file, **TASKS[given.task](np.random.default_rng(given.seed), given.count))


if __name__ == "__main__":
    main()
