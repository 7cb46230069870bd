"""The local time, where the machine knows it: a Pi begins in the past, until the network tells it."""

import time

FIRST_YEAR = 2025
"""There was no edgeflock before: a machine that shows an earlier year does not know the time."""


def local_time() -> time.struct_time | None:
    """The machine's local time; None where it has none yet."""
    now = time.localtime()
    return now if now.tm_year >= FIRST_YEAR else None
