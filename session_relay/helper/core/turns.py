"""How many requests of a session a version's process has at once: one that floods waits behind itself. Pure."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Request = TypeVar("Request")


@dataclass(slots=True)
class Turns(Generic[Request]):
    """At most `most` of each session, as many as an honest device has under way. What waits is bounded by sessions."""

    most: int
    _at_work: Counter[bytes] = field(default_factory=Counter)
    _waiting: dict[bytes, deque[Request]] = field(default_factory=dict)

    def asked(self, session: bytes, request: Request) -> list[Request]:
        """What the process is to have now: the request, or nothing yet."""
        self._waiting.setdefault(session, deque()).append(request)
        return self._next(session)

    def answered(self, session: bytes) -> list[Request]:
        """What it is to have now that it has answered one of a session, which may be over by now."""
        self._at_work[session] -= 1
        if self._at_work[session] <= 0:
            del self._at_work[session]
        return self._next(session)

    def left(self, session: bytes) -> None:
        """Forget what waits of a session that is over."""
        self._waiting.pop(session, None)

    def _next(self, session: bytes) -> list[Request]:
        waiting = self._waiting.get(session)
        if not waiting or self._at_work[session] >= self.most:
            return []
        self._at_work[session] += 1
        return [waiting.popleft()]
