"""A simulated device's connection: it enrols, sends what waits and receives receipts, as the shipped cores decide."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edge_agent.core.delivery import Delivery, Remedy
from edge_agent.core.enrolment import Answer, EnrolmentAttempts, must_enrol_again
from edge_agent.core.outbox import OutboxRow
from edge_agent.producers import goes_back
from fleet_protocol.kinds import ENROLMENT, KINDS, Receipt
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.messages import DeviceEnd, Parcel
from workbench.simulation.world import SimulatedWorld


@dataclass(frozen=True, slots=True)
class Answered:
    """A payload that waited, and its receipt."""

    row: OutboxRow
    receipt: Receipt


class SimulatedPostbox:
    """The connection of device `number`."""

    __slots__ = (
        "_attempts",
        "_conditions",
        "_connection",
        "_delivery",
        "_end",
        "_memory",
        "_number",
        "_planned",
        "_world",
        "connected",
    )

    def __init__(
        self,
        world: SimulatedWorld,
        number: int,
        end: DeviceEnd,
        memory: DeviceMemory,
        conditions: Conditions,
    ) -> None:
        self.connected = False
        self._world = world
        self._number = number
        self._end = end
        self._memory = memory
        self._conditions = conditions
        self._connection = 0
        self._planned: float | None = None
        self.restart()

    def restart(self) -> None:
        """Forget what a device does not store."""
        self._attempts = EnrolmentAttempts()
        self._delivery = Delivery(self._memory, self._end.sign_row, goes_back)

    def connect(self) -> None:
        """Connect to the broker: enrol, and send what waits for its receipt."""
        if self.connected:
            return
        self.connected = True
        self._planned = None
        # The last will travels with the connection, and has the size of the presence that it takes back.
        self._world.ledger.up["presence"] += 2 * self._end.presence_bytes()
        self._attempts.start()
        self._enrol()
        self._delivery.schedule.restart()
        self._deliver()

    def disconnect(self) -> None:
        """Leave the broker."""
        if self.connected:
            self.connected = False
            self._connection += 1

    def notify(self) -> None:
        """The outbox has changed."""
        self._delivery.schedule.changed(self._world.queue.now)
        self._deliver()

    def receive(self, data: bytes) -> Answered | None:
        """Act on a message on the device's own topic; returns what it answers, if that waited."""
        receipt = self._end.receipt(data)
        if must_enrol_again(receipt):
            self._memory.enrolled = False
        if received := self._delivery.receive(receipt):
            row, meant = received
            if meant is Remedy.AWAIT:
                self._delivery.schedule.awaits(row.sequence, self._world.queue.now)
            self.notify()
            return Answered(row, receipt)
        if self._attempts.receive(receipt) is Answer.ACCEPTED:
            self._memory.enrolled = True
        return None

    def _enrol(self) -> None:
        if self._memory.enrolled:
            return
        named, parcel = self._end.enrolment(self._world.task.task)
        wait_seconds = self._attempts.sent(named)
        self._send(ENROLMENT.name, parcel)
        self._later(wait_seconds, self._enrol)

    def _deliver(self) -> None:
        """Send what is due, and plan the next one."""
        if not self.connected:
            return
        now = self._world.queue.now
        for number in self._delivery.due(now):
            row = self._memory.outbox[number]
            self._send(KINDS[row.kind].name, self._end.parcel(row, self._delivery.envelope(number)))
            self._delivery.schedule.sent(number, now)
        due = self._delivery.schedule.next_due
        if due is not None and (self._planned is None or due < self._planned):
            self._planned = due
            self._later(due - now, self._deliver_as_planned)

    def _deliver_as_planned(self) -> None:
        self._planned = None
        if self._memory.outbox:
            self._deliver()

    def _send(self, kind: str, parcel: Parcel) -> None:
        self._world.send(kind, parcel, self._number, self._conditions)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action that is dropped if this connection ends before."""
        self._world.queue.after(seconds, partial(self._act, action, self._connection))

    def _act(self, action: Callable[[], None], connection: int) -> None:
        if self._connection == connection:
            action()
