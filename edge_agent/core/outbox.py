"""What waits in the outbox: payloads of any journalled kind, as values. Pure."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A payload that waits for its receipt, and everything that its envelope is made of.

    `kind` is the number that stands in the header. Where that kind is an encrypted one, `payload` is its content and
    `recipient` the Ed25519 public key (32 bytes) that it is encrypted for, empty for the pinned one. `digest` names
    the envelope in receipts. `envelope` is empty, as it is made again when it is sent; an envelope that an earlier
    release signed and that can't be made again is kept in it.
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


SignRow = Callable[[OutboxRow], bytes]
"""A row's envelope: the same row gives the same bytes."""


@dataclass(frozen=True, slots=True)
class SpooledPayload:
    """A payload on its way into the outbox; the fields are those of `OutboxRow`."""

    kind: int
    recipient: bytes
    payload: bytes
