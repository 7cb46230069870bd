"""A broker in memory, and links to it that are hardly ever there: what the shipped link has instead of sockets."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Self

import aiomqtt
from paho.mqtt.client import topic_matches_sub
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES

CONNECT_SECONDS = 300.0
"""Until a client hears that nobody answers: a modem looks for its network."""
SHORTEST_WAY_SECONDS, LONGEST_WAY_SECONDS = 0.05, 0.8
LOST, LOST_ANSWER = 0.01, 0.01
"""Shares of publications with which the link breaks: before the broker has them, and before its PUBACK."""
OVERHEARD = 400
"""Messages that a neighbour has recorded; later ones take the place of any."""

SUCCESS = ReasonCode(PacketTypes.PUBACK, "Success")


@dataclass(slots=True)
class Wire:
    """All that honest devices ever sent: which bytes went under which sequence number."""

    numbers: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def check(self, device: str, data: bytes) -> None:
        """One number has one message, for ever."""
        number = read_envelope(data, MAX_SIGNED_CHUNK_BYTES).header.sequence
        name = digest(data)
        assert self.numbers.setdefault((device, number), name) == name, f"{device} used number {number} twice"

    def forget(self, device: str) -> None:
        """Its memory was lost: it can't know what it has used, and is told."""
        self.numbers = {key: name for key, name in self.numbers.items() if key[0] != device}


class Network:
    """The broker, and whose link is up. `coordinator` takes what is for it, as its durable session does."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.wire = Wire()
        self._reachable: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.retained: dict[str, bytes] = {}
        self.overheard: list[tuple[str, bytes]] = []
        self.coordinator: Callable[[str, bytes], None] = lambda _topic, _data: None
        self.connections = 0
        self._heard = 0
        self._clients: dict[str, MonthClient] = {}

    def client(self, _settings: object, identifier: str, **named: object) -> "MonthClient":
        """What the shipped link makes for each connection."""
        return MonthClient(self, identifier, **named)

    def set_reachable(self, device: str, reachable: bool) -> None:
        """The link of a device comes up, or breaks without a word."""
        if reachable:
            self._reachable[device].set()
            return
        self._reachable[device].clear()
        if client := self._clients.get(device):
            client.break_off()

    async def reach(self, device: str) -> None:
        """Return when its link is up; raises TimeoutError where it does not come up."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._reachable[device].wait()

    def publish(self, topic: str, data: bytes, *, retained: bool = False) -> None:
        """Pass a message on to whoever listens."""
        if retained:
            self.retained[topic] = data
        self._overhear(topic, data)
        if topic.endswith(("/up", "/state")):
            self.coordinator(topic, data)
        for client in self._clients.values():
            client.hear(topic, data)

    def joined(self, client: "MonthClient") -> None:
        """A client has connected."""
        self.connections += 1
        self._clients[client.device] = client

    def left(self, client: "MonthClient", *, without_word: bool) -> None:
        """A client has gone; of one that broke off, the broker publishes the will."""
        if self._clients.get(client.device) is client:
            del self._clients[client.device]
            if without_word:
                self.publish(*client.last_will, retained=True)

    def _overhear(self, topic: str, data: bytes) -> None:
        self._heard += 1
        if len(self.overheard) < OVERHEARD:
            self.overheard.append((topic, data))
        else:
            self.overheard[self.draw.randrange(OVERHEARD)] = topic, data


class MonthClient:
    """Stands where `BrokerClient` does: one connection of one device."""

    mqtt5 = True
    lost = ""
    broker_maximum_bytes = None

    def __init__(self, network: Network, identifier: str, *, last_will: tuple[str, bytes], **_limits: object) -> None:
        self.device = identifier.split("-", 1)[1]
        self.last_will = last_will
        self._network = network
        self._filters: set[str] = set()
        self._messages: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        self._broken = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await self._network.reach(self.device)
        except TimeoutError as error:
            raise aiomqtt.MqttError("timed out") from error
        await self._travel()
        self._network.joined(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._network.left(self, without_word=self._broken.is_set())

    def break_off(self) -> None:
        """The link is gone."""
        self._broken.set()
        self._messages.put_nowait(None)

    def hear(self, topic: str, data: bytes) -> None:
        """A message is on its way to this client, if it has asked for it."""
        if any(topic_matches_sub(each, topic) for each in self._filters):
            self._messages.put_nowait((topic, data))

    @property
    async def messages(self) -> AsyncIterator[SimpleNamespace]:
        """What comes, until the link breaks."""
        while (message := await self._messages.get()) is not None:
            topic, data = message
            yield SimpleNamespace(topic=SimpleNamespace(value=topic), payload=data)
        raise aiomqtt.MqttError("the link broke")

    async def subscribe(self, topic_filter: str, qos: int) -> list[int]:
        await self._travel()
        self._filters.add(topic_filter)
        for topic, data in self._network.retained.items():
            if topic_matches_sub(topic_filter, topic):
                self._messages.put_nowait((topic, data))
        return [qos]

    async def unsubscribe(self, topic_filter: str) -> None:
        await self._travel()
        self._filters.discard(topic_filter)

    async def hand_over(self, topic: str, payload: bytes, *, retain: bool = False) -> ReasonCode:
        """Publish; the link may break before the broker has it, or before its answer has come."""
        self._network.wire.check(self.device, payload)
        await self._travel()
        fate = self._network.draw.random()
        if fate >= LOST:
            self._network.publish(topic, payload, retained=retain)
        if fate < LOST + LOST_ANSWER:
            self.break_off()
            raise aiomqtt.MqttError("the link broke before the answer")
        return SUCCESS

    async def _travel(self) -> None:
        if not self._broken.is_set():
            await asyncio.sleep(self._network.draw.uniform(SHORTEST_WAY_SECONDS, LONGEST_WAY_SECONDS))
        if self._broken.is_set():
            raise aiomqtt.MqttError("the link broke")
