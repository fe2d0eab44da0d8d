"""Files written whole or not at all: whoever reads a path finds the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnspec.diagnostics import NnspecError


@contextmanager
def replacing(folder: Path, last: str) -> Iterator[Path]:
    """Give a temporary folder inside `folder`, made where it is missing; on success its files move there.

    Each moves in one step, the one named `last` after those that it refers to. Raises NnspecError where they cannot be
    written.
    """
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".nnspec-", suffix=".tmp"))
        yield temporary
        for file in sorted(temporary.iterdir(), key=lambda f: (f.name == last, f.name)):
            with open(file, "rb+") as content:
                os.fsync(content.fileno())
            os.replace(file, folder / file.name)
    except OSError as error:
        raise NnspecError(f"cannot write to the folder {folder}: {_reason(error)}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file's content, in UTF-8; the file keeps its mode. Raises NnspecError."""
    target = path.resolve()
    with replacing(target.parent, last=target.name) as folder:
        (folder / target.name).write_text(text, encoding="utf-8", newline="")
        if target.exists():
            shutil.copymode(target, folder / target.name)


def _reason(error: OSError) -> str:
    target = f" ({Path(error.filename2).name})" if isinstance(error.filename2, str | os.PathLike) else ""
    return f"{error.strerror or error}{target}"
