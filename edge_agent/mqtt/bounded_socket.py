"""A socket whose reader never holds a packet that is too long (`fleet_host.mqtt_packets`)."""

import socket
import ssl

from fleet_host.mqtt_packets import PacketGate

READ_AHEAD_BYTES = 16 * 1024
"""In one system call: what paho reads byte by byte comes from memory."""


class BoundedSocket:
    """Wraps a connected socket; it has the methods of one that paho and aiomqtt use."""

    def __init__(self, connection: socket.socket, gate: PacketGate) -> None:
        self._connection = connection
        self._gate = gate
        self._ready = b""
        self.lost = ""
        """Why nothing more will come, in words; empty while the connection is there."""

    def fileno(self) -> int:
        """For the event loop."""
        return self._connection.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._connection.setblocking(flag)

    def close(self) -> None:
        """As a socket's."""
        self._connection.close()

    def send(self, buffer: bytes | bytearray) -> int:
        """As a socket's."""
        return self._connection.send(buffer)

    def pending(self) -> int:
        """How many bytes `recv` would return although the event loop sees none come."""
        decrypted = self._connection.pending() if isinstance(self._connection, ssl.SSLSocket) else 0
        return len(self._ready) + decrypted

    def recv(self, buffer_size: int) -> bytes:
        """At most `buffer_size` bytes of packets that may pass; empty where the broker has closed the connection.

        Raises:
            BlockingIOError: nothing is there.
            OSError: the connection is lost, or what came are no packets.
        """
        if not self._ready:
            if not self._receive():
                return b""
            if not self._ready:
                raise BlockingIOError
        taken, self._ready = self._ready[:buffer_size], self._ready[buffer_size:]
        return taken

    def _receive(self) -> bytes:
        try:
            data = self._connection.recv(READ_AHEAD_BYTES)
            self._ready = self._gate.pass_on(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            self.lost = str(error)
            raise
        self.lost = "" if data else "the broker has closed the connection"
        return data
