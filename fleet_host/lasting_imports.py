"""Imports of many modules, which last as long as the program: Python need not look through them for rubbish."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """What is made in the block, and whatever there was before, is not looked through for rubbish, then or later.

    It takes a tenth of the time that many imports take, and as much of what a program does with many modules loaded.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()
