"""The helper's status, for people and programs on its machine: one line of JSON to each that connects."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edge_agent.sources.bound_socket import bound_socket
from edge_agent.verbs.own_status import Listener, ask_line
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.printable import printable

QUESTION = b"status"
QUESTION_SECONDS = 10.0
"""From the connection to the end of the question."""
HELPER = Listener("helper", "edgeflock-helper")
"""As messages name it to whom it doesn't answer."""


class HelperStatus(msgspec.Struct):
    """What a helper does. `versions` are those that it offers, by task; `trouble` says why a task is not offered. What
    is counted, is so since its start. `mask_key` is a mask helper's, in hex; empty of any other.
    """

    helper: str
    connected: bool
    enrolled: bool
    sessions: int
    steps: int
    versions: dict[str, int]
    trouble: dict[str, str]
    waiting_updates: int
    accepted_updates: int
    rejected_updates: int
    mask_key: str = ""
    answered_requests: int = 0
    refused_requests: int = 0
    ignored_requests: int = 0


class StatusSocket:
    """Serves the socket for as long as the helper runs."""

    def __init__(self, path: Path, status: Callable[[], HelperStatus]) -> None:
        self._path = path
        self._status = status
        self.listens = asyncio.Event()
        """Set once the socket is there."""

    async def serve(self) -> None:
        """Run until cancelled.

        Raises:
            ConfigurationError: the socket can't be made, or another process listens at it.
        """
        server = await asyncio.start_unix_server(self._answer, sock=bound_socket(self._path))
        self.listens.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    async def _answer(self, asked: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError, TimeoutError):
            async with asyncio.timeout(QUESTION_SECONDS):
                await (
                    asked.readline()
                )  # whatever is asked; what is not read would be lost for the asker with the answer
            answer.write(msgspec.json.encode(self._status()) + b"\n")
            await answer.drain()
        answer.close()


def ask_helper(path: Path) -> bytes:
    """The line of JSON of the helper that listens at the socket.

    Raises:
        ConfigurationError: none does, or it gives no answer.
    """
    return ask_line(path, QUESTION, HELPER)


def words_of(answer: bytes) -> str:
    """The lines that people read.

    Raises:
        ConfigurationError: the helper is another release.
    """
    try:
        status = msgspec.json.decode(answer, type=HelperStatus)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"the helper's answer is not this release's ({error}): restart it") from error
    return "".join(f"{printable(line)}\n" for line in _lines(status))


def _lines(status: HelperStatus) -> Iterator[str]:
    link = "connected" if status.connected else "not connected to the broker"
    enrolled = "" if status.enrolled else ", not accepted by the coordinator"
    if status.mask_key:
        yield f"{status.helper}: mask helper {status.mask_key}, {link}{enrolled}"
        yield (
            f"requests: {status.answered_requests} answered since the start, {status.refused_requests} refused,"
            f" {status.ignored_requests} ignored as they came too often or too late"
        )
        return
    yield f"{status.helper}: {status.sessions} sessions, {status.steps} steps since the start, {link}{enrolled}"
    yield (
        f"updates: {status.waiting_updates} waiting for a receipt; since the start {status.accepted_updates} accepted,"
        f" {status.rejected_updates} refused"
    )
    for task, version in status.versions.items():
        yield f"{task}: offers version {version}"
    for task, why in status.trouble.items():
        yield f"{task}: not offered; {why}"
