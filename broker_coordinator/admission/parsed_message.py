"""A message that is read but not decided on, with what was found out about it, so that nothing is found out twice."""

from dataclasses import dataclass

from broker_coordinator.admission.decisions import Message
from fleet_protocol.codec import SparseUpdate, decode_update
from fleet_protocol.codec.sparse import Shapes
from fleet_protocol.encryption import opened_payload
from fleet_protocol.envelope import Envelope
from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import Update, decode_payload


@dataclass(slots=True)
class ParsedMessage:
    """`device` is the one that the topic names. Nothing is to be believed before `verify` has returned."""

    message: Message
    digest: bytes
    device: str
    envelope: Envelope
    _verified_with: VerifyKey | None = None
    _not_verified: ProtocolError | None = None
    _update: Update | None = None
    _delta: SparseUpdate | None = None

    def verify(self, key: VerifyKey) -> None:
        """Check the signature.

        Raises:
            ProtocolError: `BAD_SIGNATURE`.
        """
        if self._verified_with is not key:
            self._verified_with, self._not_verified = key, None
            try:
                self.envelope.verify(key, self.message.topic)
            except ProtocolError as error:
                self._not_verified = error
        if self._not_verified is not None:
            raise self._not_verified

    def update(self, key: SigningKey | None) -> Update:
        """The payload of an update; `key` opens encrypted ones.

        Raises:
            ProtocolError: `WRONG_RECIPIENT` or `MALFORMED`.
        """
        if self._update is None:
            self._update = decode_payload(opened_payload(self.envelope, key), Update)
        return self._update

    def delta(self, packed: bytes, shapes: Shapes) -> SparseUpdate:
        """The delta of the update, unless it was decoded ahead.

        Raises:
            ProtocolError: for what `decode_update` refuses.
        """
        return decode_update(packed, shapes) if self._delta is None else self._delta

    def decoded(self, delta: SparseUpdate | None) -> None:
        """Note what decoding gives, or that it is still to be done."""
        self._delta = delta
