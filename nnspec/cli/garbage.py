"""Make much that stays without looking for garbage among it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def not_collected() -> Iterator[None]:
    """Keep Python from looking for garbage within; afterwards it does so again if it did before.

    Each search goes through all objects there are. While a program is built, these are many, and all of them stay.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
