"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nnspec.recipe import Recipe

Command = Callable[..., Any]

network = click.option("--network", metavar="NAME", help="The network, where the file declares several.")
block = click.option("--block", metavar="NAME", help="The train block, where the file has several.")
limit = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Allow networks of up to N layers (default 100,000)."
)
outputs = click.option(
    "--outputs",
    metavar="A,B",
    callback=lambda ctx, option, text: None if text is None else [name.strip() for name in text.split(",")],
    help="Only these outputs, and the inputs that they need.",
)
device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; auto is CUDA where it is there.",
)


tf32 = click.option(
    "--tf32/--no-tf32",
    default=True,
    help="Whether CUDA may round the operands of float32 products to 10 bits, which is faster (default yes).",
)


def fixed_sizes(command: Command) -> Command:
    """Add `--size NAME=N`, which gives `fixed`: the numbers by symbol."""

    def parse(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, int]:
        found: dict[str, int] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or not name.strip().isidentifier() or not value.strip().isdigit() or int(value) < 1:
                raise click.BadParameter(f"'{text}' is not NAME=N with a whole number from 1 on", param_hint="'--size'")
            found[name.strip()] = int(value)
        return found

    option = click.option(
        "--size", "fixed", multiple=True, metavar="NAME=N", callback=parse, help="How long a symbolic axis is."
    )
    return option(command)


def settings(command: Command) -> Command:
    """Add `--set NAME=VALUE`, which gives `settings`: the parsed values by name."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda ctx, parameter, texts: _parse(texts),
        help="Set a parameter of the network: a number, list, size or word, as in a spec.",
    )(command)


def _parse(texts: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier() or not value.strip():
            raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="'--set'")
        if name in values:
            raise click.BadParameter(f"'{name}' is set twice", param_hint="'--set'")
        from nnspec.elaborate import parse_setting

        values[name] = parse_setting(value)
    return values


def read_recipe(
    file: str, network: str | None, block: str | None, settings: Mapping[str, Any], limit: int | None
) -> Recipe:
    """Compile a train block and show its warnings."""
    from nnspec.cli.failures import show
    from nnspec.compile import read_source
    from nnspec.elaborate import elaborate_recipe, load_module

    recipe, warnings = elaborate_recipe(load_module(read_source(file)), network, block, settings, **sizes(limit))
    show(warnings)
    return recipe


def sizes(limit: int | None) -> dict[str, int]:
    """Return the size limit as a keyword argument; nothing for the default."""
    return {} if limit is None else {"limit": limit}
