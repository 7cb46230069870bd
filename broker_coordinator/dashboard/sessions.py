"""What a browser holds that has logged in, and which of them have logged out. Pure."""

import hashlib
import hmac
import re
from typing import Final

SESSION_SECONDS: Final = 12 * 3600
"""How long a browser stays logged in."""
NONCE_BYTES: Final = 8
MOST_ENDED: Final = 10_000
"""Sessions that are remembered as ended; only who has the token can make so many."""

_PARTS = re.compile(r"([0-9]{1,12})\.([0-9a-f]{16})\.([0-9a-f]{64})")


def new_session(token: str, now: float, nonce: bytes) -> str:
    """The value of a cookie that counts for `SESSION_SECONDS`: when it ends, `nonce` of `NONCE_BYTES` that no other
    has, and a code that nobody makes without the token. `now` is in seconds since 1970.
    """
    told = f"{int(now) + SESSION_SECONDS}.{nonce.hex()}"
    return f"{told}.{_code_of(told, token)}"


def is_session(value: str, token: str, now: float) -> bool:
    """Whether `new_session` made it with this token, and it still counts."""
    parts = _PARTS.fullmatch(value)
    if parts is None or not now < int(parts[1]) <= now + SESSION_SECONDS:
        return False
    return hmac.compare_digest(parts[3], _code_of(f"{parts[1]}.{parts[2]}", token))


class EndedSessions:
    """Those that logged out, until they would have ended by themselves: a copy of the cookie counts no longer either.
    In memory alone: after a restart of the dashboard a copy counts again, until it ends.
    """

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}

    def __contains__(self, value: object) -> bool:
        return value in self._ends

    def add(self, value: str, now: float) -> None:
        """Remember one that `is_session`."""
        self._ends = {each: end for each, end in self._ends.items() if end > now}
        self._ends[value] = int(value.partition(".")[0])
        if len(self._ends) > MOST_ENDED:
            del self._ends[next(iter(self._ends))]


def _code_of(told: str, token: str) -> str:
    return hmac.new(token.encode(), b"edgeflock dashboard session " + told.encode(), hashlib.sha256).hexdigest()
