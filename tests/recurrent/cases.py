"""The recurrent layers that are compared with PyTorch; imported by the script that asks it, so this needs nothing."""

from __future__ import annotations

from dataclasses import dataclass

FEATURES, UNITS, PROJECTION = 3, 4, 2
BATCH, STEPS = 3, 6
LENGTHS = (4, 6, 1)


@dataclass(frozen=True)
class Case:
    """A recurrent layer of PyTorch's, as nnspec writes it."""

    cell: str
    layers: int = 1
    bidirectional: bool = False
    masked: bool = False
    initial: bool = False

    @property
    def name(self) -> str:
        """What its arrays are called by."""
        parts = [self.cell, f"{self.layers}"]
        return "-".join(parts + [n for n in ("bidirectional", "masked", "initial") if getattr(self, n)])

    @property
    def written(self) -> str:
        """The cell in the language."""
        return {
            "rnn": f"rnn({UNITS}, recurrent_bias = true",
            "relu_rnn": f"rnn({UNITS}, activation = relu, recurrent_bias = true",
            "lstm": f"lstm({UNITS}, recurrent_bias = true",
            "lstmp": f"lstmp({UNITS}, {PROJECTION}, recurrent_bias = true",
            "gru": f"gru({UNITS}, recurrent_bias = true",
        }[self.cell]

    @property
    def states(self) -> int:
        """How many states it has."""
        return 2 if self.cell in ("lstm", "lstmp") else 1

    @property
    def text(self) -> str:
        """The network."""
        finals = ", ".join(f"final{i}" for i in range(self.states))
        starts = [f"start{i}" for i in range(self.states)] if self.initial else []
        initial = (
            f", initial = ({', '.join(starts)})" if len(starts) > 1 else f", initial = {starts[0]}" if starts else ""
        )
        cell = f"{self.written}{initial})"
        layer = f"bidirectional({cell})" if self.bidirectional else cell
        sizes = [PROJECTION if self.cell == "lstmp" else UNITS, UNITS]
        return "\n".join(
            [
                "network N {",
                f"  input x: [T, {FEATURES}]{' masked' * self.masked}",
                *(f"  input {s}: [{n}]" for s, n in zip(starts, sizes, strict=False)),
                f"  y, {finals} = x -> {layer} * {self.layers}",
                "  output y",
                *(f"  output final{i}" for i in range(self.states)),
                "}",
            ]
        )


CASES = [
    case
    for cell in ("rnn", "relu_rnn", "lstm", "lstmp", "gru")
    for case in (
        Case(cell),
        Case(cell, masked=True),
        Case(cell, initial=True),
        Case(cell, layers=2, bidirectional=True),
        Case(cell, layers=2, bidirectional=True, masked=True),
    )
]
