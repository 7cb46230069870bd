"""What a program tells systemd: that it serves, that it goes on, and how it is doing (man 3 sd_notify).

A datagram to a socket is all there is to it: the libraries for it need libsystemd's headers, or nobody keeps them.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

MICROSECONDS = 1_000_000
SIGNS_IN_AN_INTERVAL = 3
"""One that comes late is no harm."""


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Whoever started this process; nobody where `address` is empty.

    `watchdog_seconds`: it kills this process where no `alive` comes for so long; None where it does not.
    """

    address: str = ""
    watchdog_seconds: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], process: int) -> "ServiceManager":
        """The one that `environment` names to the process of that number."""
        meant_for = environment.get("WATCHDOG_PID") or str(process)
        microseconds = environment.get("WATCHDOG_USEC", "")
        watched = microseconds.isdecimal() and int(microseconds) and meant_for == str(process)
        return cls(environment.get("NOTIFY_SOCKET", ""), int(microseconds) / MICROSECONDS if watched else None)

    @property
    def sign_seconds(self) -> float | None:
        """How often it is to hear that this process goes on."""
        return None if self.watchdog_seconds is None else self.watchdog_seconds / SIGNS_IN_AN_INTERVAL

    def ready(self) -> None:
        """This process serves from now on."""
        self._tell("READY=1")

    def alive(self) -> None:
        """This process goes on."""
        self._tell("WATCHDOG=1")

    def status(self, words: str) -> None:
        """What `systemctl status` shows."""
        self._tell(f"STATUS={' '.join(words.split())}")

    def _tell(self, line: str) -> None:
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_manager:
            to_manager.setblocking(False)
            to_manager.sendto(line.encode(), name)


def this_service_manager() -> ServiceManager:
    """The one that has started this process."""
    return ServiceManager.of(os.environ, os.getpid())
