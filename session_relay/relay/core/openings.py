"""A device asks for a session: whether it may have one, and which helper is asked. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet_host.rate_limit import RateLimit
from fleet_protocol.envelope import Header
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import Introduction, News, OfferedTask, SessionNotice, SessionOpening, SessionReason
from session_relay.relay.core.carried_session import CarriedSession
from session_relay.relay.core.directory import ServedTask
from session_relay.relay.core.helpers import Helper
from session_relay.relay.core.lifecycle import Event, State
from session_relay.relay.core.limits import (
    FIRST_OFFER_RETRY_SECONDS,
    HELPER_RETRY_SECONDS,
    OPENING_BURST,
    OPENING_SECONDS,
    RETRY_SECONDS,
    RelayLimits,
)
from session_relay.relay.core.session_book import SessionBook, Why

MAX_DEVICES_REMEMBERED = 1_000_000


class OpeningRefusedError(Exception):
    """A device can't have the session that it asks for."""

    def __init__(self, reason: SessionReason, detail: str, retry_seconds: int = RETRY_SECONDS) -> None:
        super().__init__(f"{reason}: {detail}")
        self.why = Why(reason, detail, retry_seconds)


@dataclass(slots=True)
class Openings:
    """Decides on openings, and on what helpers make of them."""

    book: SessionBook
    limits: RelayLimits
    _allowance: RateLimit = field(
        default_factory=lambda: RateLimit(OPENING_SECONDS, MAX_DEVICES_REMEMBERED, burst=OPENING_BURST)
    )
    _sequences: dict[VerifyKey, int] = field(default_factory=dict)
    """Of what was last asked with each device's key: an opening of before is a repeated one, also where this relay is
    new. A device that comes back with another key counts anew, maybe from a lower number.
    """

    def ask(self, device: str, header: Header, opening: SessionOpening, message: bytes, now: float) -> None:
        """Handle a device's opening, which it has signed in `message`."""
        if known := self.book.get(opening.session):
            if known.device == device and known.opening == message:
                self._ask_again(known)
            return
        try:
            session = self._admit(device, header, opening, message, now)
        except OpeningRefusedError as refused:
            why = refused.why
            self.book.counters.count_refusal(why.reason)
            notice = SessionNotice(opening.session, News.REFUSED, why.reason, why.detail, why.retry_seconds)
            self.book.outbox.notify(device, notice)
            return
        self.book.add(session)
        self._introduce_device(session)

    def note_sequence(self, device: str, sequence: int) -> None:
        """Take no opening of this device any more that it has signed earlier."""
        self._sequences[self._key_of(device)] = max(sequence, self._last_sequence(device))

    def try_next(self, session: CarriedSession, why: Why, now: float) -> None:
        """Ask another helper, as this one does not take the session; without another, the device is told why."""
        found = self.book.helpers.choose(session.task, session.asked)
        if isinstance(found, Helper):
            self.book.step(session, Event.DECLINED, now)
            self.book.hand_to(session, found.name, now)
            session.asked.append(found.name)
            self._introduce_device(session)
        elif self.book.step(session, Event.REFUSED, now, why):
            self.book.counters.count_refusal(why.reason)

    def introduce_helper(self, session: CarriedSession) -> None:
        """Name the helper that has granted a session to its device."""
        if key := self.book.directory.devices.get(session.helper):
            introduction = Introduction(session.name, session.helper, bytes(key), session.grant, session.grant_shard)
            self.book.outbox.introduce(session.device, introduction)

    def check_room(self, device: str) -> None:
        """Check that a device may have another session.

        Raises:
            OpeningRefusedError: it has as many as it may, or all of them together have.
        """
        if len(self.book.of_device(device)) >= self.limits.sessions_of_device:
            detail = f"{device} has {self.limits.sessions_of_device} sessions, as many as it may; end one of them"
            raise OpeningRefusedError(SessionReason.TOO_MANY_SESSIONS, detail)
        if len(self.book) >= self.limits.sessions:
            detail = f"the relay carries {self.limits.sessions} sessions, as many as it may"
            raise OpeningRefusedError(SessionReason.TOO_MANY_SESSIONS, detail)

    def _admit(
        self, device: str, header: Header, opening: SessionOpening, message: bytes, now: float
    ) -> CarriedSession:
        # The same number is the same message: repeated, as what became of it was lost.
        if header.sequence < self._last_sequence(device):
            raise OpeningRefusedError(SessionReason.MALFORMED, f"sequence number {header.sequence} is an earlier one's")
        if not self._allowance.allows(device, now):
            detail = f"{device} asks for sessions too often; one is allowed every {OPENING_SECONDS:.0f} s"
            raise OpeningRefusedError(SessionReason.RATE_LIMITED, detail)
        self.note_sequence(device, header.sequence)
        served = self.book.directory.tasks.get(header.task)
        if served is None:
            raise OpeningRefusedError(SessionReason.UNKNOWN_TASK, f"no task {header.task!r} is published")
        _check(header, opening, served)
        for former in self.book.of_device(device):
            if former.task.task == header.task:
                self.book.step(former, Event.REPLACED, now, Why(SessionReason.REPLACED))
        self.check_room(device)
        wanted = OfferedTask(header.task, opening.bundle, header.generation)
        unwanted = [device, *opening.without]
        found = self.book.helpers.choose(wanted, unwanted)
        if isinstance(found, SessionReason):
            raise self._without_helper(found, header.task, opening.without)
        session = CarriedSession(opening.session, device, found.name, wanted, message, now)
        session.opening_shard = self.book.outbox.shard_of(device)
        session.asked += [*unwanted, found.name]
        return session

    def _key_of(self, device: str) -> VerifyKey:
        return self.book.directory.devices[device]

    def _last_sequence(self, device: str) -> int:
        return self._sequences.get(self._key_of(device), 0)

    def _without_helper(self, reason: SessionReason, task: str, left_out: Sequence[str]) -> OpeningRefusedError:
        other = "other helper" if left_out else "helper"
        detail = f"no {other} offers to serve {task} as it is published now"
        if reason is SessionReason.HELPER_BUSY:
            detail = f"every {other} that serves {task} has as many sessions as it takes"
        retry_seconds = HELPER_RETRY_SECONDS if self.book.helpers.have_offered else FIRST_OFFER_RETRY_SECONDS
        return OpeningRefusedError(reason, detail, retry_seconds)

    def _ask_again(self, session: CarriedSession) -> None:
        """The device repeats its opening: whichever message was lost is sent again."""
        if session.state is State.OFFERED:
            self._introduce_device(session)
        elif session.grant:
            self.introduce_helper(session)

    def _introduce_device(self, session: CarriedSession) -> None:
        if key := self.book.directory.devices.get(session.device):
            introduction = Introduction(
                session.name, session.device, bytes(key), session.opening, session.opening_shard
            )
            self.book.outbox.introduce(session.helper, introduction)


def _check(header: Header, opening: SessionOpening, served: ServedTask) -> None:
    """Check what a device wants against the task as it is published.

    Raises:
        OpeningRefusedError: the task has no cuts, or not this one, or is another one by now.
    """
    task = header.task
    if served.is_paused:
        raise OpeningRefusedError(SessionReason.TASK_PAUSED, f"the operator has paused {task}")
    if not served.cuts:
        raise OpeningRefusedError(SessionReason.NO_CUTS, f"{task} has no `split`; train it whole")
    if header.generation != served.generation:
        detail = f"generation {header.generation} of {task}, which is in {served.generation}; follow the manifest"
        raise OpeningRefusedError(SessionReason.OLD_GENERATION, detail)
    if opening.bundle != served.bundle:
        detail = f"{task} is published with bundle {served.bundle.hex()}; follow the manifest"
        raise OpeningRefusedError(SessionReason.WRONG_BUNDLE, detail)
    if opening.cut not in served.cuts:
        known = ", ".join(sorted(served.cuts)[:10])
        raise OpeningRefusedError(SessionReason.UNKNOWN_CUT, f"{task} has no cut {opening.cut!r}, but {known}"[:400])
    if header.base_version < served.oldest_version:
        detail = f"version {header.base_version} of {task}; updates count from version {served.oldest_version} on"
        raise OpeningRefusedError(SessionReason.UNKNOWN_VERSION, detail)
