"""The model: what each device has learned, and where every piece of it must be. A piece is a number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker_coordinator.storage.records import JournalledPayload

Pieces = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """What a device's memory holds: of each payload that waits its digest and pieces, and pieces that no payload has.

    `kept` are in the residual, or in rejected payloads that the next round takes back into it.
    """

    waiting: dict[bytes, Pieces]
    kept: list[int]


@dataclass(slots=True)
class Ledger:
    """One device. `learned` is what its present memory has made; a wipe takes that along."""

    learned: set[int] = field(default_factory=set)
    contents: dict[bytes, Pieces] = field(default_factory=dict)
    """By the payload's bytes."""
    signed: dict[bytes, Pieces] = field(default_factory=dict)
    """By the digest of each envelope that was ever signed."""
    numbers: dict[int, bytes] = field(default_factory=dict)
    """By the sequence number that this memory has given, the digest."""
    accepted: set[bytes] = field(default_factory=set)
    """Digests of what left the outbox as accepted."""
    taken_back: set[bytes] = field(default_factory=set)

    def sign(self, sequence: int, name: bytes, payload: bytes) -> None:
        """An envelope was made, perhaps again."""
        self.signed[name] = self.contents[payload]
        assert self.numbers.setdefault(sequence, name) == name, f"number {sequence} was used for other bytes"

    def wipe(self) -> None:
        """The device forgets all but its key."""
        self.learned.clear()
        self.numbers.clear()

    def check(self, held: Held, journalled: Sequence[JournalledPayload]) -> None:
        """Hold the device's memory and the journal's rows of this device against each other."""
        names = {row.digest for row in journalled}
        assert names <= self.signed.keys(), "applied what the device has not sent"
        assert len({row.sequence for row in journalled}) == len(journalled), "a sequence number is applied twice"
        applied = Counter(piece for name in names for piece in self.signed[name])
        assert all(times == 1 for times in applied.values()), "applied twice"
        assert self.accepted <= names, "left the outbox as accepted, and is not in the journal"
        assert not self.taken_back & names, "applied although the device took it back"
        waiting = Counter(piece for pieces in held.waiting.values() for piece in pieces)
        in_memory = waiting + Counter(held.kept)
        assert all(times == 1 for times in in_memory.values()), "held twice"
        assert self.learned == in_memory.keys() | (self.learned & applied.keys()), "lost"
        unanswered = {piece for name, pieces in held.waiting.items() if name in names for piece in pieces}
        assert in_memory.keys() & applied.keys() == unanswered, "applied, and kept to be sent in another payload"
