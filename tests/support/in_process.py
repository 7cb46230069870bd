"""What a command does, in this process: a Python of its own for each would take a second."""

import contextlib
import io
import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fleet_host.log_lines import LineFormatter


def program(main: Callable[[Sequence[str]], int | None], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `main` of a program says, and how it ends."""
    words, said, complained = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained), _logged_to(complained):
        try:
            status = main(words) or 0
        except SystemExit as ended:
            status = int(ended.code or 0)
    return subprocess.CompletedProcess(words, status, said.getvalue(), complained.getvalue())


@contextlib.contextmanager
def _logged_to(stream: io.StringIO) -> Iterator[None]:
    """As the program would, which does not set up logging where it is."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
