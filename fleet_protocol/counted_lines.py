"""Lines of a small file under one that counts and checks them: a file that was cut off, even at a line's end, shows it.

    # 2 lines follow, SHA-256 53175bcc0524f377

Files of earlier releases have no such line, and are read as they are.
"""

import hashlib
import re
from collections.abc import Iterable

from fleet_protocol.errors import ConfigurationError

_FIRST_LINE = re.compile(r"# (\d{1,6}) lines follow, SHA-256 ([0-9a-f]{16})")
_CHECK_DIGITS = 16
"""Hex digits of the SHA-256: it is against damage, not against somebody."""


def write_counted(lines: Iterable[str]) -> str:
    """The text of a file with these lines, none of which is empty or holds white space at an end."""
    written = list(lines)
    first = f"# {len(written)} lines follow, SHA-256 {_check(written)}"
    return "".join(f"{line}\n" for line in (first, *written))


def read_counted(text: str, name: str) -> list[str]:
    """The lines of a file; all of them where no first line counts them.

    Raises:
        ConfigurationError: there are not so many as its first line says, or one of them has changed.
    """
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    if not lines or (counted := _FIRST_LINE.fullmatch(lines[0])) is None:
        return lines
    del lines[0]
    remedy = "if you have changed it yourself, delete its first line too"
    if len(lines) != int(counted[1]):
        raise ConfigurationError(f"{name}: {len(lines)} of {counted[1]} lines are there; {remedy}")
    if _check(lines) != counted[2]:
        raise ConfigurationError(f"{name}: its lines have SHA-256 {_check(lines)}, not {counted[2]}; {remedy}")
    return lines


def _check(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_CHECK_DIGITS]
