"""Running the code of a recipe's `model.py`: it may print, fail, end the process or never end."""

import contextlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final
from unittest import mock

import torch

from fleet_protocol.errors import ConfigurationError
from workbench.export.conversion.diagnosis import known_cause
from workbench.export.layers.layer_context import UnexportableError

LONGEST_SECONDS: Final = 30
"""For building the model, and for running it on a few samples: words come within a minute. Time in which one of its
threads waits for a core does not count, so that a busy machine exports what an idle one does.
"""


class _TooLong(BaseException):
    """The code has run for `LONGEST_SECONDS`; says where it is."""


@contextlib.contextmanager
def model_code(path: Path, what: str, otherwise: str = "") -> Iterator[None]:
    """Run a recipe's code in the block; `what` names it, such as "build()". What it prints goes to standard error.

    `otherwise` is what to do about an error that does not say so itself.

    Raises:
        ConfigurationError: it fails, exits, or takes longer than `LONGEST_SECONDS`; with the line and what to do.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), mock.patch.object(torch, "compile", _as_it_is), _limited(path):
            yield
    except ConfigurationError:
        raise
    except _TooLong as error:
        raise ConfigurationError(
            f"{path}: {what} has not ended after {LONGEST_SECONDS} s{error}; if it fetches files, fetch them before,"
            " and read them from the recipe's folder"
        ) from error
    except (Exception, SystemExit) as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        raise ConfigurationError(f"{path}: {what} failed{_place(path, frames)}: {_said(error, otherwise)}") from error


def _as_it_is(model: object = None, **_: object) -> object:
    """What torch.compile is asked to compile: a graph is made of the model itself."""
    return _as_it_is if model is None else model


def _said(error: BaseException, otherwise: str) -> str:
    """The error and what to do about it."""
    if isinstance(error, UnexportableError):
        return str(error)
    cause = known_cause(error)
    remedies = [cause.remedy] if cause else [each for kind, each in REMEDIES.items() if isinstance(error, kind)]
    first_line = str(error).strip().partition("\n")[0]
    return "; ".join(filter(None, [f"{type(error).__name__}: {first_line}", *(remedies or [otherwise])]))


REMEDIES: dict[type[BaseException], str] = {
    ModuleNotFoundError: "install it where edgeflock is, or put its file beside model.py",
    FileNotFoundError: "files beside model.py are in Path(__file__).parent",
    EOFError: "nothing can be typed while a recipe is exported: take input() out",
    SystemExit: "take exit() out, or put what a script does under if __name__ == '__main__'",
    MemoryError: "make the model smaller",
}
"""What to do about an error of a recipe's code that says by itself what it is."""


@contextlib.contextmanager
def _limited(path: Path) -> Iterator[None]:
    """Interrupt the block after `LONGEST_SECONDS`. Only the main thread can be; elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, frame: FrameType | None) -> None:
        frames = [(each.filename, each.lineno) for each in traceback.extract_stack(frame)]
        raise _TooLong(_place(path, frames))

    began, before_it = time.monotonic(), _waited_seconds()

    def look(number: int, frame: FrameType | None) -> None:
        waited = max((seconds - before_it.get(name, 0) for name, seconds in _waited_seconds().items()), default=0)
        left = began + LONGEST_SECONDS + waited - time.monotonic()
        if left <= 0:
            interrupt(number, frame)
        signal.setitimer(signal.ITIMER_REAL, left)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _waited_seconds() -> dict[str, float]:
    """By thread of this process, how long it has waited for a core so far; empty where the kernel does not say."""
    waited = {}
    for place in Path("/proc/self/task").glob("*/schedstat"):  # running, waiting (ns), turns
        with contextlib.suppress(OSError, IndexError, ValueError):  # a thread that has ended meanwhile
            waited[place.parent.name] = int(place.read_text().split()[1]) / 1e9
    return waited


def _place(path: Path, frames: list[tuple[str, int | None]]) -> str:
    """The innermost of the frames that is in a file of the recipe's folder."""
    own = [(Path(file), line) for file, line in frames if Path(file).parent == path.parent]
    return f" in line {own[-1][1]} of {own[-1][0].name}" if own else ""
