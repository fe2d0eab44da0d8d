"""The grammar of the .nn language and its standard library, as packaged data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

_HERE = Path(__file__).parent


class Tables(TypedDict):
    """The grammar as the parser runs it; see `nnspec_grammar.build` for how nn.lark becomes this.

    - `tokens`: terminals that are not words, as name and regular expression, in matching order.
    - `words`: each keyword with its terminal and what must follow it (a regular expression, perhaps empty).
    - `rules`: the symbol a reduction gives, how many it pops, its action, and the children it hands on:
      an index, an inverted index for a list to splice, or None for an absent optional part.
      Action "=" passes its only child on; action "" makes a list.
    - `start` and `end`: the state in which a start symbol begins and the one in which it is complete.
    - `rows` and `states`: each state is the index of a row from symbol to action: shift or go to n where n >= 0,
      reduce by rule ~n otherwise.
    """

    tokens: list[tuple[str, str]]
    words: dict[str, tuple[str, str]]
    rules: list[tuple[str, int, str, list[int | None]]]
    start: dict[str, int]
    end: dict[str, int]
    rows: list[dict[str, int]]
    states: list[int]


def grammar() -> str:
    """Return the text of nn.lark."""
    return (_HERE / "nn.lark").read_text(encoding="utf-8")


def tables() -> Tables:
    """Return the parser tables of nn.lark."""
    loaded: Tables = json.loads((_HERE / "nn.json").read_text(encoding="utf-8"))
    return loaded
