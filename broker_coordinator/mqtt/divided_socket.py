"""A socket with two readers: PUBLISH and PUBACK packets go to the link, all others to paho (`traffic`).

It reads many packets and writes many packets in one system call: one call a packet would cost more than the packet.
"""

import contextlib
import socket
import ssl
from collections.abc import Mapping

from broker_coordinator.mqtt.traffic import Arrived, TrafficDivider

READ_AHEAD_BYTES = 256 * 1024

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class DividedSocket:
    """Wraps a connected socket; it has the methods that paho uses. `flush` sends what was written."""

    def __init__(self, connection: socket.socket, divider: TrafficDivider) -> None:
        self._connection = connection
        self._divider = divider
        self._for_paho = b""
        self._end: OSError | None = None
        self._unsent = bytearray()

    def fileno(self) -> int:
        """For `poll`."""
        return self._connection.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._connection.setblocking(flag)

    def close(self) -> None:
        """Close, after one attempt to send what waits."""
        with contextlib.suppress(OSError):
            self.flush()
        self._connection.close()

    def peer_certificate(self) -> Mapping[str, object] | None:
        """What the other side shows, as ssl describes it; None without TLS."""
        return self._connection.getpeercert() if isinstance(self._connection, ssl.SSLSocket) else None

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return len(self._unsent)

    @property
    def has_news_for_paho(self) -> bool:
        """Whether `recv` would return bytes or raise for a lost connection."""
        return bool(self._for_paho) or self._end is not None

    def receive(self) -> bool:
        """Read at most `READ_AHEAD_BYTES` and divide them between the readers; whether there may be more."""
        if self._end is not None:
            return False
        try:
            data = self._connection.recv(READ_AHEAD_BYTES)
            if not data:
                raise ConnectionResetError("the broker has closed the connection")
            self._for_paho += self._divider.divide(data)
        except _NOT_NOW:
            return False
        except OSError as error:
            self._end = error
            return False
        return True

    def take(self) -> Arrived:
        """The PUBLISH and PUBACK packets since the last call."""
        return self._divider.take()

    def recv(self, size: int) -> bytes:
        """For paho: at most `size` bytes.

        Raises:
            BlockingIOError: nothing is there.
            OSError: the connection is lost.
        """
        if self._for_paho:
            taken, self._for_paho = self._for_paho[:size], self._for_paho[size:]
            return taken
        raise self._end or BlockingIOError

    def send(self, data: bytes) -> int:
        """Take whole packets that are to be sent with the next `flush`."""
        self._unsent += data
        return len(data)

    def flush(self) -> bool:
        """Send what waits; False where some of it must wait longer.

        Raises:
            OSError: the connection is lost.
        """
        while self._unsent:
            try:
                # TLS wants the very same bytes again after it could not send: so all of them are offered each time.
                del self._unsent[: self._connection.send(self._unsent)]
            except _NOT_NOW:
                return False
            except OSError:
                self._unsent.clear()
                raise
        return True
