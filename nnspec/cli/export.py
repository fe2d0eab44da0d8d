"""The command that writes ONNX models, and training steps as artefacts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nnspec.cli import options
from nnspec.cli.failures import DONE, show
from nnspec.cli.runtime import read_weights


@click.command("export", short_help="Write an ONNX model, or a training step.")
@click.argument("file")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="MODEL.onnx", help="The file to write."
)
@click.option("--weights", metavar="W.safetensors", help="Trained weights; otherwise they are drawn from the seed.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Where drawn weights start from (default 0).")
@click.option("--train", is_flag=True, help="Write the training step with its eval and predict graphs.")
@click.option("--unroll", is_flag=True, help="Write recurrences step by step, without Scan, LSTM, GRU and RNN.")
@options.outputs
@options.network
@options.block
@options.settings
@options.limit
def export_command(
    file: str,
    output: Path,
    weights: str | None,
    seed: int | None,
    train: bool,
    unroll: bool,
    outputs: list[str] | None,
    network: str | None,
    block: str | None,
    settings: dict[str, Any],
    limit: int | None,
) -> int:
    """Write a network of FILE as an ONNX model: opset 21, a symbolic batch axis, checked.

    With --unroll, sequences need a fixed length, such as `input x: [28, 64]`, and the model has no control flow.
    With --outputs answer, a translator's model needs the source alone and says the answer by itself.
    Weights of more than 2 GB go to MODEL.onnx.data beside it. With --train and -o NAME.onnx, the files are
    NAME.step.onnx, NAME.eval.onnx, NAME.predict.onnx, NAME.state.safetensors, and NAME.json, which names every input
    and output: a program in any language that has ONNX Runtime can train the network from them.
    """
    if weights is not None and seed is not None:
        raise click.UsageError("give --weights or --seed, not both: the seed draws weights")
    size = options.sizes(limit)
    if train and unroll:
        raise click.UsageError("give --train or --unroll, not both: training needs the loop")
    if train and outputs is not None:
        raise click.UsageError("give --train or --outputs, not both: training needs what the loss needs")
    if train:
        from nnspec.export import save_program
        from nnspec.training import build

        recipe = options.read_recipe(file, network, block, settings, limit)
        if seed is not None:
            recipe = recipe.model_copy(update={"seed": seed})
        program = build(recipe)
        if weights is not None:
            program = replace(program, state={**program.state, **read_weights(weights, recipe.network)})
        written = save_program(program, output.with_suffix("") if output.suffix in (".onnx", ".json") else output)
    else:
        from nnspec.compile import compile_network, initial_weights
        from nnspec.export import save_network

        if block is not None:
            raise click.UsageError("--block needs --train")
        compiled = compile_network(file, network, settings, **size)
        show(compiled.warnings)
        network_ = compiled.network
        values = initial_weights(network_, seed or 0) if weights is None else read_weights(weights, network_)
        written = save_network(network_, values, output, unroll=unroll, outputs=outputs)
    for path in written:
        click.echo(f"wrote {path}")
    return DONE
