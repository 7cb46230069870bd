"""Connections of the dashboard that are held open, and take or ask for nothing: each ends, those that go on do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker_coordinator.dashboard import server
from broker_coordinator.dashboard.server import QuietServer, server_of

LARGE = 8 * 2**20
"""Far more than sockets hold."""
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHo"
SOON = 5.0


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """A small answer, or below /large one that no socket holds."""
    await Response(bytes(LARGE if scope["path"] == "/large" else 2))(scope, receive, send)


@pytest.fixture
async def serving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QuietServer]:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(server, "TAKING_SECONDS", 0.3)
    serving = server_of(answer)
    serving.config.host, serving.config.port = "127.0.0.1", 0
    task = asyncio.create_task(serving.serve())
    while not serving.started:  # noqa: ASYNC110 - it announces nothing else
        await asyncio.sleep(0.01)
    try:
        yield serving
    finally:
        serving.should_exit = True
        await task


@pytest.fixture
def port(serving: QuietServer) -> int:
    return serving.servers[0].sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HALF, id="half a request"),
        pytest.param(REQUEST + HALF, id="half a request behind a whole one"),
        pytest.param(REQUEST * 3 + HALF, id="half a request behind several"),
        pytest.param(REQUEST[:-2] + b"Content-Length: 9\r\n\r\n", id="a body that never comes"),
    ],
)
async def test_connection_that_asks_for_nothing_more_is_closed(port, sent):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(SOON):
        answered = await _all_of(reader)
    assert answered.count(b"200 OK") == sent.count(b"GET") - (1 if sent.endswith(HALF) else 0)
    writer.close()


async def test_half_a_request_is_not_kept_by_its_bytes_dripping(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):  # closed upon a byte that it hadn't read
        async with asyncio.timeout(SOON):
            while not reader.at_eof():
                writer.write(b"G")
                await asyncio.sleep(0.05)
                await _some_of(reader)
    writer.close()


async def test_reader_that_takes_nothing_is_left(serving, port):
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(SOON):
        while not serving.server_state.connections:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        while serving.server_state.connections:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    writer.transport.abort()


async def test_slow_reader_gets_all_of_it(port, monkeypatch):
    monkeypatch.setattr(server, "TAKING_SECONDS", 3.0)  # longer than a busy machine lets this process wait
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    taken = 0
    while data := await reader.read(2**17):
        taken += len(data)
        await asyncio.sleep(0.07)  # in all, longer than that
    assert taken > LARGE
    writer.close()


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def _some_of(reader: asyncio.StreamReader) -> None:
    try:
        async with asyncio.timeout(0.01):
            await reader.read(1000)
    except TimeoutError:
        return
