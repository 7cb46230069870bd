"""A child process that kills itself at a statement on its database, and that database as it was before."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, Pool, event


def is_killed(after: int, prepare: Callable[[], Callable[[], int | None]]) -> bool:
    """Let a child do what it has prepared, and kill itself before one of the statements that write, or before or after
    a commit, when so many of these are over; whether it came to that. What is done returns the exit status.
    """
    child = os.fork()
    if child == 0:
        act = prepare()
        left, writes = after, False

        def count() -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        def execute(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            nonlocal writes
            if not statement.startswith("SELECT"):
                writes = True
                count()

        def end(*_: object) -> None:
            if writes:
                count()

        def give_back(*_: object) -> None:
            nonlocal writes
            end()
            writes = False

        event.listen(Engine, "before_cursor_execute", execute)
        event.listen(Engine, "commit", end)
        event.listen(Pool, "checkin", give_back)
        os._exit(act() or 0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def put_back(kept: Path, database: Path) -> None:
    """Put a copy of a SQLite database in its place."""
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    shutil.copy(kept, database)
