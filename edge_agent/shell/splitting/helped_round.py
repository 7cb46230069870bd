"""One round that a helper takes part in: sessions are opened for it, and the worker's requests go through them."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import msgspec

from edge_agent.core.left_out_helpers import BLAMED, LeftOutHelpers
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.carrier import SessionCarrier
from edge_agent.worker.contract import Reply, SessionLost, StepAnswered, StepAsked, TrainingFailure, Verdict
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

    def __init__(
        self, identity: Identity, link: Link, wanted: Wanted, settings: SplitSettings, left_out: LeftOutHelpers
    ) -> None:
        """`left_out` is what this device knows of helpers, and learns in this round."""
        self._identity = identity
        self._link = link
        self._wanted = wanted
        self._settings = settings
        self._trusted = [bytes.fromhex(key.strip()) for key in settings.trusted_helpers]
        self._left_out = left_out
        self._end: DeviceEnd | None = None
        self._carrier: SessionCarrier[DeviceEvent] | None = None
        self._carrying: asyncio.Future[None] | None = None
        self._opening: asyncio.Future[Refused | None] | None = None
        self._moving: asyncio.Future[None] | None = None
        self._helpers = 0
        self._waiting: deque[bytes] = deque()
        self._unanswered = 0
        self._answered = 0
        """By the helper that takes part."""
        self._is_lost = False
        """Whether the worker knows that no helper takes part any more."""
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
        fetch it, and is asked once more; if it has left it behind, a new round begins with its own. Where there are
        none but those that this device leaves out for now, the round is put off at once.

        Raises:
            NoHelperError: none does.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_SECONDS
        unlike_versions = 0
        while (refused := await self._ask_relay()) is not None:
            await self._leave()
            pause = max(refused.retry_seconds, SHORTEST_PAUSE_SECONDS)
            if refused.reason == SessionReason.UNTRUSTED_HELPER:  # the relay has others, and does not know
                self._blame(refused.detail)
                pause = SHORTEST_PAUSE_SECONDS
            unlike_versions += refused.reason == SessionReason.UNKNOWN_VERSION
            left_out = self._left_out.words(loop.time())
            nobody_else = bool(left_out) and refused.reason == SessionReason.NO_HELPER
            if nobody_else or loop.time() + pause > until or unlike_versions == MOST_UNLIKE_VERSIONS:
                words = f"no helper for cut {self._wanted.cut}: {refused.reason}: {refused.detail}"
                raise NoHelperError(f"{words}; {left_out}" if left_out else words, pause)
            await asyncio.sleep(pause)

    def judged(self, verdict: Verdict) -> Verdict:
        """What the end of the round says of its helper. One with which a round succeeds is forgiven what was before.
        One that answers wrong, has given values with which the round diverged, or had the round wait when its time was
        over, is left out for a while; and neither version nor samples are to blame then.
        """
        if self._is_lost:
            return verdict
        if not isinstance(verdict, TrainingFailure):
            if self._answered:
                self._left_out.forgive(self.helper)
            return verdict
        has_diverged = verdict.diverged and self._answered > 0
        was_waited_for = verdict.out_of_time and self._unanswered > 0
        if not (verdict.helper_lost or has_diverged or was_waited_for):
            return verdict
        self._blame(verdict.error)
        return msgspec.structs.replace(verdict, helper_lost=True, diverged=False)

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
        self._end = DeviceEnd(
            party,
            replace(self._wanted, without=self._left_out.at(loop.time())),
            secrets.token_bytes,
            loop.time(),
            trusted=self._trusted,
            answer_seconds=self._settings.answer_seconds,
        )
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
                self._answered += 1
                self._tell(StepAnswered(event.number, event.message))
                self._send_waiting()
            case Moved() | Ended():
                words = f"{event.reason}: {event.detail}"
                has_left = isinstance(event, Moved) and event.reason != SessionReason.HELPER_GONE
                if self._link.connected and (event.reason in BLAMED or (has_left and not self._answered)):
                    self._blame(words)
                self._move(f"helper {self.helper}: {words}")

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
        self._answered = 0
        logger.warning(log_line("helper_lost", task=self._wanted.task, helper=self.helper, reason=why))
        self._moving = asyncio.ensure_future(self._open_anew(why))

    async def _open_anew(self, why: str) -> None:
        await self._leave()
        if self._helpers >= MOST_HELPERS:
            why = f"{why}; {self._helpers} helpers have gone in this round"
            self._blame(why)
            self._lose(why)
            return
        try:
            await self.open()
        except NoHelperError as error:
            self._lose(f"{why}; {error}")
            return
        logger.info(log_line("helper_found", task=self._wanted.task, helper=self.helper, cut=self._wanted.cut))
        self._tell(SessionLost(why, moved=True))

    def _lose(self, why: str) -> None:
        self._is_lost = True
        self._tell(SessionLost(why))

    def _blame(self, why: str) -> None:
        if not self.helper:  # the next one has not taken the session yet
            return
        seconds = self._left_out.blame(self.helper, why, asyncio.get_running_loop().time())
        logger.warning(
            log_line(
                "helper_left_out",
                task=self._wanted.task,
                helper=self.helper,
                for_s=round(seconds),
                reason=why,
                remedy="none if rounds go on; if several devices say so of one helper, see its log",
            )
        )

    def _tell(self, reply: Reply) -> None:
        if self._reply is None:
            self._early.append(reply)
        else:
            self._reply(reply)
