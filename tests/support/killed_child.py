"""A child process that kills itself at a statement on its database, and that database as it was before."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, Pool, event


def is_killed(after: int, prepare: Callable[[], Callable[[], int | None]]) -> bool:
    """Let a child do what it has prepared, and kill itself after so many statements, commits and ends of transactions
    of that; whether it came to that. What is done returns the exit status.
    """
    child = os.fork()
    if child == 0:
        act = prepare()
        left = [after]

        def count(*_: object) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        event.listen(Pool, "checkin", count)
        os._exit(act() or 0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def put_back(kept: Path, database: Path) -> None:
    """Put a copy of a SQLite database in its place."""
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    shutil.copy(kept, database)
