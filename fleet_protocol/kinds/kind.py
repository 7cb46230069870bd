"""What the rest of the protocol knows of a payload: one row of the table in `fleet_protocol.kinds`."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Leaf(StrEnum):
    """Where a kind travels: the last level of a device's topics, or one of the coordinator's own."""

    UP = "up"
    DOWN = "down"
    STATE = "state"
    TASK = "task"
    INVITE = "invite"
    QUERY = "query"
    KEY = "key"
    CHUNK = "chunk"
    SESSION = "session"
    RELAYED = "relayed"
    ROSTER = "roster"
    GOSSIP = "gossip"


FROM_COORDINATOR = frozenset(
    {Leaf.DOWN, Leaf.TASK, Leaf.INVITE, Leaf.QUERY, Leaf.KEY, Leaf.CHUNK, Leaf.RELAYED, Leaf.ROSTER}
)
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
    name: str = field(init=False)
    """For people, such as "weights request"."""
    decrypted: "PayloadKind" = field(init=False)
    """The kind that counts once an encrypted payload is decrypted; any other is that itself."""

    def __post_init__(self) -> None:
        words = re.sub("(?<=.)(?=[A-Z])", " ", self.payload.__name__).lower()
        object.__setattr__(self, "name", f"encrypted {self.content.name}" if self.content else words)
        object.__setattr__(self, "decrypted", self.content or self)
