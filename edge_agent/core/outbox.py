"""The outbox: waiting payloads of any journalled kind as values, and the operations on them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fleet_protocol.kinds import Outcome


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A payload that waits for its receipt, with every field of its envelope.

    `kind` is the number that stands in the header. Where that kind is an encrypted one, `payload` is its content and
    `recipient` the Ed25519 public key (32 bytes) that it is encrypted for, empty for the pinned one. `digest` names
    the envelope in receipts. `envelope` is empty, as it is made again when it is sent; an envelope that an earlier
    release signed and that can't be made again is kept in it. `generation` is that of the version it was trained from.
    """

    sequence: int
    kind: int
    task: str
    bundle: str
    base_version: int
    recipient: bytes
    payload: bytes
    digest: bytes = b""
    envelope: bytes = b""
    generation: int = 0
    kept: bytes = b""
    """What the device keeps of it for itself: it is never sent."""
    reason: str = ""
    """Why it was rejected, where it waits for the next round's residual."""


SignRow = Callable[[OutboxRow], bytes]
"""A row's envelope: the same row gives the same bytes."""


@dataclass(frozen=True, slots=True)
class SpooledPayload:
    """A payload on its way into the outbox; the fields are those of `OutboxRow`."""

    kind: int
    recipient: bytes
    payload: bytes
    kept: bytes = b""


class Outbox(Protocol):
    """Where payloads wait. Each change is whole or not at all, and durable before the method returns."""

    def waiting_numbers(self) -> list[int]:
        """The sequence numbers of everything that waits for a receipt, oldest first."""
        ...

    def read(self, sequence: int) -> OutboxRow | None:
        """What waits under a number; None where it has its receipt."""
        ...

    def find(self, name: bytes) -> OutboxRow | None:
        """What waits and whose envelope has this digest."""
        ...

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False) -> None:
        """Take a payload out; `returned` keeps it for the next round's residual."""
        ...

    def set_cluster(self, task: str, cluster: int) -> None:
        """Remember which cluster of a task's devices this one is in from now on."""
        ...

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignRow) -> OutboxRow:
        """Give a waiting payload a number above `highest_sequence` and every one that this device has used."""
        ...
