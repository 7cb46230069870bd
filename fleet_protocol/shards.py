"""Which shard of its fleet a device belongs to: found from names alone, so that both sides find the same. Pure.

Highest random weight, or rendezvous, hashing (Thaler and Ravishankar, Using name-based mappings to increase hit rates,
IEEE/ACM Transactions on Networking 6(1), 1998): each shard has a weight for a device, and the heaviest has the device.
One more of n shards takes one device in n + 1, some of each other shard, and moves no other.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.limits import MAX_SHARDS

Shards = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_SHARDS)]
"""The shards that a fleet has."""

_USE = b"edgeflock/shard"
"""Sets this hash apart from every other."""
_WEIGHT_BYTES = 8


def shard_of(device: str, shards: Iterable[str]) -> str:
    """The one of `shards` that a device belongs to, whatever their order.

    Raises:
        ValueError: there are none.
    """
    return max(shards, key=lambda shard: (_weight(device, shard), shard))


def _weight(device: str, shard: str) -> bytes:
    """8 bytes of BLAKE2b over shard, slash and device: no name has a slash."""
    return hashlib.blake2b(f"{shard}/{device}".encode(), person=_USE, digest_size=_WEIGHT_BYTES).digest()
