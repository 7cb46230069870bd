"""The local time, where the machine knows it: a Pi begins in the past, until the network tells it."""

import time

from fleet_protocol.errors import ConfigurationError

FIRST_YEAR = 2025
"""There was no edgeflock before: a machine that shows an earlier year does not know the time."""
SHOWN = "%Y-%m-%d %H:%M"


def local_time() -> time.struct_time | None:
    """The machine's local time; None where it has none yet."""
    now = time.localtime()
    return now if now.tm_year >= FIRST_YEAR else None


def require_time(why: str) -> None:
    """Refuse to go on on a machine that does not know the time; `why` is what needs it.

    Raises:
        ConfigurationError: it does not.
    """
    if local_time() is None:
        raise time_unknown(why)


def time_unknown(why: str) -> ConfigurationError:
    """The error for that."""
    return ConfigurationError(
        f"the clock shows {time.strftime(SHOWN)}, and {why}; let the machine take the network's time (timedatectl), or"
        " set it (date --set), and run the same again"
    )
