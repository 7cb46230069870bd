"""What the rest of the protocol knows of a payload: one row of the table in `fleet_protocol.kinds`."""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import msgspec


class Leaf(StrEnum):
    """Where a kind travels: the last level of a device's topics, or one of the coordinator's own."""

    UP = "up"
    DOWN = "down"
    STATE = "state"
    TASK = "task"
    CHUNK = "chunk"


FROM_COORDINATOR = frozenset({Leaf.DOWN, Leaf.TASK, Leaf.CHUNK})
"""Everything else comes from devices."""


@dataclass(frozen=True, slots=True, eq=False)
class PayloadKind:
    """A kind of payload.

    `number` stands in the envelope's header. `max_bytes` bounds the whole signed message. A `journalled` kind waits in
    the device's outbox for its receipt and is written to the coordinator's journal. `content` is the kind whose payload
    is encrypted in this one, where it is.
    """

    number: int
    payload: type[msgspec.Struct]
    leaf: Leaf
    max_bytes: int
    journalled: bool = False
    content: "PayloadKind | None" = None

    @property
    def name(self) -> str:
        """For people, such as "weights request"."""
        if self.content:
            return f"encrypted {self.content.name}"
        return _in_words(self.payload.__name__)

    @property
    def decrypted(self) -> "PayloadKind":
        """The kind of the payload once decrypted; of a kind that is not encrypted, the kind itself."""
        return self.content or self


@cache
def _in_words(class_name: str) -> str:
    return re.sub("(?<=.)(?=[A-Z])", " ", class_name).lower()
