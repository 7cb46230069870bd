"""One kind of payload of one task that makes no versions: its newest aggregate, and what waits for the next. Pure."""

from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field, replace
from itertools import islice

from broker_coordinator.admission.consumer import AnyJournalledConsumer
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.records import Aggregate
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class NextAggregate:
    """Made but not committed: of the `payload_count` oldest waiting payloads, the last of them at `last_position`."""

    aggregate: Aggregate
    payload_count: int
    last_position: int


@dataclass(slots=True)
class ServedAggregate:
    """The newest aggregate, and what waits for the next, in journal order."""

    consumer: AnyJournalledConsumer
    description: TaskDescription
    newest: Aggregate
    waiting: deque[WaitingPayload] = field(default_factory=deque)

    @property
    def state(self) -> bytes:
        """That of the newest aggregate."""
        return self.newest.state

    def next_aggregate(self) -> NextAggregate | None:
        """The aggregate that follows, or None while too few payloads wait.

        Raises:
            Exception: it can't be made of the `buffer`.
        """
        size = self.consumer.buffer_size(self.description)
        if len(self.waiting) < size:
            return None
        return self._aggregate()

    def _aggregate(self) -> NextAggregate:
        buffer = self.buffer()
        state = self.consumer.next_state(self.state, [waiting.item for waiting in buffer], self.description)
        self.check(state)
        made = replace(self.newest, number=self.newest.number + 1, state=state)
        return NextAggregate(made, payload_count=len(buffer), last_position=buffer[-1].position)

    def buffer(self) -> list[WaitingPayload]:
        """What the next aggregate is made of: the oldest that wait."""
        return list(islice(self.waiting, self.consumer.buffer_size(self.description)))

    def check(self, state: bytes) -> None:
        """Raise TypeError for a state that can't be stored."""
        if not isinstance(state, bytes):
            raise TypeError(f"the state is of type {type(state).__name__}, not bytes")

    def drop(self, positions: Container[int]) -> None:
        """Let these wait no longer."""
        self.waiting = deque(each for each in self.waiting if each.position not in positions)

    def advance(self, made: NextAggregate) -> None:
        """Take over an aggregate that is committed."""
        self.newest = made.aggregate
        for _ in range(made.payload_count):
            self.waiting.popleft()
