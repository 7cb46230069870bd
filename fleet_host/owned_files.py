"""Files that belong to the account of their folder, even if root makes them: an operator's command may come first."""

import os
from contextlib import suppress
from pathlib import Path

from fleet_host.new_files import write_new_file

OWNER_ALONE = 0o600


def make_owned_file(path: Path) -> None:
    """Make an empty file, readable by its owner alone, unless there is one.

    What root gives away is the file that it has made, and not what the account may have put in its place meanwhile.

    Raises:
        OSError: it can't be made.
    """
    if path.exists():
        return
    with suppress(FileExistsError):
        write_new_file(path, b"", OWNER_ALONE, path.parent.stat() if os.geteuid() == 0 else None)
