"""The agent's link on a real Mosquitto that comes and goes."""

import asyncio
import contextlib

import aiomqtt

from edge_agent.shell.link import Link
from fleet_host.broker_settings import BrokerSettings
from tests.support.broker import Broker
from tests.support.waiting import until

TOPIC = "edgeflock/v1/home/blob/ab/0"


async def nothing() -> None:
    """A new connection begins with nothing."""


async def test_who_listens_goes_on_listening_after_a_broker_was_killed(broker: Broker) -> None:
    received: list[bytes] = []
    link = Link(
        BrokerSettings(broker.host, broker.port),
        "kitchen",
        last_will=("edgeflock/v1/home/0/kitchen/state", b""),
        on_connected=nothing,
        handle=lambda _, payload: received.append(payload),
        filters=["edgeflock/v1/home/0/kitchen/down"],
    )

    async def say(payload: bytes) -> None:
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.publish(TOPIC, payload, qos=1)
            await client.publish("edgeflock/v1/home/0/kitchen/down", b"end of " + payload, qos=1)

    running = asyncio.create_task(link.run())
    await asyncio.to_thread(until, lambda: link.connected, "it connects")
    async with link.listening_to("edgeflock/v1/home/blob/ab/+"):
        await say(b"one")
        await asyncio.to_thread(until, lambda: received == [b"one", b"end of one"], "the first is received")
        broker.kill()
        await asyncio.to_thread(until, lambda: not link.connected, "it notices")
        broker.start()
        await asyncio.to_thread(until, lambda: link.connected, "it connects")
        await say(b"two")
        await asyncio.to_thread(until, lambda: received[2:] == [b"two", b"end of two"], "the second is received")
    await say(b"three")
    await asyncio.to_thread(until, lambda: received[4:] == [b"end of three"], "the end is received")
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
