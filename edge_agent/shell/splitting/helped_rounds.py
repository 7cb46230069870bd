"""A round that a helper takes part in: a session is opened for it, and the worker's requests go through it."""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.carrier import SessionCarrier
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import Reply, SessionLost, StepAnswered
from edge_agent.worker.supervisor import OverloadError
from fleet_host.log_lines import log_line
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Answered, DeviceEvent, Ended, Granted, Moved, Refused, Wanted
from fleet_protocol.split_plan import Cut

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""A round that is refused a helper asks again for so long; then it is deferred."""


class NoHelperError(Exception):
    """No helper takes part in the round now; says why."""


class HelpedRounds:
    """At most one session at a time, as there is one round at a time. `settings` are those of each task."""

    def __init__(self, identity: Identity, link: Link, settings: Mapping[str, SplitSettings]) -> None:
        self._identity = identity
        self._link = link
        self._trusted = {
            task: [bytes.fromhex(key.strip()) for key in each.trusted_helpers] for task, each in settings.items()
        }
        self._carrier: SessionCarrier[DeviceEvent] | None = None

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay. What comes between two sessions is of one that is over."""
        if self._carrier is not None:
            self._carrier.relayed(data)

    def connected(self) -> None:
        """The connection to the broker is there."""
        if self._carrier is not None:
            self._carrier.connected()

    @contextlib.asynccontextmanager
    async def session(self, version: ReadyVersion, cut: Cut) -> AsyncIterator["HelpedRound"]:
        """A session with a helper, for the length of a block, over reconnects too.

        Raises:
            NoHelperError: none takes part now.
            LinkDownError: there is no connection.
        """
        wanted = Wanted(
            version.description.task, bytes.fromhex(version.bundle), cut.name, version.number, version.generation
        )
        async with self._link.listening_to(self._identity.relayed_topic), self._granted(wanted) as session:
            logger.info(log_line("session_opened", task=wanted.task, helper=session.helper, cut=cut.name))
            yield session

    @contextlib.asynccontextmanager
    async def _granted(self, wanted: Wanted) -> AsyncIterator["HelpedRound"]:
        """Ask until a helper takes part, for as long as `PATIENCE_SECONDS`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        while True:
            async with self._asked(wanted) as session:
                refused = await session.answer
                if refused is None:
                    yield session
                    return
            retry_at = loop.time() + refused.retry_seconds
            if retry_at > until:
                raise NoHelperError(f"no helper for cut {wanted.cut}: {refused.reason}: {refused.detail}")
            await asyncio.sleep(max(refused.retry_seconds, 1))

    @contextlib.asynccontextmanager
    async def _asked(self, wanted: Wanted) -> AsyncIterator["HelpedRound"]:
        """A session that is opening, and is over at the end of the block."""
        now = asyncio.get_running_loop().time()
        trusted = self._trusted.get(wanted.task, ())
        end = DeviceEnd(self._identity.party(), wanted, secrets.token_bytes, now, trusted=trusted)
        session = HelpedRound(end)
        carrier = self._carrier = SessionCarrier(end, self._identity.session_topic, self._link, session.handle)
        session.stir = carrier.stir
        carrying = asyncio.ensure_future(carrier.run())
        try:
            yield session
        finally:
            carrying.cancel()
            await asyncio.wait({carrying})
            end.leave()
            carrier.publish()
            self._carrier = None


class HelpedRound:
    """The worker's requests of one round, and their answers (`worker.supervisor.StepHelper`)."""

    def __init__(self, end: DeviceEnd) -> None:
        self._end = end
        self._waiting: deque[bytes] = deque()
        self._unanswered = 0
        self._reply: Callable[[Reply], None] | None = None
        self._lost: SessionLost | None = None
        self.stir: Callable[[], None] = _nobody
        """Called when the session has something new to say."""
        self.answer: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
        """To the opening: None where it is granted."""

    @property
    def helper(self) -> str:
        """Who takes part."""
        return self._end.helper

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """The round's worker has started; `reply` is how it is answered."""
        self._reply = reply
        if self._lost is not None:
            reply(self._lost)

    def ask(self, request: bytes) -> None:
        """The worker asks for a step.

        Raises:
            OverloadError: it has asked for more than a session takes.
        """
        if self._unanswered >= MAX_REQUESTS_IN_FLIGHT:
            raise OverloadError(f"worker asked for more than {MAX_REQUESTS_IN_FLIGHT} steps at once")
        self._unanswered += 1
        self._waiting.append(request)
        self._send_waiting()

    def handle(self, event: DeviceEvent) -> None:
        """Something has happened to the session."""
        match event:
            case Granted():
                self._settle(None)
            case Refused():
                self._settle(event)
            case Answered():
                self._unanswered -= 1
                self._tell(StepAnswered(event.message))
                self._send_waiting()
            case Moved() | Ended():
                self._lose(f"session with {self.helper}: {event.reason}: {event.detail}")

    def _settle(self, answer: Refused | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def _send_waiting(self) -> None:
        while self._waiting and self._end.has_room:
            self._end.request(self._waiting.popleft())
        self.stir()

    def _lose(self, words: str) -> None:
        self._lost = SessionLost(words)
        self._tell(self._lost)

    def _tell(self, reply: Reply) -> None:
        if self._reply is not None:
            self._reply(reply)


def _nobody() -> None:
    """Nothing carries the session yet."""
