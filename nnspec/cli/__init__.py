"""The command line. Only this package prints, exits and reaches the runtime; commands import what is heavy."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from nnspec.cli.failures import run

COMMANDS = {
    "check": "nnspec.cli.spec",
    "summary": "nnspec.cli.spec",
    "compile": "nnspec.cli.spec",
    "fmt": "nnspec.cli.spec",
    "export": "nnspec.cli.export",
    "train": "nnspec.cli.training",
    "eval": "nnspec.cli.training",
    "predict": "nnspec.cli.training",
    "layers": "nnspec.cli.reference",
    "schema": "nnspec.cli.reference",
}
"""Where each command is: its module is imported when it is called."""


class Commands(click.Group):
    """The group of all commands, loaded by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(COMMANDS[name])
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from nnspec.diagnostics import suggest

            ctx.fail(f"there is no command '{args[0]}': {suggest(args[0], COMMANDS, what='commands')}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import nnspec

        click.echo(f"nnspec {nnspec.__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def nnspec_command() -> None:
    """Compile declarative neural-network specifications to ONNX, and train them with ONNX Runtime."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 1 bad input, 2 wrong usage, 130 interrupted."""
    # Otherwise pydantic reads the metadata of every installed package to look for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    return run(nnspec_command, sys.argv[1:] if arguments is None else arguments)
