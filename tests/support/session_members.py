"""The two ends of a session on a real broker: each is its shipped core, with a plain client around it."""

import os
import queue
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.shell.connection.identity import Identity
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.kinds import OfferedTask
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import (
    Answered,
    Asked,
    DeviceEvent,
    HelperEvent,
    Outgoing,
    Refused,
    Requested,
    Wanted,
)
from fleet_protocol.sessions.helper_sessions import HelperSessions
from fleet_protocol.sessions.party import Party
from tests.support.broker import Broker
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import until


class Member:
    """A connection to the broker, and everything that has come over it."""

    def __init__(self, name: str, broker: Broker, coordinator_key: VerifyKey, key: SigningKey) -> None:
        self.key = key
        pinned = write_verify_key(coordinator_key)
        self.identity = Identity(FLEET, SHARD, name, key, pinned)
        self.identity.boot = int(time.time())
        self.party: Party = self.identity.party()
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"member-{name}", protocol=MQTTProtocolVersion.MQTTv5)
        self._client.max_queued_messages_set(0)
        self._client.on_message = lambda _client, _, message: self.arrived.put(message.payload)
        subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client.on_connect = lambda *_: self._client.subscribe(self.party.relayed, qos=1)
        self._client.on_subscribe = lambda *_: subscribed.put(None)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        until(lambda: not subscribed.empty(), f"{name} has subscribed")

    def publish(self, outgoing: Outgoing) -> None:
        """On the member's own topic."""
        self._client.publish(self.party.topic, outgoing.data, qos=1 if outgoing.at_least_once else 0)

    def send_up(self, data: bytes) -> None:
        """A message to the coordinator."""
        self._client.publish(self.identity.up_topic, data, qos=1)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()


class DeviceMember(Member):
    """A device: opens one session at a time."""

    end: DeviceEnd

    def open(self, wanted: Wanted, **more) -> DeviceEnd:
        """Begin a session."""
        self.end = DeviceEnd(self.party, wanted, os.urandom, time.monotonic(), **more)
        self.events: list[DeviceEvent] = []
        return self.end

    def turn(self) -> list[DeviceEvent]:
        """Take in what has come, publish what is due; returns every event so far."""
        now = time.monotonic()
        while not self.arrived.empty():
            self.events += self.end.receive(self.arrived.get(), now)
        self.events += self.end.pass_time(now)
        for outgoing in self.end.outgoing(now):
            self.publish(outgoing)
        return self.events

    @property
    def answers(self) -> dict[int, bytes]:
        """By number."""
        return {each.number: each.message for each in self.events if isinstance(each, Answered)}

    @property
    def refusal(self) -> Refused | None:
        """Why there is no session."""
        return next((each for each in self.events if isinstance(each, Refused)), None)


class HelperMember(Member):
    """A helper that grants everything, and answers with what `work` makes of a request; None: not at all."""

    def __init__(self, *arguments, work: Callable[[bytes], bytes | None] = bytes.upper) -> None:
        super().__init__(*arguments)
        self.sessions = HelperSessions(self.party, os.urandom)
        self.events: list[HelperEvent] = []
        self._work = work

    def offer(self, task: str, bundle: bytes, capacity: int = 4) -> None:
        """Offer to serve a task."""
        self.sessions.offer([OfferedTask(task, bundle)], capacity, time.monotonic())

    def turn(self) -> list[HelperEvent]:
        """Take in what has come, answer it, publish what is due; returns every event so far."""
        now = time.monotonic()
        while not self.arrived.empty():
            for event in self.sessions.receive(self.arrived.get(), now):
                self._handle(event, now)
        self.events += self.sessions.pass_time(now)
        for outgoing in self.sessions.outgoing(now):
            self.publish(outgoing)
        return self.events

    def _handle(self, event: HelperEvent, now: float) -> None:
        self.events.append(event)
        match event:
            case Asked():
                self.sessions.grant(event.session, now)
            case Requested():
                if (answer := self._work(event.message)) is not None:
                    self.sessions.answer(event.session, event.number, answer)


def turning(*members: DeviceMember | HelperMember, when: Callable[[], object], what: str) -> None:
    """Turn all of them until the condition holds."""

    def turned() -> object:
        for member in members:
            member.turn()
        return when()

    until(turned, what)
