"""Tells the coordinator, which has started the relay, that its loop turns: a byte on standard output now and then."""

import os
import sys
import threading
import time
from typing import Final

from session_relay.relay.core.relay import Relay

SIGN_SECONDS: Final = 1.0
LATE_SECONDS: Final = 30.0
"""A loop that has not turned for so long gives no sign. It waits for a broker that does not answer for less."""
SIGN: Final = b"."


class SignsOfLife:
    """Gives them until the process ends, in a thread of its own: a coordinator that reads none holds up no frame."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._channel = sys.stdout.fileno()
        threading.Thread(target=self._run, name="signs", daemon=True).start()

    def _run(self) -> None:
        while True:
            if time.monotonic() < self._relay.looked_at + LATE_SECONDS:
                try:
                    os.write(self._channel, SIGN)
                except OSError:  # the coordinator is gone, and this process with it
                    return
            time.sleep(SIGN_SECONDS)
