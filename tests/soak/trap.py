"""A process that kills itself at one place: armed from outside, through a file; the product has no code for it."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.soak.places import Place

VARIABLE = "EDGEFLOCK_TEST_TRAP"
"""Names the file to the program and to the children that inherit its environment."""
SPRUNG, PASSED = ".sprung", ".passed"


class Trap:
    """The driver's side: at most one place is armed at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def environment(self) -> dict[str, str]:
        """What the program has to be started with."""
        return {VARIABLE: str(self._file)}

    def arm(self, place: Place, passage: int) -> None:
        """Kill whoever comes by `place` for the `passage`-th time from now on."""
        for suffix in (SPRUNG, PASSED):
            self._file.with_suffix(suffix).unlink(missing_ok=True)
        written = self._file.with_suffix(".new")
        written.write_text(f"{place}\n{passage}")
        written.replace(self._file)

    def disarm(self) -> None:
        """Let everybody pass; a trap that has sprung meanwhile stays so."""
        self._file.unlink(missing_ok=True)

    def has_sprung(self) -> bool:
        """Whether it has killed somebody since it was armed."""
        return self._file.with_suffix(SPRUNG).exists()


def passing(place: Place, last_act: Callable[[], object] = bool) -> None:
    """The program's side: it is at `place`. Where that is armed, and this is the passage, do `last_act` and die."""
    file = Path(os.environ[VARIABLE])
    try:
        armed = file.read_text()
    except FileNotFoundError:
        return
    name, passage = armed.split("\n")
    if name != place or _passages(file) < int(passage):
        return
    with suppress(FileNotFoundError):  # disarmed just now
        file.rename(file.with_suffix(SPRUNG))
        last_act()
        os.kill(os.getpid(), signal.SIGKILL)


def _passages(file: Path) -> int:
    """Count this one; a file remembers the others, of processes that have ended too."""
    with file.with_suffix(PASSED).open("ab") as passed:
        passed.write(b".")
        return passed.tell()
