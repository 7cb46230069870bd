"""A file of words, by the name that queries may use for it: settings, and how it is read."""

from pathlib import Path
from typing import Final

import msgspec

from fleet_protocol.limits import MAX_WORD_CHARACTERS
from fleet_protocol.sample_schema import FieldName

MAX_LINES: Final = 1000
MAX_BYTES: Final = 256 * 1024


class TextFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Words that queries may be about by the name `text.NAME`, for heavy hitters and distinct counts."""

    name: FieldName
    """The NAME."""
    file: Path
    """A file in UTF-8 with one word a line: the first 1000 lines, 32 characters of each."""


def read_words(file: Path) -> list[str]:
    """The words of a file, without empty lines and control characters; none where there is no file.

    Raises:
        OSError: it can't be read.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES)
    except FileNotFoundError:
        return []
    lines = content.decode(errors="replace").splitlines()[:MAX_LINES]
    words = ("".join(filter(str.isprintable, line)).strip()[:MAX_WORD_CHARACTERS] for line in lines)
    return [word for word in words if word]
