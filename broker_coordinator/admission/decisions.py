"""What admission can decide about one message: a closed set of values.

Decisions made thousands of times a second are msgspec structs, which are made several times faster than dataclasses.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from broker_coordinator.admission.fleet_view import Decided, Device
from broker_coordinator.distribution.chunk_queue import Wanted
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import MaskReply
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.printable import printable

MAX_DETAIL_CHARACTERS = 300
"""Longest detail of a refusal; it is sent in a receipt, which must stay well below MAX_CONTROL_BYTES."""

MAX_TOPIC_CHARACTERS = 160
"""Of a topic in a refusal; a device's topic has less."""

assert MAX_DETAIL_CHARACTERS * 4 < MAX_CONTROL_BYTES  # noqa: S101 - two constants, checked once at import


class Message(msgspec.Struct, frozen=True, gc=False):
    """What the broker delivered. `unread` says why its data were not read, where they were not."""

    topic: str
    data: bytes
    unread: str = ""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A new payload, to be journalled with its whole `envelope`, which `envelope_digest` names.

    `staleness` is how many versions of its task were made since the one that it started from. `facts`, `item` and
    `held_by` are the consumer's (`consumer.Admitted`).
    """

    device: str
    header: Header
    envelope: bytes
    envelope_digest: bytes
    staleness: int
    facts: msgspec.Struct
    item: Any
    held_by: int | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """A payload of a `task` whose outcome is journalled already: the receipt is repeated, and nothing changes."""

    device: str
    sequence: int
    outcome: Decided
    task: str


@dataclass(frozen=True, slots=True)
class AnsweredBefore:
    """The very bytes of a message that was answered a short time ago, whoever sends them: nothing is checked again."""

    envelope_digest: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that changes nothing. `device` comes from the topic and is None where the topic is no device's.

    `verified`: the signature is that of the device, which is approved. `answered`: it gets a receipt. `header` is set
    where a payload that would have been journalled is refused: the refusal is journalled in its place, under its
    sequence number, so that the same message, sent again later, can't be accepted after the device has taken the
    payload back. `trusted_key`: as in `Enrolled`.
    """

    device: str | None
    reason: Reason
    detail: str
    envelope_digest: bytes
    verified: bool = False
    answered: bool = True
    header: Header | None = None
    trusted_key: bytes = b""

    @property
    def burned_sequence(self) -> int | None:
        """The sequence number that the device can't use again."""
        return self.header.sequence if self.header else None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device enrolled; `device` is its record from now on. `invitation` is the id of the one that this uses up, and
    `replaced` the key that the device's name had, which is revoked. `trusted_key` is the id of the coordinator's key
    that its invitation names: it believes no other. Empty where it shows none.
    """

    device: Device
    envelope_digest: bytes
    invitation: bytes = b""
    replaced: Device | None = None
    trusted_key: bytes = b""


@dataclass(frozen=True, slots=True)
class FileRequested:
    """A device asks for chunks of a file or of packed weights; no chunk numbers mean all.

    `device` has the request's sequence number.
    """

    device: Device
    wanted: Wanted
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """A device's presence; `device` is its record from now on."""

    device: Device


@dataclass(frozen=True, slots=True)
class MaskReplied:
    """A mask helper replies to what it was asked; `device` has the reply's sequence number."""

    device: Device
    reply: MaskReply


Decision = Accepted | Repeated | AnsweredBefore | Refused | Enrolled | FileRequested | PresenceSeen | MaskReplied


def refusal(
    error: ProtocolError,
    device: str | None,
    envelope_digest: bytes,
    *,
    answered: bool,
    verified: bool = False,
    header: Header | None = None,
    trusted_key: bytes = b"",
) -> Refused:
    """The refusal for an error."""
    shown = printable(error.detail[:MAX_DETAIL_CHARACTERS])
    return Refused(device, error.reason, shown, envelope_digest, verified, answered, header, trusted_key)


def refuse_unread(message: Message) -> Refused:
    """The refusal of what was not read. It can't be answered: a receipt names the bytes that it is for."""
    detail = f"on topic {message.topic[:MAX_TOPIC_CHARACTERS]!r} {message.unread}"
    return refusal(ProtocolError(Reason.TOO_LARGE, detail), None, b"", answered=False)
