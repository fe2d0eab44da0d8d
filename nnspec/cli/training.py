"""Commands that run networks: train, eval, predict."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnspec.cli import options
from nnspec.cli.failures import DONE, INTERRUPTED, show, warn

if TYPE_CHECKING:
    import nnspec_runtime as runtime

    from nnspec.recipe import Recipe

data = click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="D",
    help="FILE.npz with arrays named after inputs and targets; or NAME=FILE for each: .npy, IDX (.gz too) or .csv.",
)
weights = click.option("--weights", required=True, metavar="W.safetensors", help="Weights that training wrote.")


@click.command("train", short_help="Train a network.")
@click.argument("file")
@data
@click.option("--validation", multiple=True, metavar="D", help="Data to validate on after each epoch, given as --data.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the results (default runs/NAME of the block).",
)
@options.device
@options.tf32
@click.option("--cuda-graph", is_flag=True, help="On CUDA, record the step once and replay it.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N", help="Train for N epochs, whatever the file says.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in DIR.")
@click.option("--weights", metavar="W.safetensors", help="Start from these weights.")
@options.network
@options.block
@options.settings
@options.limit
def train_command(
    file: str,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    out: Path | None,
    device: str,
    tf32: bool,
    cuda_graph: bool,
    epochs: int | None,
    resume: bool,
    weights: str | None,
    network: str | None,
    block: str | None,
    settings: dict[str, Any],
    limit: int | None,
) -> int:
    """Train a network of FILE as its train block says.

    Prints loss and metrics of each epoch, and writes DIR/weights.safetensors, DIR/history.json and
    DIR/checkpoint.safetensors. Ctrl-C ends the running step, saves and stops with status 130; --resume goes on from
    there, to the same weights as without the break.
    """
    from nnspec.cli.runtime import sentences, training_program

    if resume and weights is not None:
        raise click.UsageError("give --resume or --weights, not both")
    recipe = options.read_recipe(file, network, block, settings, limit)
    with sentences():
        from nnspec_runtime import Device, Trainer, load_weights
        from nnspec_runtime.progress import reporter

        where = Device.choose(device, tf32=tf32, cuda_graph=cuda_graph)  # type: ignore[arg-type]
        program = training_program(recipe, where)
        folder = out if out is not None else Path("runs") / recipe.name
        trainer = Trainer(
            program,
            _data(program, data),
            validation=_data(program, validation) if validation else None,
            out=folder,
            device=where,
            epochs=epochs,
            weights=load_weights(weights) if weights is not None else None,
            resume=resume,
            reporter=reporter(),
        )
        _describe_start(recipe, trainer, where.kind)
        result = trainer.fit()
    if result.interrupted:
        click.echo(f"stopped after {result.steps} steps and saved to {folder}; `--resume` goes on from there")
        return INTERRUPTED
    if result.stopped_early:
        click.echo(f"stopped early: nothing got better; the weights are those of epoch {result.best_epoch}")
    click.echo(
        f"trained {result.steps} steps in {result.seconds:.1f} s; the weights are in {folder / 'weights.safetensors'}"
    )
    return DONE


@click.command("eval", short_help="Measure loss and metrics.")
@click.argument("file")
@weights
@data
@options.device
@options.network
@options.block
@options.settings
@options.limit
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Text for people, or JSON.")
def eval_command(
    file: str,
    weights: str,
    data: tuple[str, ...],
    device: str,
    network: str | None,
    block: str | None,
    settings: dict[str, Any],
    limit: int | None,
    form: str,
) -> int:
    """Print the loss and the metrics of a trained network on data, as its train block defines them.

    The JSON maps their names to numbers.
    """
    from nnspec.cli.runtime import sentences, training_program

    recipe = options.read_recipe(file, network, block, settings, limit)
    with sentences():
        from nnspec_runtime import Device, evaluate, load_weights

        where = Device.choose(device)  # type: ignore[arg-type]
        program = training_program(recipe)
        figures = evaluate(program, _data(program, data), load_weights(weights), device=where)
    if form == "json":
        click.echo(json.dumps(figures, indent=2))
    else:
        width = max(len(name) for name in figures)
        for name, value in figures.items():
            click.echo(f"{name.ljust(width)}  {value:.6f}")
    return DONE


@click.command("predict", short_help="Write a network's outputs for data.")
@click.argument("file")
@weights
@data
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="OUT.npz", help="The file to write."
)
@options.outputs
@options.device
@options.network
@options.settings
@options.limit
def predict_command(
    file: str,
    weights: str,
    data: tuple[str, ...],
    output: Path,
    outputs: list[str] | None,
    device: str,
    network: str | None,
    settings: dict[str, Any],
    limit: int | None,
) -> int:
    """Write what a trained network gives for data: an .npz file with an array for each output, in the data's order.

    No train block is needed. With --outputs answer, a translator needs the source alone and says the answer by itself.
    """
    from nnspec.cli.runtime import predict_program, read_weights, sentences
    from nnspec.compile import compile_network

    compiled = compile_network(file, network, settings, **options.sizes(limit))
    show(compiled.warnings)
    program = predict_program(compiled.network, read_weights(weights, compiled.network), outputs)
    with sentences():
        from nnspec_runtime import Device, load_data, predict

        where = Device.choose(device)  # type: ignore[arg-type]
        # Targets may be among the data, unused.
        given = predict(program, load_data(program, data, purpose="predict"), device=where)
        _write_npz(output, given)
    for name, array in given.items():
        click.echo(f"{name}  {array.dtype}{list(array.shape)}")
    click.echo(f"wrote {output}")
    return DONE


def _data(program: runtime.Program, sources: tuple[str, ...]) -> runtime.Dataset:
    from nnspec_runtime import load_data

    gc.enable()
    dataset = load_data(program, sources)
    for note in dataset.notes:
        warn(note)
    return dataset


def _describe_start(recipe: Recipe, trainer: runtime.Trainer, device: str) -> None:
    count = sum(w.size for w in recipe.network.weights if w.kind == "weight" and w.trainable)
    done = trainer.position.epoch
    start = f", from epoch {done + 1}" if trainer.resumed else ""
    click.echo(
        f"training {recipe.network.name}: {count:,} parameters, {trainer.data.size:,} samples in batches of "
        f"{recipe.batch}, {trainer.epochs} epochs on the {device}{start}"
    )


def _write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np
    from nnspec_runtime.weights import write_atomically

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    write_atomically(path, write)
