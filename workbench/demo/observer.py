"""Subscribes to the whole fleet's topics, and counts the bytes that were published."""

import asyncio
import contextlib
from collections import Counter

import aiomqtt

from edge_agent.mqtt.broker_client import PROTOCOLS
from fleet_protocol.topics import ROOT
from workbench.demo.brokers import BrokerPlan
from workbench.demo.fleet_files import FLEET

RECONNECT_SECONDS = 0.2
SILENT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 20.0
"""For what a busy machine has not counted yet."""
UPLINK_LEAVES = {"up", "state"}
TO_RELAY, FROM_RELAY = "session", "relayed"
"""Leaves of what devices and helpers send one another."""


class Observer:
    """Payload bytes by direction; uplink also per device, and apart from all of these what passes the relay."""

    def __init__(self, broker: BrokerPlan) -> None:
        self._broker = broker
        self.uplink: Counter[str] = Counter()
        self.downlink_bytes = 0
        self.relayed_up: Counter[str] = Counter()
        self.relayed_down: Counter[str] = Counter()
        self._by_device = dict.fromkeys(UPLINK_LEAVES, self.uplink)
        self._by_device |= {TO_RELAY: self.relayed_up, FROM_RELAY: self.relayed_down}
        self._messages = 0
        self.subscribed = asyncio.Event()
        self.manifest_received = asyncio.Event()

    async def run(self) -> None:
        """Count until cancelled, across restarts of the broker."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client(
                    self._broker.host,
                    self._broker.port,
                    protocol=PROTOCOLS[self._broker.protocol],
                    identifier="demo-observer",
                ) as client:
                    await client.subscribe(f"{ROOT}/{FLEET}/#", qos=1)
                    self.subscribed.set()
                    async for message in client.messages:
                        self._count(message)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def until_silent(self) -> None:
        """Wait until nothing more comes, when everybody else has ended; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                counted = -1
                while counted != self._messages:
                    counted = self._messages
                    await asyncio.sleep(SILENT_SECONDS)

    def _count(self, message: aiomqtt.Message) -> None:
        self._messages += 1
        parts = message.topic.value.split("/")
        if parts[-2] == "task":
            self.manifest_received.set()
        if message.retain or not isinstance(message.payload, bytes):
            return  # what the broker repeats to a new subscriber was counted when it was published
        if (counted := self._by_device.get(parts[-1])) is not None:
            counted[parts[-2]] += len(message.payload)
        else:
            self.downlink_bytes += len(message.payload)
