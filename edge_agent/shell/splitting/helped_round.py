"""One round that a helper takes part in: sessions are opened for it, and the worker's requests go through them."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.carrier import SessionCarrier
from edge_agent.worker.contract import Reply, SessionLost, StepAnswered, StepAsked
from edge_agent.worker.supervisor import OverloadError
from fleet_host.log_lines import log_line
from fleet_protocol.kinds.session_fields import SessionReason
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Answered, DeviceEvent, Ended, Granted, Moved, Refused, Wanted
from fleet_protocol.sessions.frames import MAX_CONTENT_BYTES

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""A round that is refused a helper asks again for so long; then it is deferred."""
SHORTEST_PAUSE_SECONDS = 1.0
"""Between two openings."""
MOST_UNLIKE_VERSIONS = 2
"""Refusals for the round's version, after which it is given up."""
MOST_HELPERS = 8
"""In one round, one after the other."""


class NoHelperError(Exception):
    """No helper takes part in the round now; says why, and when to ask again."""

    def __init__(self, words: str, retry_seconds: float) -> None:
        super().__init__(words)
        self.retry_seconds = retry_seconds


class HelpedRound:
    """A session at a time. It is what the worker asks (`worker.supervisor.StepHelper`)."""

    def __init__(self, identity: Identity, link: Link, wanted: Wanted, trusted: Collection[bytes]) -> None:
        """`trusted` are the keys of the helpers that the owner trusts; empty: any that the operator allows."""
        self._identity = identity
        self._link = link
        self._wanted = wanted
        self._trusted = trusted
        self._end: DeviceEnd | None = None
        self._carrier: SessionCarrier[DeviceEvent] | None = None
        self._carrying: asyncio.Future[None] | None = None
        self._opening: asyncio.Future[Refused | None] | None = None
        self._moving: asyncio.Future[None] | None = None
        self._helpers = 0
        self._waiting: deque[bytes] = deque()
        self._unanswered = 0
        self._reply: Callable[[Reply], None] | None = None
        self._early: list[Reply] = []
        """What was to be said before the worker had started."""

    @property
    def helper(self) -> str:
        """Who takes part, or did last."""
        return self._end.helper if self._end else ""

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay."""
        if self._carrier is not None:
            self._carrier.relayed(data)

    def connected(self) -> None:
        """The connection to the broker is there, again or still."""
        if self._carrier is not None:
            self._carrier.connected()

    async def open(self) -> None:
        """Ask until a helper takes part, for as long as `PATIENCE_SECONDS`. One that has not the round's version may
        fetch it, and is asked once more; if it has left it behind, a new round begins with its own.

        Raises:
            NoHelperError: none does.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        unlike_versions = 0
        while (refused := await self._ask_relay()) is not None:
            await self._leave()
            pause = max(refused.retry_seconds, SHORTEST_PAUSE_SECONDS)
            unlike_versions += refused.reason == SessionReason.UNKNOWN_VERSION
            if loop.time() + pause > until or unlike_versions == MOST_UNLIKE_VERSIONS:
                words = f"no helper for cut {self._wanted.cut}: {refused.reason}: {refused.detail}"
                raise NoHelperError(words, pause)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End the session, whatever is under way."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.wait({self._moving})
        await self._leave()

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """The round's worker has started; `reply` is how it is answered."""
        self._reply = reply
        for early in self._early:
            reply(early)
        self._early.clear()

    def ask(self, asked: StepAsked) -> None:
        """The worker asks for a step; one for a helper that is gone is dropped.

        Raises:
            OverloadError: it has asked for more than a session takes, or for something larger.
        """
        if asked.helper != self._helpers:
            return
        if self._unanswered >= MAX_REQUESTS_IN_FLIGHT:
            raise OverloadError(f"worker asked for more than {MAX_REQUESTS_IN_FLIGHT} steps at once")
        if len(asked.request) > MAX_CONTENT_BYTES:
            words = f"worker asked for a step of {len(asked.request)} bytes, at most {MAX_CONTENT_BYTES} pass"
            raise OverloadError(f"{words}; export the task with a smaller batch_size or another format in [split]")
        self._unanswered += 1
        self._waiting.append(asked.request)
        self._send_waiting()

    async def _ask_relay(self) -> Refused | None:
        """Open a session; None where it is granted."""
        loop = asyncio.get_running_loop()
        self._opening = loop.create_future()
        party = self._identity.party()
        self._end = DeviceEnd(party, self._wanted, secrets.token_bytes, loop.time(), trusted=self._trusted)
        self._carrier = SessionCarrier(self._end, party.topic, self._link, self._handle)
        self._carrying = asyncio.ensure_future(self._carrier.run())
        return await self._opening

    async def _leave(self) -> None:
        carrying, self._carrying = self._carrying, None
        if carrying is not None:
            carrying.cancel()
            await asyncio.wait({carrying})
        if self._end is not None and self._carrier is not None:
            self._end.leave()
            self._carrier.publish()
        self._carrier = None

    def _handle(self, event: DeviceEvent) -> None:
        match event:
            case Granted():
                self._answer_opening(None)
            case Refused():
                self._answer_opening(event)
            case Answered():
                self._unanswered -= 1
                self._tell(StepAnswered(event.number, event.message))
                self._send_waiting()
            case Moved() | Ended():
                self._move(f"helper {self.helper}: {event.reason}: {event.detail}")

    def _answer_opening(self, answer: Refused | None) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(answer)

    def _send_waiting(self) -> None:
        while self._end is not None and self._waiting and self._end.has_room:
            self._end.request(self._waiting.popleft())
        if self._carrier is not None:
            self._carrier.stir()

    def _move(self, why: str) -> None:
        """Nothing of what was asked is answered any more: look for another helper."""
        self._helpers += 1
        self._waiting.clear()
        self._unanswered = 0
        logger.warning(log_line("helper_lost", task=self._wanted.task, helper=self.helper, reason=why))
        self._moving = asyncio.ensure_future(self._open_anew(why))

    async def _open_anew(self, why: str) -> None:
        await self._leave()
        if self._helpers >= MOST_HELPERS:
            self._tell(SessionLost(f"{why}; {self._helpers} helpers have gone in this round"))
            return
        try:
            await self.open()
        except NoHelperError as error:
            self._tell(SessionLost(f"{why}; {error}"))
            return
        logger.info(log_line("helper_found", task=self._wanted.task, helper=self.helper, cut=self._wanted.cut))
        self._tell(SessionLost(why, moved=True))

    def _tell(self, reply: Reply) -> None:
        if self._reply is None:
            self._early.append(reply)
        else:
            self._reply(reply)
