"""Processes that end when they have to: with their parent, however that ends, or after a time.

`python -m fleet_host.child_process PARENT COMMAND...` becomes the command.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h. The kernel keeps it when the process executes another program."""
NOT_STARTED = 127
"""Exit status where the command can't be executed, as shells have it."""


def bound(command: Sequence[str]) -> list[str]:
    """A command line that runs `command` in one process, which the kernel kills when this one ends.

    Start it in a thread that lives as long as the child: the kernel counts the end of that thread.
    """
    return [sys.executable, "-P", "-m", "fleet_host.child_process", str(os.getpid()), *command]


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even while it is stopped; `parent` is its process id."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent process has ended meanwhile")


@contextmanager
def ended_after(seconds: float, words: str) -> Iterator[None]:
    """End this process with exit status 2 and `words` on standard error if the block takes longer, even while it is in
    native code, which no signal handler of Python's interrupts.
    """

    def end() -> None:
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()
        os._exit(2)

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def prctl(option: int, value: int) -> None:
    """Change one property of this process.

    Raises:
        OSError: the kernel refuses.
    """
    words = [ctypes.c_ulong(each) for each in (value, 0, 0, 0)]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *words):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def main() -> None:
    """Become the command."""
    parent, *command = sys.argv[1:]
    die_with(int(parent))
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
