"""What a mask helper checks of a set before it says a word about it: all that does not need its key or memory. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import Signed, SumRequest
from secure_aggregation.manifest import check_manifest, seed_plan_of
from secure_aggregation.messages import CohortManifest, CohortSet, Member, SealedSeeds, message_hash
from secure_aggregation.signatures import verified

Roster = Mapping[str, VerifyKey]
"""The devices that a helper knows, by name: its own list, which no coordinator writes."""


@dataclass(frozen=True, slots=True)
class HelperPolicy:
    """What a helper's owner asks of every set, whatever its manifest says.

    `most_masked_entries` bounds the work of one answer: entries times devices times seeds that the helper holds. A
    cohort of 200 devices with 50,890 entries takes 31 million where a helper holds three.
    """

    fewest_devices: int = 10
    fewest_per_weight: int = 5
    most_masked_entries: int = 1 << 28


@dataclass(frozen=True, slots=True)
class CheckedSet:
    """A set that may be spoken for, by the helper with this `number` in its manifest. `ciphertext` is the SHA-256 that
    it names, if any.
    """

    manifest: CohortManifest
    cohort: bytes
    set_hash: bytes
    members: tuple[Member, ...]
    seeds: tuple[SealedSeeds, ...]
    number: int
    ciphertext: bytes


def checked_set(
    request: SumRequest, own_key: VerifyKey, coordinator: VerifyKey, roster: Roster, policy: HelperPolicy
) -> CheckedSet:
    """Check everything that a request's bytes can show.

    Raises:
        ProtocolError: with what is wrong, and with whom.
    """
    manifest = verified(request.manifest, CohortManifest, coordinator, "the coordinator")
    check_manifest(manifest)
    cohort_set = verified(request.cohort_set, CohortSet, coordinator, "the coordinator")
    cohort = message_hash(manifest)
    if cohort_set.cohort != cohort:
        raise ProtocolError(
            Reason.WRONG_HASH,
            f"set of cohort {cohort_set.cohort[:8].hex()} came with the manifest of {cohort[:8].hex()}; send its own",
        )
    if bytes(own_key) not in manifest.helpers:
        raise ProtocolError(
            Reason.WRONG_RECIPIENT,
            f"cohort {cohort[:8].hex()} has no mask helper with the key {bytes(own_key)[:8].hex()}; ask those it names",
        )
    number = manifest.helpers.index(bytes(own_key))
    _check_members(manifest, cohort_set.members, roster, policy)
    _check_work(manifest, len(cohort_set.members), number, policy)
    _check_seeds_count(request, len(cohort_set.members))
    seeds = tuple(
        _seeds_of(member, sealed, manifest, cohort, roster[member.device])
        for member, sealed in zip(cohort_set.members, request.seeds, strict=True)
    )
    set_hash = message_hash(cohort_set)
    return CheckedSet(manifest, cohort, set_hash, cohort_set.members, seeds, number, cohort_set.ciphertext)


def strangers_of(request: SumRequest, coordinator: VerifyKey, roster: Roster) -> tuple[str, ...]:
    """Members of a set whom the roster does not have, or has with another key than the one that signed their seeds.

    Raises:
        ProtocolError: the coordinator has not signed the set, or there are seeds for more or fewer devices.
    """
    members = verified(request.cohort_set, CohortSet, coordinator, "the coordinator").members
    _check_seeds_count(request, len(members))
    return tuple(
        member.device
        for member, seeds in zip(members, request.seeds, strict=True)
        if not _is_known(member.device, seeds, roster)
    )


def _is_known(device: str, seeds: Signed, roster: Roster) -> bool:
    if device not in roster:
        return False
    try:
        verified(seeds, SealedSeeds, roster[device], device)
    except ProtocolError:
        return False
    return True


def _check_seeds_count(request: SumRequest, members: int) -> None:
    if len(request.seeds) != members:
        raise ProtocolError(Reason.WRONG_SHAPE, f"seeds of {len(request.seeds)} devices for a set of {members}")


def _check_members(manifest: CohortManifest, members: tuple[Member, ...], roster: Roster, policy: HelperPolicy) -> None:
    """Who is in the set: known devices, each once, enough of them, and enough of each weight."""
    fewest = max(manifest.fewest_devices, policy.fewest_devices)
    if not fewest <= len(members) <= manifest.most_devices:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"a set of {len(members)} devices; from {fewest} to {manifest.most_devices} may be summed here: wait for"
            " more devices, or leave some for the next cohort",
        )
    if not all(before.device < after.device for before, after in pairwise(members)):
        raise ProtocolError(Reason.MALFORMED, "a set's devices are not in the order of their names, each once")
    for member in members:
        if member.device not in roster:
            raise ProtocolError(
                Reason.UNKNOWN_KEY, f"{member.device} is not in this helper's roster; leave it out, or have it added"
            )
    if len({bytes(roster[member.device]) for member in members}) < len(members):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "two names of this set have one key in this helper's roster")
    _check_weights(manifest, members, policy)


def _check_weights(manifest: CohortManifest, members: tuple[Member, ...], policy: HelperPolicy) -> None:
    """Where one device alone had an odd weight, the sum's lowest bit would be its own."""
    fewest = max(manifest.fewest_per_weight, policy.fewest_per_weight)
    for weight, devices in sorted(Counter(member.weight for member in members).items()):
        if weight not in manifest.weights:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS, f"weight {weight} is not among the cohort's weights {manifest.weights}"
            )
        if devices < fewest:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"{devices} devices with weight {weight}; at least {fewest} must share each weight that occurs: give"
                " them one that more devices have",
            )


def _check_work(manifest: CohortManifest, members: int, number: int, policy: HelperPolicy) -> None:
    entries = manifest.entries * members * len(seed_plan_of(manifest).held_by(number))
    if entries > policy.most_masked_entries:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"an answer would take {entries} entries of masks; most_masked_entries is {policy.most_masked_entries}:"
            " send fewer entries or devices, or raise it at the helper",
        )


def _seeds_of(member: Member, sealed: Signed, manifest: CohortManifest, cohort: bytes, key: VerifyKey) -> SealedSeeds:
    """A member's seeds, if the device signed just these for just this cohort and number."""
    seeds = verified(sealed, SealedSeeds, key, f"{member.device}, as this helper's roster knows it")
    if (seeds.device, seeds.sequence, seeds.cohort) != (member.device, member.sequence, cohort):
        raise ProtocolError(
            Reason.WRONG_RECIPIENT,
            f"{member.device} signed seeds of update {seeds.sequence} for cohort {seeds.cohort[:8].hex()}, not of"
            f" {member.sequence} for {cohort[:8].hex()}",
        )
    if message_hash(seeds) != member.seeds:
        raise ProtocolError(Reason.WRONG_HASH, f"seeds of {member.device} are others than the set names")
    if not manifest.oldest_version <= seeds.base_version <= manifest.newest_version:
        raise ProtocolError(
            Reason.TOO_STALE,
            f"{member.device} began with version {seeds.base_version}; the cohort takes {manifest.oldest_version} to"
            f" {manifest.newest_version}",
        )
    return seeds
