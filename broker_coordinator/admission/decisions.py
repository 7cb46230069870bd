"""What admission can say about one message: a closed set of values.

Of those that come by the thousand, msgspec makes several in the time of one dataclass, here and elsewhere.
"""

from dataclasses import dataclass

import msgspec

from broker_coordinator.admission.fleet_view import Decided, Device
from broker_coordinator.aggregation.contribution import BufferedUpdate
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.topics import PackedWeights

MAX_DETAIL_CHARACTERS = 300
"""Of a refusal's sentence: it travels in a receipt, which must stay well below MAX_CONTROL_BYTES."""

assert MAX_DETAIL_CHARACTERS * 4 < MAX_CONTROL_BYTES  # noqa: S101 - two constants, checked once at import


class Message(msgspec.Struct, frozen=True, gc=False):
    """What the broker delivered."""

    topic: str
    data: bytes


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A new update, to be journalled with its whole `envelope`, which `envelope_digest` names.

    `loss` is the device's mean in training, `norm` the delta's Euclidean norm.
    """

    device: str
    header: Header
    envelope: bytes
    envelope_digest: bytes
    update: BufferedUpdate
    loss: float
    norm: float


@dataclass(frozen=True, slots=True)
class Repeated:
    """An update of which the outcome is journalled; it gets that outcome's receipt again and changes nothing."""

    device: str
    sequence: int
    outcome: Decided


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that changes nothing. `device` comes from the topic and is None where the topic is no device's.

    `verified`: the signature is the device's own. `answered`: a receipt may tell. `burned_sequence` is set where an
    update that would have been journalled is refused: the refusal is journalled in its place, so that a replay
    in better circumstances cannot turn it into an acceptance after the device has taken it back. `excessive` is the
    task and norm of an update that was longer than is usual: what is usual follows.
    """

    device: str | None
    reason: Reason
    detail: str
    envelope_digest: bytes
    verified: bool = False
    answered: bool = True
    burned_sequence: int | None = None
    excessive: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device introduced itself; `device` is what is to be known of it from now on."""

    device: Device
    envelope_digest: bytes


@dataclass(frozen=True, slots=True)
class BlobRequested:
    """A device asks for chunks of a blob (SHA-256 in hex); no chunk numbers mean all. `device` has the new sequence."""

    device: Device
    blob: str
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WeightsRequested:
    """A device asks for chunks of packed weights; no chunk numbers mean all. `device` has the new sequence."""

    device: Device
    packed: PackedWeights
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """A device's presence; `device` is what is to be known of it from now on."""

    device: Device


Decision = Accepted | Repeated | Refused | Enrolled | BlobRequested | WeightsRequested | PresenceSeen


def refusal(
    error: ProtocolError,
    device: str | None,
    envelope_digest: bytes,
    *,
    answered: bool,
    verified: bool = False,
    burned_sequence: int | None = None,
) -> Refused:
    """The decision that an error leads to."""
    detail = "".join(character if character.isprintable() else "?" for character in error.detail)
    return Refused(
        device, error.reason, detail[:MAX_DETAIL_CHARACTERS], envelope_digest, verified, answered, burned_sequence
    )
