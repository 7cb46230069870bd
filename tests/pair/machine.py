"""Two devices and their coordinator over a wire that promises nothing, while everybody is killed: a state machine."""

import sys
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet_protocol.keys import SigningKey
from tests.pair.coordinator import Accident, KillableJournal, PairedCoordinator
from tests.pair.device import PairedDatabase, PairedDevice
from tests.pair.steps import (
    STEPS,
    ArriveDown,
    ArriveUp,
    Event,
    Happens,
    Learns,
    MakeVersions,
    Step,
    TimePasses,
    WireFails,
)
from tests.pair.wire import Direction, Lane, OnWire

MOST_ATTEMPTS_AT_REST = 100


class Pair(RuleBasedStateMachine):
    """Nothing is lost and nothing counts twice, whatever happens; and with a wire that works, all is delivered."""

    journal_type = KillableJournal
    database_type = PairedDatabase

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.up = Lane()
        self.down = Lane()
        self.lanes = {Direction.UP: self.up, Direction.DOWN: self.down}
        self.pieces = count(1)
        self.coordinator = PairedCoordinator(self.journal_type)
        self.devices = {name: self._device(name, encrypts=name == "barn") for name in ("attic", "barn")}

    def _device(self, name: str, *, encrypts: bool) -> PairedDevice:
        key = SigningKey(name.encode().ljust(32, b"."))
        return PairedDevice(name, key, self.up, encrypts=encrypts, database_type=self.database_type)

    @initialize(approved=st.sampled_from([True, True, False]))
    def begin(self, approved: bool) -> None:
        """An operator may have let the devices in before they introduce themselves."""
        for device in self.devices.values():
            if approved:
                self.coordinator.approve(device.name, device.key.verify_key)

    @rule(step=STEPS)
    def act(self, step: Step) -> None:
        match step:
            case Learns():
                self._learn(step)
            case ArriveUp(picks, accident):
                self._offer(self.up.take(picks), accident)
                self.coordinator.publish(self.down, self.now)
            case ArriveDown(picks, disk_full):
                with self.devices["attic"].disk_full(disk_full), self.devices["barn"].disk_full(disk_full):
                    self._hear(self.down.take(picks))
            case WireFails(direction, fault, pick):
                self.lanes[direction].suffer(fault, pick)
            case MakeVersions(accident):
                self.coordinator.make_versions(self.now, accident)
            case Happens(name, event):
                self._happen(self.devices[name], event)
            case TimePasses(seconds):
                self._wait_until(self.now + seconds)

    @invariant()
    def nothing_is_lost_and_nothing_counts_twice(self) -> None:
        applied = self.coordinator.applied()
        for name, device in self.devices.items():
            device.ledger.check(device.held(), [row for row in applied if row.device == name])

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # else what was found would give way to what follows from it
            self._come_to_rest()

    def _come_to_rest(self) -> None:
        """Everything works again: every outbox empties, and nothing that comes again later is lost or counts twice."""
        self.coordinator.set_paused(False)
        for device in self.devices.values():
            self.coordinator.approve(device.name, device.key.verify_key)
        for _ in range(MOST_ATTEMPTS_AT_REST):
            self._exchange()
            due = [moment for device in self.devices.values() if (moment := device.next_due()) is not None]
            if not due:
                break
            self._wait_until(min(due))
        assert not any(device.held().waiting for device in self.devices.values()), "still waits for a receipt"
        self.nothing_is_lost_and_nothing_counts_twice()
        for lane in self.lanes.values():
            lane.put_back(list(dict.fromkeys(lane.ever)))
        self._exchange()
        self.nothing_is_lost_and_nothing_counts_twice()

    def _learn(self, round_ends: Learns) -> None:
        device = self.devices[round_ends.device]
        base_version = max(0, self.coordinator.newest_version() + round_ends.ahead)
        with device.disk_full(round_ends.disk_full):
            device.learn(next(self.pieces), base_version, self.now, keeps_newest=round_ends.keeps_newest)

    def _happen(self, device: PairedDevice, event: Event) -> None:
        match event:
            case Event.CONNECTS_AGAIN:
                device.connect()
            case Event.POWER_CUT:
                device.restart()
            case Event.WIPED:
                device.wipe()
            case Event.REVOKED:
                self.coordinator.revoke(device.name, device.key.verify_key)
            case Event.APPROVED:
                self.coordinator.approve(device.name, device.key.verify_key)
            case Event.TASK_PAUSED | Event.TASK_RESUMED:
                self.coordinator.set_paused(event is Event.TASK_PAUSED)
        device.send(self.now)

    def _wait_until(self, moment: float) -> None:
        self.now = max(self.now, moment)
        for device in self.devices.values():
            device.send(self.now)

    def _exchange(self) -> None:
        self._offer(self.up.take_all())
        self.coordinator.make_versions(self.now)
        self.coordinator.publish(self.down, self.now)
        self._hear(self.down.take_all())

    def _offer(self, arrived: list[OnWire], accident: Accident | None = None) -> None:
        if arrived and not self.coordinator.take_in(arrived, self.now, accident):
            self.up.put_back(arrived)

    def _hear(self, arrived: list[OnWire]) -> None:
        for message in arrived:
            for device in self.devices.values():
                if device.down_topic == message.topic:
                    device.receive(message, self.now)
