"""Kills the processes of a fleet as a plan says, keeps the fleet fed and alive, and lets it come to rest at the end."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from tests.soak.disk import FullDisk
from tests.soak.fleet import Fleet, Member, SoakAgent
from tests.soak.places import Kind
from tests.soak.plan import Strike
from tests.support.waiting import until

AT_ONCE = 4
"""Strikes under way together, on different victims."""

PATIENCE_SECONDS = 60.0
"""How long a trap waits for its victim to come by; then the strike is put off."""

MOST_TRIES = 5
"""A place that is not reached that often is a defect of the soak."""

MOST_WAITING = 6
"""Strikes that are drawn ahead: where the next one's victim is taken, another one's may be free."""

TICK_SECONDS, FEEDING_SECONDS = 0.02, 0.2
REST_SECONDS = 120.0
"""How long the fleet may take at the end until every update is delivered."""

LOG_TAIL_CHARACTERS = 1500

SPARED_ON_A_FULL_DISK = (Kind.COORDINATOR, Kind.BROKER)


class SoakFailedError(Exception):
    """Something happened that no kill explains."""


@dataclass(frozen=True, slots=True)
class _Aim:
    """A strike under way on a process, or on that process's worker."""

    strike: Strike
    member: Member
    begun: float

    def is_met(self, now: float) -> bool:
        """Kill at the moment that was drawn, or see whether the trap has."""
        if self.strike.place is not None:
            return self.member.trap.has_sprung()
        if now < self.begun + self.strike.delay:
            return False
        if self.strike.kind is Kind.WORKER:
            assert isinstance(self.member, SoakAgent)
            return self.member.kill_worker()
        self.member.kill()
        return True


@dataclass(slots=True)
class Tally:
    """What was done so far. `put_off` counts traps that no process reached in time."""

    kills: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    full_disks: int = 0
    put_off: int = 0
    last: str = "nothing was killed yet"


class Driver:
    """One soak: every strike of `plan`, though not in its order. `note` is called with everything that is done to the
    fleet.

    With `full_disk_every`, the coordinator's disk is full once after every so many kills.
    """

    def __init__(
        self, fleet: Fleet, plan: Iterable[Strike], note: Callable[[str], None], *, full_disk_every: int = 0
    ) -> None:
        self._fleet = fleet
        self._plan = iter(plan)
        self._full_disk_every = full_disk_every
        self._note = note
        self._aims: list[_Aim] = []
        self._waiting: deque[Strike] = deque()
        self._tries: Counter[Strike] = Counter()
        self._disk: FullDisk | None = None
        self._fed_at = 0.0
        self._killed: set[int] = set()
        self.tally = Tally()

    def run(self) -> None:
        """Start the fleet, strike, and let what is left come to rest: all delivered, all ended.

        Raises:
            SoakFailedError: a process ended by itself, or does not come by where it should.
            AssertionError: the fleet does not come to rest.
        """
        for member in self._fleet.members:
            member.revive()
        self._draw()
        while self._waiting or self._aims or self._disk or self._disk_is_due():
            self._tick()
        until(self._has_come_to_rest, "every update is delivered", seconds=REST_SECONDS)
        self._fleet.stop()

    def _has_come_to_rest(self) -> bool:
        self._revive()
        return self._fleet.is_at_rest()

    def _tick(self) -> None:
        for aim in list(self._aims):
            self._pursue(aim)
        self._revive()
        if time.monotonic() > self._fed_at + FEEDING_SECONDS:
            self._fleet.feed(first=[aim.member for aim in self._aims])
            self._fed_at = time.monotonic()
        self._tend_disk()
        if len(self._aims) < AT_ONCE:
            self._take_aim()
        self._draw()
        time.sleep(TICK_SECONDS)

    def _revive(self) -> None:
        """Start again who was killed."""
        for member in self._fleet.members:
            if member.exit_status() is None or any(aim.member is member for aim in self._aims):
                continue  # whose trap has sprung just now is seen at the next tick
            if member.pid not in self._killed:
                tail = member.log()[-LOG_TAIL_CHARACTERS:]
                raise SoakFailedError(f"{member.name} ended with {member.exit_status()}; it said last:\n{tail}")
            member.revive()

    def _tend_disk(self) -> None:
        if self._disk is not None:
            if self._disk.is_over():
                self._disk, self.tally.full_disks = None, self.tally.full_disks + 1
                self._say("the coordinator's disk was full for a while")
            return
        spared = not any(aim.strike.kind in SPARED_ON_A_FULL_DISK for aim in self._aims)
        if self._disk_is_due() and spared and self._fleet.coordinator.is_serving():
            self._disk = FullDisk(self._fleet.coordinator)

    def _disk_is_due(self) -> bool:
        every = self._full_disk_every
        return bool(every) and self.tally.kills.total() // every > self.tally.full_disks

    def _draw(self) -> None:
        self._waiting.extend(islice(self._plan, max(0, MOST_WAITING - len(self._waiting))))

    def _take_aim(self) -> None:
        """Begin with the next strike for which there is a free victim."""
        for strike in self._waiting:
            if (member := self._free_victim(strike)) is not None:
                self._waiting.remove(strike)
                if strike.place is not None:
                    member.trap.arm(strike.place, strike.passage)
                self._aims.append(_Aim(strike, member, time.monotonic()))
                return

    def _free_victim(self, strike: Strike) -> Member | None:
        if strike.kind in SPARED_ON_A_FULL_DISK and (self._disk or self._disk_is_due()):
            return None
        taken = [aim.member for aim in self._aims]
        free = [member for member in self._fleet.candidates(strike.kind) if member not in taken]
        return free[int(strike.victim * len(free))] if free else None

    def _pursue(self, aim: _Aim) -> None:
        now = time.monotonic()
        if aim.is_met(now):
            self._hit(aim)
        elif now > aim.begun + PATIENCE_SECONDS:
            aim.member.trap.disarm()
            if aim.is_met(now):
                self._hit(aim)
                return
            self._aims.remove(aim)
            self._put_off(aim.strike)

    def _hit(self, aim: _Aim) -> None:
        self._aims.remove(aim)
        self.tally.kills[aim.strike.kind, aim.strike.where] += 1
        whose = aim.member.name if isinstance(aim.member, SoakAgent) else ""
        self._say(f"kill {self.tally.kills.total()}: {aim.strike.kind} {whose} {aim.strike.where}")
        if aim.strike.kind is not Kind.WORKER:
            until(lambda: aim.member.exit_status() is not None, f"{aim.member.name} is dead")
            self._killed.add(aim.member.pid)

    def _put_off(self, strike: Strike) -> None:
        self._tries[strike] += 1
        if self._tries[strike] == MOST_TRIES:
            raise SoakFailedError(f"no {strike.kind} comes by: {strike.where}")
        self.tally.put_off += 1
        self._waiting.append(strike)

    def _say(self, what: str) -> None:
        self.tally.last = what
        self._note(what)
