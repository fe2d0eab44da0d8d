"""Random specs: networks that mean something, calls that may not, and examples with their tokens stirred."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from nnspec.compile import compile_network
from nnspec.diagnostics import SpecError
from nnspec.ir import Network, registry
from nnspec.source import Source

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted([*ROOT.glob("examples/**/*.nn"), *ROOT.glob("tests/diagnostics/*.nn"), *ROOT.glob("grammar/**/*.nn")])
LIMIT = 300
"""Layers allowed: random numbers make large networks."""


def bounded(examples: int) -> settings:
    """Return the profile of these tests: the same specs in every run, and no clock."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None, print_blob=False)


# --- networks that mean something -----------------------------------------------------------------------------------

small = st.integers(1, 4)
ACTIVATIONS = "relu sigmoid tanh softplus silu elu gelu square abs prelu leaky_relu normalize softmax".split()  # noqa: SIM905
STAGES = st.one_of(
    st.sampled_from(ACTIVATIONS),
    st.builds("dense({})".format, st.integers(1, 6)),
    st.builds("dense({}, bias = false)".format, st.integers(1, 6)),
    st.builds(
        "conv({}, {}, stride = {}, pad = {}, dilation = {}, groups = {})".format,
        st.sampled_from([1, 2, 4, 6]),
        small,
        st.integers(1, 3),
        st.sampled_from(["same", "valid", "0", "1", "2"]),
        st.integers(1, 2),
        st.sampled_from([1, 1, 2]),
    ),
    st.builds(
        "conv_transpose({}, {}, stride = {}, pad = {}, groups = {})".format,
        st.sampled_from([2, 4]),
        st.integers(2, 4),
        st.integers(1, 3),
        st.sampled_from(["same", "0", "1"]),
        st.sampled_from([1, 2]),
    ),
    st.builds(
        "{}pool({}, stride = {}, pad = {}, ceil = {})".format,
        st.sampled_from(["max", "avg"]),
        small,
        small,
        st.sampled_from(["same", "0", "1"]),
        st.sampled_from(["true", "false"]),
    ),
    st.sampled_from(["global_avgpool", "global_maxpool", "flatten", "transpose", "batchnorm", "layernorm", "lrn(3)"]),
    st.builds("groupnorm({})".format, st.integers(1, 3)),
    st.builds("upsample({}, mode = {})".format, st.integers(1, 3), st.sampled_from(["nearest", "linear"])),
    st.builds("pad({}, mode = {})".format, st.integers(0, 2), st.sampled_from(["constant", "edge", "reflect"])),
    st.builds("slice({}, {}, axis = {})".format, st.integers(0, 2), st.integers(1, 9), st.integers(-1, 2)),
    st.builds(
        "{}(axis = {}, keep = {})".format,
        st.sampled_from(["sum", "mean", "max"]),
        st.integers(-2, 2),
        st.sampled_from(["true", "false"]),
    ),
    st.builds("unsqueeze({})".format, st.integers(-1, 2)),
    st.builds("reshape([{}, -1])".format, st.integers(1, 4)),
    st.builds("repeat({})".format, st.integers(1, 3)),
    st.builds("maxout({})".format, st.integers(1, 2)),
    st.builds("cumsum({})".format, st.integers(0, 1)),
    st.sampled_from(["reverse", "last", "first", "dropout(0.3)", "relu * 2", "stack"]),
)
JOINS = st.sampled_from(
    [
        "{} + {}",
        "{} * {}",
        "{} - {}",
        "({}, {}) -> concat",
        "({}, {}) -> stack",
        "{} @ {}",
        "({} > 0) * {}",
        "where({} > 1, {}, 0 * {})",
    ]
)
INPUTS = st.lists(st.integers(1, 9), min_size=0, max_size=4).map(lambda dims: "[" + ", ".join(map(str, dims)) + "]")
SYMBOLIC = st.sampled_from(["[3, H, W]", "[T, 4]", "[4, T]", "[2, H, 8]", "[T, 2 * H, H]", "[T]"])


@st.composite
def networks(draw: st.DrawFn, inputs: st.SearchStrategy[str]) -> Network:
    """Return a network of up to eight statements, each of which fits what is there."""
    lines = [f"  input x0: {draw(inputs)}"]
    names = ["x0"]
    found: Network | None = None
    for i in range(1, draw(st.integers(1, 8)) + 1):
        value, join = draw(st.sampled_from(names)), draw(JOINS)
        if draw(st.sampled_from([True, True, True, False])):
            made = f"{value} -> {draw(STAGES)}"
        else:
            made = join.format(value, draw(st.sampled_from(names)), value)
        try:
            found = compile_network(spec([*lines, f"  x{i} = {made}"], [*names[1:], f"x{i}"]), limit=LIMIT).network
        except SpecError:
            continue
        lines.append(f"  x{i} = {made}")
        names.append(f"x{i}")
    return found or compile_network(spec([*lines, "  y = -x0"], ["y"])).network


def spec(lines: list[str], outputs: list[str]) -> Source:
    return Source("random.nn", "network Random {\n" + "\n".join([*lines, *(f"  output {n}" for n in outputs)]) + "\n}")


# --- calls that may mean nothing ------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(-3, 12).map(str),
    st.sampled_from(["0.5", "-1.5", "1e30", "2 ** 62", "2 ** 63", "10 ** 12", "true", "false", '"text"', "none"]),
    st.sampled_from(
        ["same", "valid", "zeros", "orthogonal", "identity", "normal(0.1)", "stacked([ones, zeros])", "relu"]
    ),
    st.sampled_from(["3x3", "2x1", "1x2x3", "[]", "[1]", "[1, 2]", "[1, [2]]", "[[1, 2], [3, 4]]", "[0, -1]", "[1.5]"]),
    st.sampled_from(["x", "n", "(x, x)", "x.shape", "x.channels", "T", "conv", "conv(2, 1)", "constant", "reflect"]),
)
KEYWORDS = sorted(k for k, layer in registry().items() if layer.where == "network" and not k.startswith("_"))


PLAUSIBLE = st.one_of(
    st.integers(1, 4).map(str), st.integers(0, 2).map(str), st.sampled_from(["true", "same", "2x1", "[2, 3]", "ones"])
)


@st.composite
def calls(draw: st.DrawFn) -> Source:
    """Return a network of a few calls with any layer and any arguments, half of them plausible."""
    shape = draw(st.sampled_from(["[4, 6, 5]", "[6]", "[T, 4]", "[]", "[2, 3, 4, 5]"]))
    lines = [f"  input x: {shape}", "  input n: int[T]"]
    names = []
    for i in range(draw(st.integers(1, 2))):
        keyword = draw(st.sampled_from(KEYWORDS))
        arguments = []
        for name, info in registry()[keyword].model_fields.items():
            if info.is_required() or draw(st.sampled_from([False, False, True])):
                value = draw(st.one_of(PLAUSIBLE, PLAUSIBLE, VALUES))
                arguments.append(draw(st.sampled_from([value, f"{name} = {value}", f"{name} = {value}"])))
        data = draw(st.sampled_from(["x", "x", "x", "n", "(x, x)", "(x, n)", "(x, x, x)"]))
        written = f"({', '.join(arguments)})" if arguments else ""
        lines.append(f"  y{i} = {data} -> {keyword}{written}")
        names.append(f"y{i}")
    return spec(lines, names)


# --- examples with their tokens stirred -----------------------------------------------------------------------------

TOKENS = re.compile(r"#[^\n]*|\s+|\w+|->|\*\*|//|[<>=!]=|.", re.DOTALL)


@st.composite
def mutations(draw: st.DrawFn, sources: list[Path]) -> Source:
    """Return an example with a few tokens deleted, doubled, swapped, or replaced."""
    path = draw(st.sampled_from(sources))
    tokens = TOKENS.findall(path.read_text(encoding="utf-8"))
    solid = [i for i, t in enumerate(tokens) if not t.isspace() and not t.startswith("#")]
    for _ in range(draw(st.integers(1, 4))):
        i, j = draw(st.sampled_from(solid)), draw(st.sampled_from(solid))
        match draw(st.sampled_from(["delete", "double", "swap", "copy", "number"])):
            case "delete":
                tokens[i] = ""
            case "double":
                tokens[i] = f"{tokens[i]} {tokens[i]}"
            case "swap":
                tokens[i], tokens[j] = tokens[j], tokens[i]
            case "copy":
                tokens[i] = tokens[j]
            case "number":
                numbers = [k for k in solid if tokens[k][:1].isdigit()]
                at = numbers[i % len(numbers)] if numbers else i
                tokens[at] = draw(st.sampled_from(["0", "1", "-1", "7", "2.5", "1000000", "99999999999", "1e400", "T"]))
    return Source(path.name, "".join(tokens))


def fixed(types: Any, values: dict[str, int]) -> tuple[int, ...]:
    """Return a shape with its symbols replaced."""
    from nnspec.dims import evaluate

    return tuple(int(str(evaluate(d, values))) for d in types.shape)
