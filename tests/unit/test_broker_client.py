"""A wait for the broker's answer ends when it is cancelled, also at the moment at which the answer comes; and a
connection that is closed while something waits to be sent leaves nothing behind.
"""

import asyncio
import socket

import aiomqtt
import pytest

from edge_agent.mqtt.bounded_socket import BoundedSocket
from edge_agent.mqtt.broker_client import BrokerClient
from fleet_host.broker_settings import BrokerSettings
from fleet_host.mqtt_packets import PacketGate
from tests.support.waiting import DEADLINE_SECONDS


def client() -> BrokerClient:
    return BrokerClient(BrokerSettings("broker.example"), "pi", maximum_packet_bytes=1000, on_too_long=lambda *_: None)


async def test_cancellation_that_comes_together_with_the_answer_is_not_lost():
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client()._wait_for(answer, timeout=DEADLINE_SECONDS))
    await asyncio.sleep(0)  # it waits now
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_answer_that_does_not_come_in_time_is_an_error_of_the_connection():
    with pytest.raises(aiomqtt.MqttError, match="no answer in time"):
        await client()._wait_for(asyncio.Event().wait(), timeout=0.001)


class Hanging:
    """A broker that ends each connection after some packets that it has read, and answers the CONNECT if `greets`."""

    def __init__(self, packets: int, *, greets: bool) -> None:
        self._packets, self._greets = packets, greets

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(self._packets):
            _, length = await reader.readexactly(2)
            await reader.readexactly(length)
            if self._greets and not number:
                writer.write(bytes([0x20, 3, 0, 0, 0]))  # CONNACK
        writer.close()


@pytest.mark.parametrize(
    ("packets", "asked"),
    [
        (1, lambda client: asyncio.sleep(0)),
        (2, lambda client: client.subscribe("a")),
        (2, lambda client: client.hand_over("a", b"b")),
    ],
    ids=["CONNECT", "SUBSCRIBE", "PUBLISH"],
)
async def test_nobody_waits_for_the_answer_of_a_connection_that_has_ended(packets, asked):
    async with Hanging(packets, greets=packets > 1) as port:
        settings = BrokerSettings("127.0.0.1", port)
        client = BrokerClient(settings, "pi", maximum_packet_bytes=1000, on_too_long=lambda *_: None)
        client.timeout = 10 * DEADLINE_SECONDS
        with pytest.raises(aiomqtt.MqttError):
            async with asyncio.timeout(DEADLINE_SECONDS), client:
                await asked(client)


def connection() -> tuple[BoundedSocket, socket.socket]:
    """And its other end."""
    own, other = socket.socketpair()
    return BoundedSocket(own, PacketGate(1000, mqtt5=True, on_too_long=lambda *_: None)), other


async def test_socket_that_is_closed_before_it_is_watched_leaves_no_error_and_no_other_file_watched():
    errors: list[dict] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    own, other = connection()
    number = own.fileno()
    broken = client()
    broken._on_socket_register_write(broken._client, None, own)
    own.close()
    await asyncio.sleep(0)
    broken._on_socket_register_write(broken._client, None, own)
    others = socket.socketpair()
    assert number in [each.fileno() for each in others], "the number is another socket's by now"
    await asyncio.sleep(0)
    assert not errors
    assert not loop.remove_writer(number)
    for each in (other, *others):
        each.close()


async def test_error_of_a_write_ends_the_connection():
    own, other = connection()
    broken = client()

    def loop_write() -> None:
        asyncio.get_running_loop().remove_writer(own.fileno())
        raise OSError("broken pipe")

    broken._client.loop_write = loop_write
    broken._on_socket_register_write(broken._client, None, own)
    with pytest.raises(OSError, match="broken pipe"):
        await broken._disconnected
    own.close()
    other.close()
