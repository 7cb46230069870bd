"""An executor whose calls run when a test says so."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any


class HeldExecutor(Executor):
    """Keeps what is submitted until `run_next`."""

    def __init__(self) -> None:
        self.held: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, function, /, *arguments, **named):
        """Keep a call."""
        future: Future[Any] = Future()
        self.held.append((future, lambda: function(*arguments, **named)))
        return future

    def run_next(self) -> None:
        """Run the call that was submitted first."""
        future, call = self.held.popleft()
        future.set_result(call())
