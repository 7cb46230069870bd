"""A device's one message to a cohort, after which it may sleep. Imports neither helper nor coordinator. Pure."""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from fleet_protocol.codec import SparseUpdate
from fleet_protocol.codec.sparse import FloatVector, IndexVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import MaskedUpdate, Signed
from fleet_protocol.privacy.noise_shares import NoisedUpdates
from secure_aggregation.bit_packing import Words, pack
from secure_aggregation.boxes import EPHEMERAL_BYTES, sealed_seeds
from secure_aggregation.ciphertexts import encrypted
from secure_aggregation.discrete_gaussian import RandomBytes
from secure_aggregation.field import Field, Levels
from secure_aggregation.manifest import check_manifest, field_of, seed_plan_of
from secure_aggregation.masks import mask, update_place
from secure_aggregation.messages import SEED_BYTES, CohortManifest, SealedSeeds, message_hash
from secure_aggregation.rounding import rounded
from secure_aggregation.signatures import signed, verified


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What a device's owner asks of a cohort: helpers that are trusted, by Ed25519 key, and how many sums hide it.

    `fewest_colluding` is how many helpers may join the coordinator and still learn nothing.
    """

    trusted_helpers: Set[bytes]
    fewest_devices: int = 10
    fewest_per_weight: int = 5
    fewest_colluding: int = 1


@dataclass(frozen=True, slots=True)
class MaskedEntries:
    """What is sent but for a signature over `seeds`, and what receivers will count: `levels`, with noise where there is
    any, and without noise `sent`, which error feedback takes, or takes back if void. Entries were scaled by `scale`.
    """

    seeds: SealedSeeds
    values: bytes
    levels: Levels
    sent: SparseUpdate
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class MaskedRound:
    """The same, signed."""

    update: MaskedUpdate
    levels: Levels
    sent: SparseUpdate


def accepted_cohort(
    message: Signed, coordinator: VerifyKey, policy: DevicePolicy, parameters: int, base_version: int
) -> CohortManifest:
    """The manifest of a cohort that this device may join with an update of so many parameters and this version.

    Raises:
        ProtocolError: it is not the coordinator's, contradicts itself, or is not what this device's owner asks for.
    """
    manifest = verified(message, CohortManifest, coordinator, "the coordinator that this device trusts")
    check_manifest(manifest)
    if manifest.parameters != parameters:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"cohort {manifest.number} is of {manifest.parameters} parameters, this task has {parameters}; publish the"
            " task again",
        )
    for key in manifest.helpers:
        if key not in policy.trusted_helpers:
            raise ProtocolError(
                Reason.UNKNOWN_KEY,
                f"cohort {manifest.number} has a mask helper {key.hex()} that this device does not trust; add the key"
                " to its trusted helpers, or have the task name others",
            )
    floors = (
        ("fewest_devices", manifest.fewest_devices, policy.fewest_devices),
        ("fewest_per_weight", manifest.fewest_per_weight, policy.fewest_per_weight),
        ("colluding", manifest.colluding, policy.fewest_colluding),
    )
    for name, offered, asked in floors:
        if offered < asked:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"cohort {manifest.number}: {name} {offered} is below {asked}, which this device's owner asks for",
            )
    if not manifest.oldest_version <= base_version <= manifest.newest_version:
        raise ProtocolError(
            Reason.TOO_STALE,
            f"version {base_version} is not from {manifest.oldest_version} to {manifest.newest_version}, as cohort"
            f" {manifest.number} asks; train again from the newest",
        )
    return manifest


def masked_entries(
    manifest: CohortManifest,
    positions: IndexVector,
    vector: FloatVector,
    *,
    device: str,
    sequence: int,
    base_version: int,
    random_bytes: RandomBytes,
    noised: NoisedUpdates | None = None,
    zeros: bytes | None = None,
) -> MaskedEntries:
    """Round and mask the entries of `vector`, float32[parameters], at the cohort's positions; no key is needed for it.

    `sequence` must be a number that this device has never sent another masked update under. With `noised`, entries are
    scaled down to its norm, and noise is added to their levels. For a cohort with a key holder, `zeros` are fresh
    encryptions of zero under its key, as `ciphertexts.encrypted` takes them.

    Raises:
        ProtocolError: `WRONG_SHAPE`: not the cohort's parameters, entries or encryptions. `NOT_FINITE`: the update.
            `OUT_OF_BOUNDS`: other noise than the cohort's. `UNKNOWN_KEY`: encryptions are missing, or are not needed.
    """
    if vector.size != manifest.parameters or positions.size != manifest.entries:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"{positions.size} entries of {vector.size} parameters; cohort {manifest.number} takes {manifest.entries}"
            f" of {manifest.parameters}",
        )
    field, plan, cohort = field_of(manifest), seed_plan_of(manifest), message_hash(manifest)
    place = update_place(cohort, device, sequence)
    levels = rounded(field, vector[positions], noised, random_bytes)
    seeds = [random_bytes(SEED_BYTES) for _ in range(plan.seeds)]
    ephemeral, boxes = sealed_seeds(seeds, plan, manifest.helpers, place, random_bytes(EPHEMERAL_BYTES))
    masked = field.residues(levels.told)
    for number, seed in enumerate(seeds):
        masked = masked + mask(seed, place, number, manifest.entries)
    sealed = SealedSeeds(cohort, device, sequence, base_version, ephemeral, boxes)
    sent = SparseUpdate(positions, field.values(levels.plain))
    values = _values(manifest, field, np.asarray(masked), zeros)
    return MaskedEntries(sealed, values, levels.told, sent, levels.scale)


def _values(manifest: CohortManifest, field: Field, masked: Words, zeros: bytes | None) -> bytes:
    """What is sent of masked entries: themselves, packed, or in ciphertexts where the cohort has a key holder."""
    if bool(manifest.encryption_key) != (zeros is not None):
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"cohort {manifest.number} has {'a' if manifest.encryption_key else 'no'} key holder, and there"
            f" {'are' if zeros is not None else 'are no'} encryptions for one; publish the task again",
        )
    return pack(masked, field.width) if zeros is None else encrypted(zeros, masked, field.width)


def masked_round(
    manifest: CohortManifest,
    positions: IndexVector,
    vector: FloatVector,
    *,
    key: SigningKey,
    device: str,
    sequence: int,
    base_version: int,
    random_bytes: RandomBytes,
    noised: NoisedUpdates | None = None,
    zeros: bytes | None = None,
) -> MaskedRound:
    """The same, signed with the device's `key`.

    Raises:
        ProtocolError: as `masked_entries`.
    """
    made = masked_entries(
        manifest,
        positions,
        vector,
        device=device,
        sequence=sequence,
        base_version=base_version,
        random_bytes=random_bytes,
        noised=noised,
        zeros=zeros,
    )
    return MaskedRound(MaskedUpdate(signed(key, made.seeds), made.values), made.levels, made.sent)
