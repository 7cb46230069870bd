"""Every limit of the relay, with its unit.

Together they bound its memory: 64 MiB of frames that wait, 16 MiB of signed messages, 4 KiB for each of 1,024 sessions,
16 KiB for each of 256 helpers, a few hundred bytes for each device, and what the connection holds: below 128 MiB beside
the interpreter, whatever is sent to it.
"""

from dataclasses import dataclass
from typing import Final

from fleet_protocol.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Those that an operator may choose (`[relay]` in coordinator.toml)."""

    sessions: int = 1024
    """At once, in all."""
    sessions_of_device: int = 4
    """At once; one for each task that it trains split."""
    backlog_bytes: int = 64 * MIB
    """Frames that wait to be passed on."""


MAX_HELPERS: Final = 256
"""That offer themselves at once."""
MAX_DEVICE_BACKLOG_BYTES: Final = 8 * MIB
"""Of one device's sessions, in both directions: as much as one session has credit for."""
MAX_CONTROL_WAITING: Final = 8192
"""Signed messages that wait, of 2 KiB at most: several for each session."""
QUANTUM_BYTES: Final = 64 * KIB + 256
"""That each device may have passed on before it is the next one's turn: the longest frame."""

CONTROL_BURST: Final = 30
"""Signed messages of one device or helper, at once."""
CONTROL_SECONDS: Final = 1.0
"""Between them after that: nobody pays for the signature of what comes sooner."""
HELPER_CONTROL_BURST: Final = 600
"""The same of a helper: one for each session that it may be asked for, and some."""
HELPER_CONTROL_SECONDS: Final = 0.1
UNKNOWN_SECONDS: Final = 1.0
"""Between two looks at frames of one device for sessions that the relay does not know."""
OPENING_BURST: Final = 10
"""Sessions that a device may ask for at once."""
OPENING_SECONDS: Final = 6.0
"""Between them after that."""

GRANT_SECONDS: Final = 10.0
"""How long a helper may take to grant a session, before another one is asked."""
RESUMING_SECONDS: Final = 20.0
"""How long the other end of a session may take that one end has resumed."""
IDLE_SECONDS: Final = 120.0
"""A session without a frame for so long is over; its ends ask for a sign of life every 20 s."""
HELPER_SILENCE_SECONDS: Final = 70.0
"""A helper that has not offered itself for so long is gone; it does every 20 s."""
RETRY_SECONDS: Final = 30
"""After which a device may ask again that was refused for what will not change soon."""
HELPER_RETRY_SECONDS: Final = 10
"""The same where no helper has room, or there is none any more: sessions end, and helpers start again. A device that
asks for half a minute asks three times."""
FIRST_OFFER_RETRY_SECONDS: Final = 5
"""The same as long as no helper has offered itself since the relay started: each does within 20 s."""
