"""The messages between the folder source and the child that reads its files. Neither side imports more than msgspec.

The job goes to the child's standard input; what comes back on its standard output is a `FileReading` a line, as JSON.
"""

import msgspec


class FileJob(msgspec.Struct, frozen=True):
    """One file, and what the task's inputs are: `shape` without the batch axis, and the bounds of a value.

    `mapped`: the source picks values by their names, so a row of a table keeps them. `label` is that of every sample
    in a file that holds none. Sound with another rate than `sample_rate_hz` is refused, if that is given. Where there
    is a `descriptor`, the file is read from it, and `path` only names it.
    """

    path: str
    shape: list[int]
    minimum: float
    maximum: float
    mapped: bool = False
    label: float | None = None
    sample_rate_hz: int | None = None
    descriptor: int | None = None


class FileReading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reading of a file, or why there is none: the file ends there where `ends`."""

    document: msgspec.Raw = msgspec.Raw(b"null")
    refused: str = ""
    ends: bool = False
