"""Which devices learn a task without a coordinator, and so who is whose neighbour (docs/gossip.md)."""

from typing import Annotated

import msgspec

from fleet_protocol.bundle_files import BlobHash
from fleet_protocol.configuration import Name
from fleet_protocol.gossip_plan import MixingRule, TopologyName
from fleet_protocol.keys import KEY_BYTES
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_GENERATION, MAX_ROSTER_BYTES, MAX_ROSTER_DEVICES


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device of a roster, and the public key that its messages are signed with."""

    name: Name
    public_key: Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]


class Roster(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The devices that learn the header's task, in the order of their places in its topology: `fleet_protocol.gossip`
    says from it who is whose neighbour. The message is retained, and replaces the last one.

    A roster of a higher `generation` of the task replaces whatever a device knew; within one, the higher `number` does.
    `bundle` is the SHA-256 of `task.json`; `topology`, `rule` and `seed` are as there. Where there are fewer `members`
    than the topology takes, nobody trains.
    """

    generation: Annotated[int, msgspec.Meta(ge=0, le=MAX_GENERATION)]
    number: Count
    bundle: BlobHash
    topology: TopologyName
    rule: MixingRule
    seed: Count
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=MAX_ROSTER_DEVICES)]

    def __post_init__(self) -> None:
        """Raises ValueError where two members have one name, or one key: a device has one place."""
        for what in ("name", "public_key"):
            if len({getattr(each, what) for each in self.members}) < len(self.members):
                raise ValueError(f"two members have the same {what}")


ROSTER = PayloadKind(45, Roster, Leaf.ROSTER, max_bytes=MAX_ROSTER_BYTES)
