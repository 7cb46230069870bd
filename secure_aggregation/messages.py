"""What device, mask helpers and coordinator say to each other, as msgspec structs: CBOR arrays of their fields.

What a third party must be able to check is signed by itself (`Signed`), not by the envelope that carries it. A cohort
is named by the SHA-256 of its manifest and a set by that of its members, so nobody can be shown two manifests or two
sets under one name.
"""

import hashlib
from typing import Annotated, Final

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.keys import KEY_BYTES
from fleet_protocol.kinds import Count, encode_payload
from fleet_protocol.limits import (
    MAX_COHORT_DEVICES,
    MAX_MASK_HELPERS,
    MAX_MASK_SEEDS,
    MAX_PARAMETERS,
    MAX_SEALED_SEEDS_BYTES,
    MAX_SEQUENCE,
    MAX_STALENESS_WEIGHT,
    MAX_TOP_POSITIONS_BYTES,
)
from fleet_protocol.privacy.mask_plan import PositionRule
from fleet_protocol.privacy.noise_shares import MOST_DEVIATION

HASH_BYTES: Final = 32
"""A whole SHA-256: what is named by one must have no twin, not even one that somebody looks for."""
SEED_BYTES: Final = 16

Hash = Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
HashOrNone = Annotated[bytes, msgspec.Meta(max_length=HASH_BYTES)]
"""Empty where there is none."""
Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
StalenessWeight = Annotated[int, msgspec.Meta(ge=1, le=MAX_STALENESS_WEIGHT)]
Entries = Annotated[int, msgspec.Meta(ge=1, le=MAX_PARAMETERS)]
Devices = Annotated[int, msgspec.Meta(ge=2, le=MAX_COHORT_DEVICES)]
HelperNumber = Annotated[int, msgspec.Meta(ge=0, lt=MAX_MASK_HELPERS)]


class CohortManifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the coordinator says of a cohort before anybody joins it; `manifest` says what must hold between fields.

    `number` tells it from every other. Updates may begin with a version from `oldest_version` to `newest_version`.
    `entries` of `parameters` are sent, with `momentum` those of `top_positions` among them (`positions`).
    `clip` is the largest magnitude of an entry, which `bits` bits hold with its sign. A set has `fewest_devices` to
    `most_devices` members, and of each weight that occurs, which is one of `weights`, at least `fewest_per_weight`.
    `helpers` are Ed25519 keys; any `colluding` of them learn nothing with the coordinator. Each device adds noise of
    `deviation` levels to each entry; 0: none. Where masked entries are encrypted, `encryption_key` is the SHA-256 of
    the key's file, empty where they are not, and `key_holder` the helper whose key it is.
    """

    number: Count
    task: Name
    generation: Count
    oldest_version: Count
    newest_version: Count
    parameters: Entries
    entries: Entries
    positions: PositionRule
    positions_seed: Count
    top_positions: Annotated[bytes, msgspec.Meta(max_length=MAX_TOP_POSITIONS_BYTES)]
    clip: float
    bits: Annotated[int, msgspec.Meta(ge=2, le=16)]
    weights: Annotated[tuple[StalenessWeight, ...], msgspec.Meta(min_length=1, max_length=MAX_STALENESS_WEIGHT)]
    fewest_devices: Devices
    most_devices: Devices
    fewest_per_weight: Devices
    helpers: Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=MAX_MASK_HELPERS)]
    colluding: Annotated[int, msgspec.Meta(ge=0, lt=MAX_MASK_HELPERS)]
    deviation: Annotated[int, msgspec.Meta(ge=0, le=MOST_DEVIATION)] = 0
    encryption_key: HashOrNone = b""
    key_holder: HelperNumber = 0


class SealedSeeds(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A device's seeds for the helpers of a cohort, signed by the device: `boxes[h]` is for helper h alone.

    `ephemeral` is the X25519 public key of all boxes. `base_version` is what the update began with.
    """

    cohort: Hash
    device: Name
    sequence: Count
    base_version: Count
    ephemeral: Key
    boxes: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=MAX_SEALED_SEEDS_BYTES)], ...],
        msgspec.Meta(min_length=1, max_length=MAX_MASK_HELPERS),
    ]


class Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device's update in a set. `seeds` is the SHA-256 of its signed `SealedSeeds`."""

    device: Name
    sequence: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
    weight: StalenessWeight
    seeds: Hash


class CohortSet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose updates are summed, and with which weights; in the order of devices' names. Signed by the coordinator.

    `ciphertext` is the SHA-256 of the sum of the members' encrypted updates, once it is made; else empty.
    """

    cohort: Hash
    members: Annotated[tuple[Member, ...], msgspec.Meta(min_length=1, max_length=MAX_COHORT_DEVICES)]
    ciphertext: HashOrNone = b""


class SetSignature(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A helper's word that of this cohort, and of this set's updates, it answers for this set or for none."""

    cohort: Hash
    set_hash: Hash
    helper: HelperNumber


class HelperAnswer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The weighted sum over a set of the masks of each seed that a helper holds, in `SeedPlan`'s order; packed.

    A key holder takes what it has decrypted off its one sum: taken off in turn, as masks are, that is added.
    """

    cohort: Hash
    set_hash: Hash
    helper: HelperNumber
    sums: Annotated[tuple[bytes, ...], msgspec.Meta(min_length=1, max_length=MAX_MASK_SEEDS)]


class EncryptionKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a key holder's file says, signed with its mask key: the public key, packed as a ciphertext of one chunk."""

    public: bytes


def message_hash(message: CohortManifest | CohortSet | SealedSeeds) -> bytes:
    """The SHA-256 of a message's bytes: a manifest's is its cohort's name, a set's what helpers sign."""
    return hashlib.sha256(encode_payload(message)).digest()
