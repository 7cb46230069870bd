"""One command at a time works in a folder; the lock ends with the process, however that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.data_folder import unwritable

LOCK_FILE: Final = "lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others out of a folder, which is made.

    Raises:
        ConfigurationError: another command is at work there, or the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{folder} is in use by another generate; wait until that ends, or name another folder"
            ) from None
        except OSError as error:
            raise unwritable(folder, error) from error
        yield
