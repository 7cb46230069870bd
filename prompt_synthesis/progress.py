"""Progress on a terminal as a bar, elsewhere as a line for each tenth."""

import sys
from typing import Final, TextIO

WIDTH: Final = 30


class ProgressBar:
    """Of `total` steps of one thing, called `what`."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = max(1, total)
        self._stream = stream or sys.stderr
        self._shown = -1

    def show(self, done: int) -> None:
        """So many are done."""
        steps = WIDTH if self._stream.isatty() else 10
        reached = steps * min(done, self._total) // self._total
        if reached == self._shown:
            return
        self._shown = reached
        if self._stream.isatty():
            bar = "#" * reached + "." * (WIDTH - reached)
            ending = "\n" if reached == WIDTH else ""
            self._stream.write(f"\r{self._what:24} [{bar}] {done}/{self._total}{ending}")
        else:
            self._stream.write(f"{self._what}: {done} of {self._total}\n")
        self._stream.flush()
