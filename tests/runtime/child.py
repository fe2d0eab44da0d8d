"""A training process for the tests that kill or interrupt one: `python -m tests.runtime.child FOLDER EPOCHS`.

Trains FOLDER/m.json on FOLDER/data.npz into FOLDER/run, resuming what is there, and prints `training` with the
first epoch that is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnspec_runtime import Program, Trainer, load_data
from nnspec_runtime.progress import Silent


class Announce(Silent):
    def epoch(self, record: Mapping[str, Any]) -> None:
        print("training", flush=True)


def main(folder: Path, epochs: int) -> None:
    program = Program.load(folder / "m.json")
    data = load_data(program, folder / "data.npz")
    trainer = Trainer(
        program, data, validation=data, out=folder / "run", epochs=epochs, resume=(folder / "run").is_dir(),
        checkpoint_steps=1, reporter=Announce(),
    )  # fmt: skip
    result = trainer.fit()
    print("interrupted" if result.interrupted else "done", result.steps, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
