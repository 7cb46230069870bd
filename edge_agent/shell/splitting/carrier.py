"""Carries what one side of sessions says over the member's connection, and tells it when its time has come."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from edge_agent.shell.connection.link import Link
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.errors import ProtocolError
from fleet_protocol.sessions.events import Outgoing

logger = logging.getLogger(__name__)

SAY_REFUSED_SECONDS = 60.0
"""A message that is refused for the same reason is said once in this time."""
MAX_REASONS_SAID = 16

Event_co = TypeVar("Event_co", covariant=True)


class SessionSide(Protocol[Event_co]):
    """A `DeviceEnd`, or the `HelperSessions` of a helper: what `fleet_protocol.sessions` has."""

    @property
    def deadline(self) -> float | None:
        """When it has something to do, unless something comes before."""

    def receive(self, data: bytes, now: float) -> Sequence[Event_co]:
        """Take in what the relay has sent; raises `ProtocolError`."""

    def reconnected(self, now: float) -> None:
        """The connection to the broker was lost and is there again."""

    def pass_time(self, now: float) -> Sequence[Event_co]:
        """Repeat, and give up, what is due."""

    def outgoing(self, now: float) -> Sequence[Outgoing]:
        """All that is to be published now."""


Told = TypeVar("Told")


class SessionCarrier(Generic[Told]):
    """`side` speaks on `topic`; `handle` hears of its events, in their order."""

    def __init__(self, side: SessionSide[Told], topic: str, link: Link, handle: Callable[[Told], None]) -> None:
        self._side = side
        self.topic = topic
        self._link = link
        self._handle = handle
        self._stirred = asyncio.Event()
        self._said = RateLimit(SAY_REFUSED_SECONDS, MAX_REASONS_SAID)

    def stir(self) -> None:
        """The side has something new to say."""
        self._stirred.set()

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay."""
        now = self._now()
        try:
            events = self._side.receive(data, now)
        except ProtocolError as error:
            if self._said.allows(error.reason, now):
                logger.warning(log_line("session_message_refused", reason=error.reason.value, detail=error.detail))
            return
        self._tell(events)
        self.stir()

    def connected(self) -> None:
        """The connection is there, again or for the first time."""
        self._side.reconnected(self._now())
        self.stir()

    async def run(self) -> None:
        """Publish and wait, until cancelled."""
        while True:
            self._stirred.clear()
            self._tell(self._side.pass_time(self._now()))
            self.publish()
            try:
                async with asyncio.timeout_at(self._side.deadline):
                    await self._stirred.wait()
            except TimeoutError:
                pass

    def publish(self) -> None:
        """Hand over what is to be said now. What finds no connection is said again by the side itself."""
        for message in self._side.outgoing(self._now()):
            self._link.send_off(self.topic, message.data, at_least_once=message.at_least_once)

    def _tell(self, events: Sequence[Told]) -> None:
        for event in events:
            self._handle(event)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
