"""A message as it is parsed. Nothing in it is verified."""

import msgspec

from broker_coordinator.admission.decisions import Message
from fleet_protocol.envelope import Envelope


class ParsedMessage(msgspec.Struct, frozen=True, gc=False):
    """`device` is the one that the topic names, `digest` that of the envelope's bytes."""

    message: Message
    digest: bytes
    device: str
    envelope: Envelope
