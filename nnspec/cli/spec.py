"""Commands on specifications alone: check, summary, compile, fmt. None of them runs anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnspec.cli import options
from nnspec.cli.failures import BAD_INPUT, DONE, show
from nnspec.diagnostics import NnspecError, Severity, SpecError

if TYPE_CHECKING:
    from nnspec.diagnostics import Diagnostic

STAGES = ("tree", "ir", "forward", "gradient", "step", "cuda-graph")


@click.command("check", short_help="Say what is wrong with specifications.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@options.settings
@options.limit
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Text for people, or JSON.")
def check_command(files: tuple[str, ...], settings: dict[str, Any], limit: int | None, form: str) -> int:
    """Check every network and every train block of each FILE, and report everything that is wrong.

    The exit status is 1 where there is an error; warnings leave it 0. The JSON is {"files": [{"file", "errors",
    "warnings"}], "diagnostics": [...]}; a file that cannot be read has its reason as "problem".
    """
    from nnspec.compile import check_file

    found: list[Diagnostic] = []
    reports: list[dict[str, Any]] = []
    for file in files:
        try:
            here = check_file(file, settings, **options.sizes(limit))
        except NnspecError as error:
            reports.append({"file": file, "errors": 1, "warnings": 0, "problem": str(error)})
            continue
        errors = sum(d.severity is Severity.ERROR for d in here)
        reports.append({"file": file, "errors": errors, "warnings": len(here) - errors})
        found += here
    if form == "json":
        _print_json({"files": reports, "diagnostics": [d.as_json() for d in found]})
    else:
        show(found)
        for report in reports:
            if "problem" in report:
                click.echo(f"error: {report['problem']}", err=True)
            else:
                click.echo(f"{report['file']}: {_verdict(report['errors'], report['warnings'])}")
    return BAD_INPUT if any(report["errors"] for report in reports) else DONE


@click.command("summary", short_help="Show shapes, parameters, MACs and receptive fields.")
@click.argument("file")
@options.network
@options.settings
@options.limit
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "html"]),
    default="table",
    help="For people, programs, browsers.",
)
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Show blocks deeper than N levels as one line.")
@click.option("--training", is_flag=True, help="Show what memory a training step needs at its peak instead.")
@options.block
@options.fixed_sizes
def summary_command(
    file: str,
    network: str | None,
    settings: dict[str, Any],
    limit: int | None,
    form: str,
    depth: int | None,
    training: bool,
    block: str | None,
    fixed: dict[str, int],
) -> int:
    """Show each layer's path, kind, output shape, parameters, MACs and receptive field, and what they add up to.

    With --training, show instead what a step of a train block takes of memory on the CPU at its batch, and the largest
    tensors that are there when it takes most; --size says how long symbolic axes are.
    """
    if training:
        return _show_memory(file, network, block, settings, limit, form, fixed)
    from nnspec.compile import compile_network
    from nnspec.summary import summarize

    if block is not None or fixed:
        raise click.UsageError("--block and --size need --training")
    compiled = compile_network(file, network, settings, **options.sizes(limit))
    show(compiled.warnings)
    summary = summarize(compiled.network)
    if form == "json":
        _print_json(summary.as_json())
    elif form == "html":
        from nnspec.summary.html import page

        sys.stdout.write(page(summary, depth))
    else:
        from nnspec.summary.table import table

        print(table(summary, depth))
    return DONE


def _show_memory(
    file: str,
    network: str | None,
    block: str | None,
    settings: dict[str, Any],
    limit: int | None,
    form: str,
    fixed: dict[str, int],
) -> int:
    from nnspec.cli.runtime import this_cpu
    from nnspec.training.memory import training_memory
    from nnspec.training.memory_table import as_json, memory_table

    if form == "html":
        raise click.UsageError("--training is a table or JSON")
    memory = training_memory(options.read_recipe(file, network, block, settings, limit), fixed, this_cpu())
    if form == "json":
        _print_json(as_json(memory))
    else:
        print(memory_table(memory))
    return DONE


@click.command("compile", short_help="Print a stage of the compiler.")
@click.argument("file")
@click.option("--emit", type=click.Choice(STAGES), required=True, help="Which stage to print.")
@options.network
@options.block
@options.settings
@options.limit
@options.fixed_sizes
@click.option("--fixed", "fix", is_flag=True, help="Print the step at the batch of its train block, as a fixed size.")
def compile_command(
    file: str,
    emit: str,
    network: str | None,
    block: str | None,
    settings: dict[str, Any],
    limit: int | None,
    fixed: dict[str, int],
    fix: bool,
) -> int:
    """Print what a stage of the compiler makes of FILE.

    tree: the syntax tree; ir: the network as JSON; forward: its ONNX graph; gradient: that of the loss with the
    gradients of the weights; step: the whole training step; cuda-graph: the nodes that keep the step, at its batch,
    from being one CUDA graph. The last three need a train block.
    """
    if (fixed and emit != "cuda-graph" and not fix) or (fix and emit != "step"):
        raise click.UsageError("--fixed is for `--emit step`, and --size for it and for `--emit cuda-graph`")
    from nnspec.compile import compile_network, read_source

    if emit == "cuda-graph":
        from nnspec.training.cuda_graph import examine, report

        print(report(examine(options.read_recipe(file, network, block, settings, limit), fixed)))
        return DONE
    size = options.sizes(limit)
    if emit == "tree":
        from nnspec.syntax.dump import dump
        from nnspec.syntax.parse import parse

        sys.stdout.write(dump(parse(read_source(file))))
        return DONE
    if emit in ("ir", "forward"):
        compiled = compile_network(file, network, settings, **size)
        show(compiled.warnings)
        if emit == "ir":
            print(compiled.network.to_json(indent=2))
            return DONE
        from nnspec.lower import forward_model

        model = forward_model(compiled.network)
    else:
        from nnspec.training.step import build, gradients

        recipe = options.read_recipe(file, network, block, settings, limit)
        model = gradients(recipe) if emit == "gradient" else build(recipe).step
        if fix:
            from nnspec.training.fixed import fix_sizes, sizes_of

            model = fix_sizes(model, sizes_of(recipe, fixed))
    import onnx
    import onnx_ir

    print(onnx.printer.to_text(onnx_ir.to_proto(model)))
    return DONE


@click.command("fmt", short_help="Lay specifications out in the one style.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where a file would change.")
def fmt_command(files: tuple[str, ...], check: bool) -> int:
    """Format each FILE in place; comments stay. `-` reads stdin and writes stdout."""
    from nnspec.compile import read_source
    from nnspec.files import write_text
    from nnspec.source import Source
    from nnspec.syntax.format import format_source

    status = DONE
    for file in files:
        source = Source("<stdin>", sys.stdin.read()) if file == "-" else read_source(file)
        try:
            text = format_source(source)
        except SpecError as error:
            show(error.diagnostics)
            status = BAD_INPUT
            continue
        if check:
            if text != source.text:
                click.echo(f"{source.path} is not formatted", err=True)
                status = BAD_INPUT
        elif file == "-":
            sys.stdout.write(text)
        elif text != source.text:
            write_text(Path(file), text)
            click.echo(f"formatted {file}", err=True)
    return status


def _verdict(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "ok"
    parts = [f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((errors, "error"), (warnings, "warning")) if n]
    return ", ".join(parts)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))
