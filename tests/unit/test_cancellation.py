"""Whoever is stopped at the moment in which its connection breaks ends all the same."""

import asyncio
import random
from unittest.mock import patch

from edge_agent.shell.connection.link import Link, LinkDownError
from edge_agent.shell.source_runner import SourceRunner
from edge_agent.sources import plugins
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import SourcePlugin
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol.kinds import PresenceState
from fleet_protocol.topics import state
from tests.month.network import Network
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD
from tests.support.jumping_clock import run

LONG = 3600.0


async def stop(running: asyncio.Task[None]) -> None:
    """It has long ended by then, or never will."""
    running.cancel()
    await asyncio.wait({running}, timeout=LONG)
    assert running.done()
    assert running.cancelled()


def test_link_that_breaks_while_it_is_stopped_ends() -> None:
    network = Network(random.Random(1))
    will = state(FLEET, SHARD, "attic"), SigningDevice("attic").presence(PresenceState.OFFLINE, 1)

    connected, broken = asyncio.Event(), asyncio.Event()

    async def stay() -> None:
        connected.set()
        await broken.wait()
        raise LinkDownError("the link broke before the acknowledgement")

    async def scenario() -> None:
        network.set_reachable("attic", True)
        link = Link(
            BrokerSettings("broker.example"),
            f"{FLEET}-attic",
            last_will=will,
            on_connected=stay,
            handle=lambda _topic, _data: None,
            filters=[],
            maximum_message_bytes=1000,
        )
        running = asyncio.create_task(link.run())
        await connected.wait()
        broken.set()
        await asyncio.sleep(0)
        await stop(running)

    with patch("edge_agent.shell.connection.link.BrokerClient", network.client):
        run(scenario())


def test_source_that_fails_while_it_is_stopped_ends() -> None:
    broken = asyncio.Event()

    async def wait() -> None:
        await broken.wait()
        raise OSError("the connection broke")

    async def bring(_settings: object, _readings: object) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())

    async def scenario() -> None:
        with patch.object(plugins, "SHIPPED", {"test": SourcePlugin(SourceSettings, bring)}):
            runner = SourceRunner([SourceSettings("test", "tiny", settings={"kind": "x", "task": "y"})], None, None)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(1)
        broken.set()
        await asyncio.sleep(0)
        await stop(running)

    run(scenario())
