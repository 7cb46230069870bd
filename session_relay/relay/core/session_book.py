"""All sessions that the relay carries: each goes through its table here, and both ends are told. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet_protocol.kinds import News, SessionNotice
from session_relay.relay.core.carried_session import CarriedSession
from session_relay.relay.core.counters import Counters
from session_relay.relay.core.directory import Directory
from session_relay.relay.core.fair_queues import FairQueues
from session_relay.relay.core.helpers import Helpers
from session_relay.relay.core.lifecycle import TRANSITIONS, Event, State
from session_relay.relay.core.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Why:
    """What the ends of a session are told beside what became of it."""

    reason: str = ""
    detail: str = ""
    retry_seconds: int = 0


NO_WORDS = Why()


@dataclass(slots=True)
class SessionBook:
    """By name, and by device. `directory` is who may use the relay now."""

    directory: Directory
    outbox: Outbox
    queues: FairQueues
    helpers: Helpers
    counters: Counters
    _sessions: dict[bytes, CarriedSession] = field(default_factory=dict)
    _of_device: dict[str, dict[bytes, CarriedSession]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def __iter__(self) -> Iterator[CarriedSession]:
        """All of them, as they are now."""
        return iter(list(self._sessions.values()))

    def get(self, name: bytes) -> CarriedSession | None:
        """The session of this name, if there is one."""
        return self._sessions.get(name)

    def of_device(self, device: str) -> list[CarriedSession]:
        """The sessions of a device."""
        return list(self._of_device.get(device, {}).values())

    def count_of(self, helper: str) -> int:
        """How many go to a helper."""
        return sum(session.helper == helper for session in self._sessions.values())

    def add(self, session: CarriedSession) -> None:
        """Carry another one, which its helper has as load from now on."""
        self._sessions[session.name] = session
        self._of_device.setdefault(session.device, {})[session.name] = session
        self.helpers.add_load(session.helper, 1)

    def hand_to(self, session: CarriedSession, helper: str, now: float) -> None:
        """Note that another helper is asked for it."""
        self.helpers.add_load(session.helper, -1)
        self.helpers.add_load(helper, 1)
        session.helper, session.since = helper, now

    def step(self, session: CarriedSession, event: Event, now: float, why: Why = NO_WORDS) -> bool:
        """Have something happen to a session; whether it changed anything."""
        step = TRANSITIONS.get((session.state, event))
        if step is None:
            return False
        session.state, session.since = step.state, now
        self._tell(session.device, session.name, step.device, why)
        self._tell(session.helper, session.name, step.helper, why)
        if step.state is State.OVER:
            self.counters.over[event.value.replace(" ", "_")] += 1
            self._forget(session)
        return True

    def _tell(self, name: str, session: bytes, news: News | None, why: Why) -> None:
        if news is not None:
            self.outbox.notify(name, SessionNotice(session, news, why.reason, why.detail, why.retry_seconds))

    def _forget(self, session: CarriedSession) -> None:
        del self._sessions[session.name]
        of_device = self._of_device[session.device]
        del of_device[session.name]
        if not of_device:
            del self._of_device[session.device]
        self.helpers.add_load(session.helper, -1)
        self.queues.forget(session.device, session.name)
