"""MQTT topics of the protocol. Names hold `[a-z0-9_-]` only, so every broker carries them."""

import re
from dataclasses import dataclass

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_NAME_CHARACTERS

ROOT = "edgeflock/v1"
_NAME = re.compile(rf"[a-z0-9_-]{{1,{MAX_NAME_CHARACTERS}}}")
_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_FROM_NOTHING = "whole"
_DEVICE_LEAVES = ("up", "down", "state", "session", "relayed")


def check_name(what: str, name: str) -> str:
    """Return `name` unchanged if it may stand in a topic.

    Raises:
        ProtocolError: `MALFORMED`, with what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise ProtocolError(
            Reason.MALFORMED,
            f"{what} name {name[:80]!r} must be 1 to {MAX_NAME_CHARACTERS} characters of a-z, 0-9, '-' and '_'",
        )
    return name


def up(fleet: str, shard: str, device: str) -> str:
    """The topic on which a device sends to the coordinator."""
    return f"{ROOT}/{fleet}/{shard}/{device}/up"


def down(fleet: str, shard: str, device: str) -> str:
    """The topic on which the coordinator sends to one device."""
    return f"{ROOT}/{fleet}/{shard}/{device}/down"


def state(fleet: str, shard: str, device: str) -> str:
    """A device's retained presence."""
    return f"{ROOT}/{fleet}/{shard}/{device}/state"


def session(fleet: str, shard: str, device: str) -> str:
    """The topic on which a device, or a helper, sends to the relay."""
    return f"{ROOT}/{fleet}/{shard}/{device}/session"


def relayed(fleet: str, shard: str, device: str) -> str:
    """The topic on which the relay sends to one device or helper."""
    return f"{ROOT}/{fleet}/{shard}/{device}/relayed"


def relay_filters(fleet: str, shard: str) -> tuple[str, str]:
    """A relay's two filters: all that is for it, and presence."""
    return f"{ROOT}/{fleet}/{shard}/+/session", f"{ROOT}/{fleet}/{shard}/+/state"


def manifest(fleet: str, task: str) -> str:
    """A task's retained, signed manifest."""
    return f"{ROOT}/{fleet}/task/{task}"


def invitation(fleet: str, task: str) -> str:
    """A task's signed invitations, which are not retained."""
    return f"{ROOT}/{fleet}/invite/{task}"


def queries(fleet: str, task: str) -> str:
    """The retained, signed message with what is asked about a task's samples."""
    return f"{ROOT}/{fleet}/query/{task}"


def roster(fleet: str, task: str) -> str:
    """The retained, signed message with the devices that learn a task without a coordinator."""
    return f"{ROOT}/{fleet}/roster/{task}"


def gossip(fleet: str, task: str, device: str) -> str:
    """The topic on which a device sends to its neighbours. It has a level more than a device's topics: no device's name
    makes one of them out of it.
    """
    return f"{ROOT}/{fleet}/gossip/{task}/from/{device}"


def is_gossip(topic: str) -> bool:
    """Whether it has the form of `gossip`, whichever texts stand for task and device."""
    parts = topic.split("/")
    return len(parts) == 7 and (parts[3], parts[5]) == ("gossip", "from") and topic.startswith(ROOT + "/")


def gossip_of(topic: str) -> tuple[str, str]:
    """Split a topic of `gossip` into the names of task and device.

    Raises:
        ProtocolError: `MALFORMED`, where the topic is another.
    """
    parts = topic.split("/")
    if not is_gossip(topic):
        raise ProtocolError(
            Reason.MALFORMED, f"topic {topic[:200]!r} is not one on which a device tells its neighbours"
        )
    return check_name("task", parts[4]), check_name("device", parts[6])


def key_succession(fleet: str, followed: bytes) -> str:
    """The retained, signed message that names the key which follows the one of this id."""
    return f"{ROOT}/{fleet}/key/{followed.hex()}"


def authority_succession(fleet: str, followed: bytes) -> str:
    """The retained, signed message that names the authorities which follow the set of this id."""
    return f"{ROOT}/{fleet}/key/authorities-{followed.hex()}"


def blob_chunk(fleet: str, blob: str, number: int) -> str:
    """One chunk of a blob; `blob` is the SHA-256 of the whole, in hex."""
    return f"{ROOT}/{fleet}/blob/{blob}/{number}"


def blob_chunks(fleet: str, blob: str) -> str:
    """The filter for every chunk of a blob."""
    return f"{ROOT}/{fleet}/blob/{blob}/+"


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A version of a task's weights, packed as its difference from version `base`, or from nothing (None)."""

    task: str
    version: int
    base: int | None


def packed_chunk(fleet: str, packed: PackedWeights, number: int) -> str:
    """One chunk of packed weights."""
    return f"{_packed(fleet, packed)}/{number}"


def packed_chunks(fleet: str, packed: PackedWeights) -> str:
    """The filter for every chunk of them."""
    return f"{_packed(fleet, packed)}/+"


def device_filters(fleet: str, shard: str) -> tuple[str, str]:
    """A coordinator's two filters for its devices: everything they send up, and presence."""
    return f"{ROOT}/{fleet}/{shard}/+/up", f"{ROOT}/{fleet}/{shard}/+/state"


def kind_of(topic: str) -> str:
    """What a topic that is no device's is of, by the level behind the fleet: `blob`, `roster` and so on, whatever
    fleet, tasks and devices are called. A device's has its shard there.
    """
    parts = topic.split("/")
    return parts[3] if topic.startswith(ROOT + "/") and len(parts) > 3 else ""


def leaf_of(topic: str) -> str:
    """The leaf of a device's topic; empty for any other, such as the manifest of a task that is called like a leaf."""
    parts = topic.split("/")
    is_device = topic.startswith(ROOT + "/") and len(parts) == 6 and parts[5] in _DEVICE_LEAVES
    return parts[5] if is_device else ""


def device_of(topic: str) -> tuple[str, str]:
    """Split a device's topic into the device's name and the leaf (`up`, `down`, `state`, `session` or `relayed`).

    Raises:
        ProtocolError: `MALFORMED`, where the topic is no device's.
    """
    if not (leaf := leaf_of(topic)):
        raise ProtocolError(Reason.MALFORMED, f"topic {topic[:200]!r} is not a device's topic")
    return check_name("device", topic.split("/")[4]), leaf


def shard_in(topic: str) -> str:
    """The shard in a device's topic (`device_of`), whichever text stands there."""
    return topic.split("/")[3]


def blob_of(topic: str) -> tuple[str, int]:
    """Split a blob topic into hash and chunk number.

    Raises:
        ProtocolError: `MALFORMED`, where the topic is no blob's.
    """
    parts = topic.split("/")
    is_blob = len(parts) == 6 and parts[3] == "blob" and topic.startswith(ROOT + "/")
    if not is_blob or not _HASH.fullmatch(parts[4]) or not _CHUNK_NUMBER.fullmatch(parts[5]):
        raise ProtocolError(Reason.MALFORMED, f"topic {topic[:200]!r} is not a blob chunk's topic")
    return parts[4], int(parts[5])


def packed_of(topic: str) -> tuple[PackedWeights, int]:
    """Split a topic of packed weights into what they are and the chunk number.

    Raises:
        ProtocolError: `MALFORMED`, where the topic is none of packed weights.
    """
    parts = topic.split("/")
    is_packed = len(parts) == 8 and parts[3] == "weights" and topic.startswith(ROOT + "/")
    if (
        not is_packed
        or not _NUMBER.fullmatch(parts[5])
        or not (parts[6] == _FROM_NOTHING or _NUMBER.fullmatch(parts[6]))
        or not _CHUNK_NUMBER.fullmatch(parts[7])
    ):
        raise ProtocolError(Reason.MALFORMED, f"topic {topic[:200]!r} is not one of packed weights")
    base = None if parts[6] == _FROM_NOTHING else int(parts[6])
    return PackedWeights(check_name("task", parts[4]), int(parts[5]), base), int(parts[7])


def chunk(fleet: str, wanted: str | PackedWeights, number: int) -> str:
    """One chunk of a blob, named by its SHA-256, or of packed weights."""
    return blob_chunk(fleet, wanted, number) if isinstance(wanted, str) else packed_chunk(fleet, wanted, number)


def chunks(fleet: str, wanted: str | PackedWeights) -> str:
    """The filter for every chunk of either."""
    return blob_chunks(fleet, wanted) if isinstance(wanted, str) else packed_chunks(fleet, wanted)


def chunk_of(topic: str) -> tuple[str | PackedWeights, int]:
    """What a chunk's topic names, a blob or packed weights, and the chunk's number.

    Raises:
        ProtocolError: `MALFORMED`, where the topic is neither's.
    """
    return packed_of(topic) if topic.count("/") == 7 else blob_of(topic)


def _packed(fleet: str, packed: PackedWeights) -> str:
    base = _FROM_NOTHING if packed.base is None else packed.base
    return f"{ROOT}/{fleet}/weights/{packed.task}/{packed.version}/{base}"


def is_blob_hash(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hex."""
    return bool(_HASH.fullmatch(text))
