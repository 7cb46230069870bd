"""Files that belong to the account of their folder, even if root makes them: an operator's command may come first."""

import os
from pathlib import Path

OWNER_ALONE = 0o600


def make_owned_file(path: Path) -> None:
    """Make an empty file, readable by its owner alone, unless there is one.

    Raises:
        OSError: it can't be made.
    """
    if path.exists():
        return
    path.touch(mode=OWNER_ALONE)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)
