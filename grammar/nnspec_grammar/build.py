"""Turn nn.lark into nn.json: `python -m nnspec_grammar.build`.

Lark computes the LALR(1) tables; the compiler reads them as data, so that no start of it pays for building them or
for importing lark. A test keeps nn.json equal to what this module makes of nn.lark.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from lark import Lark
from lark.grammar import Rule, Terminal
from lark.lexer import TerminalDef
from lark.utils import logger

from nnspec_grammar import Tables, grammar

START = ["file", "statement"]


class GrammarConflictError(Exception):
    """nn.lark is not LALR(1); the message lists the conflicts."""


def compile_grammar() -> Lark:
    """Return lark's parser of nn.lark, or raise GrammarConflictError where lark had to choose an action."""
    conflicts: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "conflict" in record.getMessage().lower():
                conflicts.append(record.getMessage())

    handlers, level = logger.handlers, logger.level
    logger.handlers = [Collect(logging.DEBUG)]
    logger.setLevel(logging.DEBUG)  # lark tells of shift/reduce conflicts, which it resolves, only here
    try:
        parser = Lark(grammar(), parser="lalr", start=START, maybe_placeholders=True, debug=True)
    finally:
        logger.handlers = handlers
        logger.setLevel(level)
    if conflicts:
        raise GrammarConflictError("\n".join(conflicts))
    return parser


def build_tables() -> Tables:
    """Return the parser tables of nn.lark, numbered in an order that depends on nothing but the text."""
    lark = compile_grammar()
    frontend: Any = lark.parser
    table = frontend.parser._parse_table
    number = {rule: i for i, rule in enumerate(lark.rules)}

    # Lark's states are sets; numbering them as they are reached from the start makes the tables reproducible.
    numbers = {table.start_states[start]: i for i, start in enumerate(START)}
    queue = list(numbers)
    rows: list[dict[str, int]] = []
    for state in queue:
        row: dict[str, int] = {}
        for symbol, (action, argument) in sorted(table.states[state].items(), key=lambda entry: str(entry[0])):
            if str(action) == "Reduce":
                row[str(symbol)] = ~number[argument]
                continue
            if argument not in numbers:
                numbers[argument] = len(queue)
                queue.append(argument)
            row[str(symbol)] = numbers[argument]
        rows.append(row)
    distinct = [row for i, row in enumerate(rows) if row not in rows[:i]]
    words, tokens = _terminals(lark)
    return {
        "tokens": tokens,
        "words": words,
        "rules": [_rule(rule) for rule in lark.rules],
        "start": {start: numbers[table.start_states[start]] for start in START},
        "end": {start: numbers[table.end_states[start]] for start in START},
        "rows": distinct,
        "states": [distinct.index(row) for row in rows],
    }


def _terminals(lark: Lark) -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    def order(terminal: TerminalDef) -> tuple[int, int, int, str]:  # as lark's own lexer sorts them
        return -terminal.priority, -terminal.pattern.max_width, -len(terminal.pattern.value), terminal.name

    words: dict[str, tuple[str, str]] = {}
    tokens: list[tuple[str, str]] = []
    for terminal in sorted(lark.terminals, key=order):
        pattern = terminal.pattern.to_regexp()
        word = re.fullmatch(r"([a-z]+)(\(\?[=!].*\))?", pattern, re.DOTALL)
        if word:
            words[word[1]] = (terminal.name, word[2] or "")
        else:
            tokens.append((terminal.name, pattern))
    return dict(sorted(words.items())), tokens


def _rule(rule: Rule) -> tuple[str, int, str, list[int | None]]:
    """Return a rule's data; which children it hands on follows lark's conventions for `_names`, "literals" and `[]`."""
    children: list[int | None] = []
    absent = "".join("1" if empty else "0" for empty in rule.options.empty_indices or [False] * len(rule.expansion))
    gaps = [len(run) for run in absent.split("0")]
    for i, symbol in enumerate(rule.expansion):
        children += [None] * gaps[i]
        if isinstance(symbol, Terminal):
            children += [] if symbol.filter_out else [i]
        else:
            children.append(~i if symbol.name.startswith("_") else i)
    children += [None] * gaps[-1]
    if rule.origin.name.startswith("_"):
        action = ""
    elif rule.options.expand1 and not rule.alias and len(children) == 1:
        action = "="
    else:
        action = str(rule.alias or rule.origin.name)
    return str(rule.origin.name), len(rule.expansion), action, children


def serialize(tables: Tables) -> str:
    """Return the tables as JSON with one row or rule on a line, so that a change of the grammar has a readable diff."""
    parts = []
    for key, value in tables.items():
        if isinstance(value, list) and key != "states":
            lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in value)
            parts.append(f'"{key}": [\n{lines}\n]')
        else:
            parts.append(f'"{key}": {json.dumps(value, separators=(",", ":"))}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write nn.json beside nn.lark."""
    Path(__file__).with_name("nn.json").write_text(serialize(build_tables()), encoding="utf-8")


if __name__ == "__main__":
    main()
