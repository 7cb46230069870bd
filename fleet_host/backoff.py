"""Exponential back-off with full jitter: thousands of devices that lost one broker must not return together.

Full jitter as in M. Brooker, "Exponential Backoff And Jitter", 2015: uniform between zero and the ceiling.
"""

FIRST_CEILING_SECONDS = 1.0
LAST_CEILING_SECONDS = 60.0
"""A broker carries about 280 TLS handshakes a second on two cores: a minute spreads 10,000 devices."""


def delay_seconds(
    attempt: int, uniform: float, *, first: float = FIRST_CEILING_SECONDS, last: float = LAST_CEILING_SECONDS
) -> float:
    """How long to wait before retry `attempt` (0 is the first), given `uniform` drawn from [0, 1)."""
    return uniform * min(last, first * 2.0 ** min(attempt, 32))
