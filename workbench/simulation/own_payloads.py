"""What is encoded and read in one process, without signatures: it is not decoded again. docs/simulation.md."""

from typing import Final

import msgspec
import numpy as np

from broker_coordinator.admission.ahead import Prepared
from broker_coordinator.admission.parsed_message import ParsedMessage
from fleet_protocol.codec import EncodedUpdate, SparseUpdate, encode_update, without_statistics
from fleet_protocol.codec.sparse import FloatVector, Shapes
from fleet_protocol.kinds import UPDATE, Update, encode_payload, read_own
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

UNSIGNED: Final = Prepared(is_checked=True)
"""There is no signature to check."""
MOST_ON_THEIR_WAY: Final = 10_000
"""Updates that are known decoded; others are decoded as they come."""


class OwnPayload(bytes):
    """A payload's bytes, and the payload."""

    payload: msgspec.Struct

    @classmethod
    def of(cls, payload: msgspec.Struct) -> "OwnPayload":
        """Encode a payload."""
        made = cls(encode_payload(payload))
        made.payload = payload
        return made


class UpdatesUnderWay:
    """Updates on their way from this process to itself."""

    def __init__(self) -> None:
        self._sent: dict[bytes, SparseUpdate] = {}

    def encode(
        self, delta: FloatVector, shapes: Shapes, plan: UpdatePlan, generator: np.random.Generator
    ) -> EncodedUpdate:
        """As `encode_update` without zstd."""
        encoded = encode_update(delta, shapes, plan, generator, zstd=False)
        if len(self._sent) >= MOST_ON_THEIR_WAY:
            del self._sent[next(iter(self._sent))]
        self._sent[encoded.packed] = encoded.sent
        return encoded

    def prepared(self, parsed: ParsedMessage, task: TaskDescription) -> Prepared:
        """What admission need not decode again: what `encode` gave is what decoding gives."""
        envelope = parsed.envelope
        if envelope.header.kind is not UPDATE:
            return UNSIGNED
        update = read_own(envelope.payload, Update)
        packed = without_statistics(update.packed, task.statistics)
        decoded = None if update.held else self._sent.pop(packed, None)
        return Prepared(is_checked=True, payload=update, decoded=decoded)
