"""The agent's link on a real Mosquitto that comes and goes, refuses, and is used by others."""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.shell.connection.link import Link
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol.errors import ConfigurationError
from tests.support.broker import Broker
from tests.support.waiting import until

STATE = "edgeflock/v1/home/0/kitchen/state"
UP = "edgeflock/v1/home/0/kitchen/up"
DOWN = "edgeflock/v1/home/0/kitchen/down"
TOPIC = "edgeflock/v1/home/blob/ab/0"
LARGEST_MESSAGE = 1000


async def nothing() -> None:
    """A new connection begins with nothing."""


def link_to(
    broker: Broker,
    received: list[bytes],
    *,
    on_connected: Callable[[], Coroutine[None, None, None]] = nothing,
    protocol: str = "5",
    password_file: Path | None = None,
) -> Link:
    return Link(
        BrokerSettings(
            broker.host,
            broker.port,
            protocol=protocol,
            username="pi" if password_file else None,
            password_file=password_file,
        ),
        "kitchen",
        last_will=(STATE, b"gone"),
        on_connected=on_connected,
        handle=lambda _, payload: received.append(payload),
        filters=[DOWN],
        maximum_message_bytes=LARGEST_MESSAGE,
    )


@contextlib.asynccontextmanager
async def running(link: Link) -> AsyncIterator[None]:
    """The link, connected."""
    task = asyncio.create_task(link.run())
    await waited(lambda: link.connected, "it connects")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def waited(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


async def say(broker: Broker, topic: str, *payloads: bytes) -> None:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for payload in payloads:
            await client.publish(topic, payload, qos=1)


@pytest.fixture
def start_broker(tmp_path: Path):
    brokers = []

    def start(**options) -> Broker:
        broker = Broker(tmp_path / "special", **options)
        broker.start()
        brokers.append(broker)
        return broker

    yield start
    for broker in brokers:
        broker.kill()


async def test_who_listens_goes_on_listening_after_a_broker_was_killed(broker: Broker) -> None:
    received: list[bytes] = []
    link = link_to(broker, received)

    async def say_both(payload: bytes) -> None:
        await say(broker, TOPIC, payload)
        await say(broker, DOWN, b"end of " + payload)

    async with running(link):
        async with link.listening_to("edgeflock/v1/home/blob/ab/+"):
            await say_both(b"one")
            await waited(lambda: received == [b"one", b"end of one"], "the first is received")
            broker.kill()
            await waited(lambda: not link.connected, "it notices")
            broker.start()
            await waited(lambda: link.connected, "it connects")
            await say_both(b"two")
            await waited(lambda: received[2:] == [b"two", b"end of two"], "the second is received")
        await say_both(b"three")
        await waited(lambda: received[4:] == [b"end of three"], "the end is received")


async def test_file_that_is_missing_later_is_waited_for(tmp_path, broker: Broker, caplog) -> None:
    password = tmp_path / "password"
    with pytest.raises(ConfigurationError, match="password_file"):
        link_to(broker, [], password_file=password)
    password.write_text("secret")
    link = link_to(broker, [], password_file=password)
    async with running(link):
        password.unlink()
        broker.kill()
        await waited(lambda: "broker.password_file" in caplog.text, "it says what is missing")
        password.write_text("secret")
        broker.start()
        await waited(lambda: link.connected, "it connects")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_messages_that_are_too_long_are_acknowledged_without_being_kept(start_broker, caplog, protocol) -> None:
    broker, received = start_broker(maximum_packet_bytes=0), []
    async with running(link_to(broker, received, protocol=protocol)):
        for number in range(30):  # more than a broker sends ahead of acknowledgements
            await say(broker, DOWN, bytes(200_000), b"short %d" % number)
        await waited(lambda: len(received) == 30, "the short ones are received")
    assert received == [b"short %d" % number for number in range(30)]
    assert caplog.text.count("event=message_too_large") == (1 if protocol == "3.1.1" else 0)  # 5: the broker was told
    assert "event=broker_unreachable" not in caplog.text


async def test_what_the_broker_says_that_it_can_not_take_is_never_sent(start_broker, caplog) -> None:
    broker, received = start_broker(maximum_packet_bytes=2000), []
    link = link_to(broker, received)
    async with running(link):
        for _ in range(3):
            await link.publish(UP, bytes(5000))
            await link.publish(DOWN, b"short")
        await waited(lambda: received == [b"short"] * 3, "the short ones are received")
    assert caplog.text.count(f"event=publication_too_large topic={UP} bytes=5038 limit=2000") == 1
    assert "event=broker_unreachable" not in caplog.text


async def test_publication_that_ends_connections_is_held_back_and_others_pass(start_broker, caplog) -> None:
    broker, received = start_broker(maximum_packet_bytes=2000), []

    async def begin() -> None:
        await link.publish(UP, bytes(5000))
        await link.publish(DOWN, b"short")

    link = link_to(broker, received, on_connected=begin, protocol="3.1.1")
    async with running(link):
        await waited(lambda: received == [b"short"], "the short one is received")
    assert caplog.text.count("event=broker_unreachable") == 3
    assert caplog.text.count("event=publication_ends_connections bytes=5037") == 1
    assert caplog.text.count("event=publication_too_large") == 1


async def test_refused_publication_is_said_once_with_what_to_check(start_broker, caplog) -> None:
    broker, received = start_broker(access_list=f"topic readwrite {DOWN}\n"), []
    link = link_to(broker, received)
    async with running(link):
        for _ in range(3):
            await link.publish(UP, b"update")
        await link.publish(DOWN, b"allowed")
        await waited(lambda: received == [b"allowed"], "what is allowed is received")
    assert caplog.text.count("event=publication_refused") == 1
    for word in (UP, "Not authorized", "code=135", "fleet", "certificate", "access control list"):
        assert word in caplog.text


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_refused_subscription_is_said_once_with_what_to_check(tmp_path, start_broker, caplog, protocol) -> None:
    rules = {
        "defaultACLAccess": {
            "publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True
        }
    }  # fmt: skip
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    broker = start_broker(security=tmp_path / "rules.json")
    link = link_to(broker, [], protocol=protocol)
    async with running(link):
        async with link.listening_to("edgeflock/v1/home/blob/ab/+"):
            pass
        async with link.listening_to("edgeflock/v1/home/blob/ab/+"):
            pass
    assert caplog.text.count(f"event=subscription_refused filter={DOWN}") == 1
    assert caplog.text.count("event=subscription_refused filter=edgeflock/v1/home/blob/ab/+") == 1
    assert "access control list" in caplog.text


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_broker_that_lets_nobody_in_is_said_once_with_what_to_check(
    tmp_path, start_broker, caplog, protocol
) -> None:
    broker = start_broker(anonymous=False)
    link = link_to(broker, [], protocol=protocol)
    trying = asyncio.create_task(link.run())
    await waited(lambda: caplog.text.count("event=broker_unreachable") > 1, "it has tried more than once")
    trying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trying
    assert caplog.text.count("event=connection_refused client=kitchen") == 1
    for word in ("ot authori", "certificate", "password_file"):
        assert word in caplog.text


async def test_second_device_of_the_same_name_is_said(broker: Broker, caplog) -> None:
    async with running(link_to(broker, [])), running(link_to(broker, [])):
        await waited(lambda: "event=connections_end_at_once" in caplog.text, "one of them says it")
    assert "client=kitchen" in caplog.text
    # Mosquitto says why since 2.1, and before that only ends the connection.
    assert "the broker has closed the connection" in caplog.text or "event=session_taken_over" in caplog.text


async def test_small_packet_does_not_wait_for_the_acknowledgement_of_the_one_before(start_broker):
    link = link_to(start_broker(), [])
    async with running(link):
        assert link._client is not None
        assert link._client._bounded is not None
        connection = socket.socket(fileno=os.dup(link._client._bounded.fileno()))
        with contextlib.closing(connection):
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
