"""Commands that say what the language knows: layers, schema."""

from __future__ import annotations

import json
import shutil
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING

import click

from nnspec.cli.failures import DONE
from nnspec.diagnostics import NnspecError, suggest

if TYPE_CHECKING:
    from nnspec.reference import Entry


@click.command("layers", short_help="Explain layers, losses, optimizers and all other names.")
@click.argument("name", required=False)
def layers_command(name: str | None) -> int:
    """Show every layer with its arguments, their defaults and what it does; or NAME with what its arguments mean.

    Losses, metrics, optimizers, schedules, initialisers and the cells of the standard library are there too.
    """
    from nnspec.reference import entries

    known = entries()
    if name is None:
        click.echo("\n\n".join(_family(title, list(group)) for title, group in groupby(known, lambda e: e.family)))
        return DONE
    chosen = [entry for entry in known if entry.name == name]
    if not chosen:
        raise NnspecError(
            f"there is no layer `{name}`; {suggest(name, [e.name for e in known], what='known', limit=200)}"
        )
    click.echo("\n\n".join(_whole(entry) for entry in chosen))
    return DONE


@click.command("schema", short_help="Print the JSON Schema of a network.")
def schema_command() -> int:
    """Print the JSON Schema of the intermediate representation, which is what `compile --emit ir` prints."""
    from nnspec.ir import json_schema

    print(json.dumps(json_schema(), indent=2))
    return DONE


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def _family(title: str, entries: list[Entry]) -> str:
    lines = [title, "=" * len(title)]
    for entry in entries:
        lines.append(f"  {entry.signature}")
        lines += textwrap.wrap(entry.summary, _width(), initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _whole(entry: Entry) -> str:
    lines = [entry.signature, f"  {entry.family}", "", *textwrap.indent(entry.text, "  ").splitlines()]
    for argument in entry.arguments:
        kind = f": {argument.type}" if argument.type else ""
        default = "" if argument.default is None else f", {argument.default} by default"
        lines += ["", f"  {argument.name}{kind}{default}"]
        lines += textwrap.wrap(argument.meaning, _width(), initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
