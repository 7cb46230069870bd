"""The Unix socket at the path that agent.toml names: made with its mode, in nobody else's place; who has connected."""

import contextlib
import os
import pwd
import socket
import stat
import struct
from pathlib import Path

from fleet_protocol.errors import ConfigurationError

SOCKET_MODE = 0o660
"""For the agent's account and its group."""

MAX_PATH_BYTES = 107
"""Linux has room for 108, of which the last is zero (unix(7))."""


def bound_socket(path: Path) -> socket.socket:
    """A new socket at `path`, in the place of one that nobody serves.

    Raises:
        ConfigurationError: it can't be made there, or another process listens at it.
    """
    check_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_unused(path)
        return _bound(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"sample_socket {path}: {error}; choose another path") from error


def check_path(path: Path) -> None:
    """Whether a socket can have this path.

    Raises:
        ConfigurationError: it is too long.
    """
    if (length := len(os.fsencode(path))) > MAX_PATH_BYTES:
        raise ConfigurationError(
            f"sample_socket {path}: its path has {length} bytes, a socket's has at most {MAX_PATH_BYTES}; choose a"
            " shorter one, as /run/edge-agent/samples.sock"
        )


def account_of(connection: socket.socket) -> str:
    """The account of the program at the other end, as the kernel knows it."""
    _, user, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    try:
        return f"account {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"account {user}"


def _require_unused(path: Path) -> None:
    """Refuse a socket at which somebody listens. One that a killed agent left behind is replaced.

    Raises:
        ConfigurationError: it is in use.
        OSError: there is something that can't be asked.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)  # a listener that is too busy to take it is one too
        try:
            asking.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return
        except BlockingIOError:
            pass
    raise ConfigurationError(
        f"sample_socket {path} is in use by another agent; choose another path, or stop the other agent"
    )


def _bound(path: Path) -> socket.socket:
    """It has its mode from the start: a path that is changed later may lead elsewhere by then."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    made = socket.socket(socket.AF_UNIX)
    masked = os.umask(~SOCKET_MODE & 0o777)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(masked)
    return made
