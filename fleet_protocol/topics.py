"""MQTT topics of the protocol. Names hold `[a-z0-9_-]` only, so every broker carries them."""

import re

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_NAME_CHARACTERS

ROOT = "edgeflock/v1"
_NAME = re.compile(rf"[a-z0-9_-]{{1,{MAX_NAME_CHARACTERS}}}")
_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_DEVICE_LEAVES = ("up", "down", "state")


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
    """Where a device speaks to the coordinator."""
    return f"{ROOT}/{fleet}/{shard}/{device}/up"


def down(fleet: str, shard: str, device: str) -> str:
    """Where the coordinator answers one device."""
    return f"{ROOT}/{fleet}/{shard}/{device}/down"


def state(fleet: str, shard: str, device: str) -> str:
    """A device's retained presence."""
    return f"{ROOT}/{fleet}/{shard}/{device}/state"


def manifest(fleet: str, task: str) -> str:
    """A task's retained, signed manifest."""
    return f"{ROOT}/{fleet}/task/{task}"


def blob_chunk(fleet: str, blob: str, number: int) -> str:
    """One chunk of a blob; `blob` is the SHA-256 of the whole, in hex."""
    return f"{ROOT}/{fleet}/blob/{blob}/{number}"


def blob_chunks(fleet: str, blob: str) -> str:
    """The filter that hears every chunk of a blob."""
    return f"{ROOT}/{fleet}/blob/{blob}/+"


def device_filters(fleet: str, shard: str) -> tuple[str, str]:
    """The two filters with which a coordinator hears its devices: everything up, and presence."""
    return f"{ROOT}/{fleet}/{shard}/+/up", f"{ROOT}/{fleet}/{shard}/+/state"


def device_of(topic: str) -> tuple[str, str]:
    """Split a device's topic into the device's name and the leaf (`up`, `down` or `state`).

    Raises:
        ProtocolError: `MALFORMED`, where the topic is no device's.
    """
    parts = topic.split("/")
    if len(parts) != 6 or parts[5] not in _DEVICE_LEAVES or not topic.startswith(ROOT + "/"):
        raise ProtocolError(Reason.MALFORMED, f"topic {topic[:200]!r} is not a device's topic")
    return check_name("device", parts[4]), parts[5]


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


def is_blob_hash(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hex."""
    return bool(_HASH.fullmatch(text))
