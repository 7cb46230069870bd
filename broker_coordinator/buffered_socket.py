"""A socket that reads ahead and writes together: paho makes four system calls per message in, one per packet out."""

import contextlib
import socket
import ssl

READ_AHEAD_BYTES = 256 * 1024
WRITE_TOGETHER_BYTES = 256 * 1024
"""What may wait to be sent before `send` sends by itself."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BufferedSocket:
    """Wraps a connected socket, of which paho uses no more than these methods. `flush` whenever it is time to send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ahead = b""
        self._position = 0
        self._unsent = bytearray()

    def fileno(self) -> int:
        """For `poll`."""
        return self._connection.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._connection.setblocking(flag)

    def close(self) -> None:
        """Close, after a last attempt to send what waits."""
        with contextlib.suppress(OSError):
            self.flush()
        self._connection.close()

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent)

    def pending(self) -> int:
        """Bytes that can be read without asking the system."""
        decrypted = self._connection.pending() if isinstance(self._connection, ssl.SSLSocket) else 0
        return len(self._ahead) - self._position + decrypted

    def recv(self, size: int) -> bytes:
        """At most `size` bytes.

        Raises:
            BlockingIOError: nothing is there; with TLS, SSLWantReadError.
            OSError: the connection is lost.
        """
        if self._position == len(self._ahead):
            self._ahead, self._position = self._connection.recv(max(size, READ_AHEAD_BYTES)), 0
        taken = self._ahead[self._position : self._position + size]
        self._position += len(taken)
        return taken

    def send(self, data: bytes) -> int:
        """Take `data` to be sent with the next `flush`.

        Raises:
            BlockingIOError: too much waits, and the connection does not take it.
            OSError: the connection is lost.
        """
        if len(self._unsent) >= WRITE_TOGETHER_BYTES and not self.flush():
            raise BlockingIOError
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
