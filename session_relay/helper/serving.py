"""What a helper is there for: it keeps up with the versions of its tasks, offers itself, and serves sessions."""

import asyncio
import logging
import secrets
from dataclasses import dataclass

from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.learning.round_spool import RoundSpool
from edge_agent.shell.membership import Membership
from edge_agent.shell.splitting.carrier import SessionCarrier
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import OfferedTask, Receipt, SessionReason
from fleet_protocol.limits import MAX_PROBLEM_CHARACTERS
from fleet_protocol.sessions.events import Asked, Closed, HelperEvent, OfferRefused, Requested, Wanted
from fleet_protocol.sessions.helper_sessions import HelperSessions
from session_relay.helper.compute_contract import Seen, StepDone
from session_relay.helper.configuration import HelperConfiguration
from session_relay.helper.middles import Middles
from session_relay.helper.served_versions import ServedVersions
from session_relay.helper.summary_spool import SummarySpool

logger = logging.getLogger(__name__)

SOON_SECONDS = 5
"""After which a device is told to ask again that is ahead of the helper, or behind it."""
BUSY_SECONDS = 15
OFFERED_AFTER_SECONDS = (0.0, 2.0, 5.0)
"""From the coordinator's acceptance on: its relay hears of that a little later, and takes no offer before."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a session is not taken, and when it may be tried again."""

    reason: SessionReason
    detail: str
    retry_seconds: int


class Serving:
    """The duty of a helper (`edge_agent.shell.membership`), and its sessions."""

    def __init__(self, configuration: HelperConfiguration, member: Membership, spool: RoundSpool) -> None:
        self._settings = configuration.helper
        self._member = member
        self._versions = ServedVersions(
            member,
            configuration.guards.recheck_seconds,
            changed=self._version_changed,
            in_use=lambda: self._middles.versions,
        )
        self._offer_refused: OfferRefused | None = None
        self._offering_again: asyncio.TimerHandle | None = None
        self._sessions = HelperSessions(member.identity.party(), secrets.token_bytes)
        self._carrier = SessionCarrier(self._sessions, member.identity.session_topic, member.link, self._handle)
        self._summaries = SummarySpool(
            member.database, address=member.identity.encrypted_address, sign=member.identity.sign_row
        )
        self._middles = Middles(configuration.helper, configuration.worker, member.database, spool, self)

    @property
    def state(self) -> str:
        """In a few words, for the service manager."""
        return f"{len(self._sessions)} sessions, {len(self._middles)} versions"

    @property
    def steps(self) -> int:
        """Answered since the start."""
        return self._middles.steps

    @property
    def sessions(self) -> int:
        """That are open."""
        return len(self._sessions)

    @property
    def versions(self) -> dict[str, int]:
        """That it offers, by task."""
        return {task: version.number for task, version in self._versions.ready.items()}

    @property
    def trouble(self) -> dict[str, str]:
        """Why a task is not offered."""
        return self._versions.trouble

    async def run(self) -> None:
        """Serve until cancelled; then every session is lost, and what its devices have taught since the last
        contribution.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carrier.run())
                group.create_task(self._versions.run())
        finally:
            await self._middles.end()

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay."""
        self._carrier.relayed(data)

    def connected(self) -> None:
        """The connection to the broker is there."""
        self._versions.look()
        self._carrier.connected()

    def key_changed(self) -> None:
        """The coordinator has another key, and with it the relay: sessions begin anew."""
        self._end_sessions("the coordinator has another key")
        self._offer()

    def moved(self) -> None:
        """This helper speaks under another shard: sessions begin anew."""
        self._end_sessions("the helper has moved to another shard")
        self._carrier.publish()  # their ends are signed for the topic of before
        self._carrier.topic = self._member.identity.session_topic
        self._offer()

    def _end_sessions(self, why: str) -> None:
        for event in self._sessions.renew(self._member.identity.party(), why):
            self._handle(event)

    def manifest_changed(self, task: str) -> None:
        """A manifest has brought something new."""
        self._versions.look()

    def manifest_heard(self, task: str) -> None:
        """Nothing follows from it."""

    def not_readable(self, task: str, why: str) -> None:
        """The task is of a format that this release does not read."""
        self._versions.withdraw(task, why)
        logger.error(log_line("task_not_readable", task=task, reason=why, remedy="update edgeflock on this helper"))

    def invited(self, task: str) -> None:
        """A helper trains on nothing itself."""

    def enrolled(self) -> None:
        """The coordinator accepts this helper."""
        self._versions.look()
        for seconds in OFFERED_AFTER_SECONDS:
            asyncio.get_running_loop().call_later(seconds, self._offer)

    def not_enrolled(self, why: str) -> None:
        """It does not, or not yet."""
        logger.warning(log_line("helper_not_enrolled", reason=why))

    def retry_deferred_trigger(self) -> None:
        """A receipt changes nothing for a helper."""

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """Nothing follows from it."""

    def waits_for_version(self, task: str) -> bool:
        """A helper hears of every version: devices ask for the newest."""
        return True

    def step_done(self, step: StepDone) -> None:
        """A middle has answered."""
        problem = step.problem
        if not problem:
            try:
                self._sessions.answer(step.session, step.number, step.answer)
            except ValueError as error:  # too long, or to no request: whatever a bundle has made of the child
                problem = str(error)
        if problem:
            self._end_session(step.session, SessionReason.MALFORMED, problem)
        self._carrier.stir()

    def middle_failed(self, session: bytes, why: str) -> None:
        """What a session was served by is gone."""
        self._end_session(session, SessionReason.HELPER_FAILED, why)

    def seen(self, version: ReadyVersion, device: str, seen: Seen) -> None:
        """The coordinator finds clusters by it."""
        if self._summaries.put(version, device, seen):
            self.spooled()

    def version_loaded(self, version: ReadyVersion) -> None:
        """A middle runs it."""
        self._versions.loaded(version)

    def version_damaged(self, version: ReadyVersion, why: str) -> None:
        """No middle can."""
        self._versions.damaged(version, why)

    def version_not_computed(self, version: ReadyVersion, why: str) -> None:
        """No process can here, as where memory is too small or a graph never ends; other helpers may."""
        self._versions.rest(version, why)

    def spooled(self) -> None:
        """Something waits in the outbox."""
        self._member.postbox.notify()

    def _end_session(self, session: bytes, reason: SessionReason, detail: str) -> None:
        for event in self._sessions.end(session, reason, detail[:MAX_PROBLEM_CHARACTERS]):
            self._handle(event)
        self._carrier.stir()

    def _handle(self, event: HelperEvent) -> None:
        match event:
            case Asked():
                self._take_or_refuse(event)
            case Requested():
                self._middles.ask(event)
            case OfferRefused():
                self._note_offer_refused(event)
            case Closed():
                self._middles.close(event.session)
                logger.info(
                    log_line("session_closed", session=event.session.hex(), reason=event.reason, detail=event.detail)
                )

    def _take_or_refuse(self, asked: Asked) -> None:
        refusal = self._why_refused(asked.wanted)
        wanted = asked.wanted
        if refusal is not None:
            self._sessions.refuse(asked.session, refusal.reason, refusal.detail, refusal.retry_seconds)
            logger.info(log_line("session_refused", task=wanted.task, device=asked.device, reason=refusal.reason.value))
            return
        try:
            self._sessions.grant(asked.session, asyncio.get_running_loop().time())
        except ProtocolError as error:
            self._sessions.refuse(asked.session, SessionReason.MALFORMED, error.detail, BUSY_SECONDS)
            return
        self._middles.open(asked.session, self._versions.ready[wanted.task], wanted, asked.device)
        logger.info(
            log_line(
                "session_opened",
                session=asked.session.hex(),
                task=wanted.task,
                version=wanted.base_version,
                device=asked.device,
                cut=wanted.cut,
            )
        )

    def _why_refused(self, wanted: Wanted) -> Refusal | None:
        version = self._versions.ready.get(wanted.task)
        if version is None:
            words = self._versions.trouble.get(wanted.task, f"the helper has no version of {wanted.task} yet")
            return Refusal(SessionReason.UNKNOWN_TASK, words, SOON_SECONDS)
        if (version.bundle, version.generation) != (wanted.bundle.hex(), wanted.generation):
            return Refusal(SessionReason.WRONG_BUNDLE, "the helper has the task in another bundle", SOON_SECONDS)
        if version.number != wanted.base_version:
            words = f"the helper has version {version.number}, and not {wanted.base_version}"
            self._member.manifests.look(wanted.task)
            return Refusal(SessionReason.UNKNOWN_VERSION, words, SOON_SECONDS)
        if version.description.split is None or wanted.cut not in [cut.name for cut in version.description.split.cuts]:
            return Refusal(SessionReason.UNKNOWN_CUT, f"the task has no cut {wanted.cut}", BUSY_SECONDS)
        if len(self._sessions) > self._settings.sessions or not self._middles.has_room_for(version, wanted):
            return Refusal(SessionReason.HELPER_BUSY, f"the helper has {len(self._sessions)} sessions", BUSY_SECONDS)
        return None

    def _note_offer_refused(self, refused: OfferRefused) -> None:
        if self._offer_refused != refused:
            self._offer_refused = refused
            remedy = f"on the server: broker-coordinator helpers allow {self._member.identity.device}"
            logger.warning(log_line("offer_refused", reason=refused.reason, detail=refused.detail, remedy=remedy))
        if self._offering_again is None:  # whoever repeats a refusal has no more offers for it
            self._offering_again = asyncio.get_running_loop().call_later(SOON_SECONDS, self._offer_again)

    def _offer_again(self) -> None:
        self._offering_again = None
        self._offer()

    def _version_changed(self, version: ReadyVersion | None) -> None:
        if version is not None:
            self._middles.retire(version)
        self._offer()

    def _offer(self) -> None:
        """Say what this helper serves: to nobody before the coordinator knows it."""
        if not self._member.database.is_enrolled():
            return
        offered = [
            OfferedTask(task, bytes.fromhex(version.bundle), version.generation)
            for task, version in self._versions.ready.items()
        ]
        self._sessions.offer(offered, self._settings.sessions, asyncio.get_running_loop().time())
        self._carrier.stir()
