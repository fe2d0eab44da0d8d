"""How a command ends: whatever goes wrong is told in sentences on stderr, and never by a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import click

from nnspec.cli.garbage import not_collected
from nnspec.diagnostics import Diagnostic, NnspecError, SpecError, render

DONE, BAD_INPUT, INTERNAL, INTERRUPTED = 0, 1, 70, 130


def run(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    # What a command makes lives until it ends. Training, which runs for long, looks for garbage again.
    with not_collected():
        return _run(command, arguments)


def _run(command: click.Command, arguments: Sequence[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that lacks a character shows its escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command.main(list(arguments), prog_name="nnspec", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Where click itself meets the broken pipe, it exits.
        _close_stdout()
        return BAD_INPUT
    except SpecError as error:
        show(error.diagnostics)
        return BAD_INPUT
    except NnspecError as error:
        return _tell(str(error).splitlines())
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _tell([f"{where}{error.strerror or error}"])
    except MemoryError:
        return _tell(["there is not enough memory for this"])
    except Exception as error:
        if os.environ.get("NNSPEC_TRACEBACK"):
            raise
        _tell(
            [
                f"nnspec itself failed: {type(error).__name__}: {error}",
                "this is a mistake in nnspec; NNSPEC_TRACEBACK=1 shows where it happened",
            ]
        )
        return INTERNAL
    return status if isinstance(status, int) else DONE


def show(diagnostics: Sequence[Diagnostic]) -> None:
    """Write diagnostics to stderr, in colour on a terminal."""
    if diagnostics:
        print(render(diagnostics, color=has_color(sys.stderr)), file=sys.stderr)


def warn(message: str) -> None:
    """Write a warning to stderr."""
    print(f"warning: {message}", file=sys.stderr)


def has_color(stream: IO[str]) -> bool:
    """Say whether a stream is a terminal that shows colours; https://no-color.org is respected."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def _tell(problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return BAD_INPUT


def _close_stdout() -> None:
    """Send what is left in the buffer nowhere: whoever read it has gone, and the interpreter would complain at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
