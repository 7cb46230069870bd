"""A simulated device's connection: it enrols, sends what waits and receives receipts, as the shipped cores decide."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from edge_agent.core.delivery import Delivery, Remedy
from edge_agent.core.enrolment import Answer, EnrolmentAttempts, must_enrol_again
from edge_agent.core.outbox import OutboxRow
from edge_agent.producers import goes_back
from fleet_protocol.kinds import ENROLMENT, KINDS, Receipt
from workbench.simulation.conditions import Conditions
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.messages import DeviceEnd, Parcel
from workbench.simulation.world import SimulatedWorld


class PostboxOwner(Protocol):
    """Whom a postbox tells what has come."""

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """A payload that waited has its receipt."""
        ...

    def rest(self) -> None:
        """Something has come, and was acted on."""
        ...


class SimulatedPostbox:
    """The sending side of one device."""

    __slots__ = (
        "_attempts",
        "_conditions",
        "_connection",
        "_delivery",
        "_end",
        "_memory",
        "_owner",
        "_planned",
        "_world",
        "connected",
    )

    def __init__(
        self,
        world: SimulatedWorld,
        end: DeviceEnd,
        memory: DeviceMemory,
        conditions: Conditions,
        owner: PostboxOwner,
    ) -> None:
        self.connected = False
        self._world = world
        self._end = end
        self._memory = memory
        self._conditions = conditions
        self._owner: PostboxOwner | None = owner
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

    def let_go(self) -> None:
        """Its device is a row from now on: the agent, which leads here, is no longer led to, and is freed at once."""
        self.connected = False
        self._owner = None

    def notify(self) -> None:
        """The outbox has changed."""
        self._delivery.schedule.changed(self._world.queue.now)
        self._deliver()

    def receive(self, data: bytes) -> None:
        """Act on a message on the device's own topic; a device that is off receives none."""
        if self.connected and self._owner is not None:
            self._act_on(self._end.receipt(data), self._owner)
            self._owner.rest()

    def _act_on(self, receipt: Receipt, owner: PostboxOwner) -> None:
        if must_enrol_again(receipt):
            self._memory.enrolled = False
        if received := self._delivery.receive(receipt):
            row, meant = received
            if meant is Remedy.AWAIT:
                self._delivery.schedule.awaits(row.sequence, self._world.queue.now)
            self.notify()
            owner.answered(row, receipt)
        elif self._attempts.receive(receipt) is Answer.ACCEPTED:
            self._memory.enrolled = True

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
        self._world.send(kind, parcel, self._conditions, self.receive)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Plan an action that is dropped if this connection ends before."""
        self._world.queue.after(seconds, partial(self._act, action, self._connection))

    def _act(self, action: Callable[[], None], connection: int) -> None:
        if self._connection == connection:
            action()
