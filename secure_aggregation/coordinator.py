"""The coordinator's part: it takes masked updates in, proposes a set, and unmasks the sum or nothing. Pure.

Imports neither device nor helper.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import MaskedUpdate, Signed
from secure_aggregation.bit_packing import Words, unpack
from secure_aggregation.ciphertexts import Ciphertext, add_weighted, pack_ciphertext, unpack_ciphertext
from secure_aggregation.field import Levels
from secure_aggregation.manifest import field_of, seed_plan_of
from secure_aggregation.messages import CohortManifest, CohortSet, HelperAnswer, Member, SealedSeeds, message_hash
from secure_aggregation.signatures import read_unverified, verified


class VoidCohortError(Exception):
    """A cohort that gives no sum, and why. Its updates are rejected, so devices take them back into residuals."""


class SpoiledSumError(VoidCohortError):
    """Enough helpers have answered, and what they say gives no sum: one of the set's devices, or of the helpers, did
    not what it signed.
    """


@dataclass(frozen=True, slots=True)
class AdmittedUpdate:
    """A masked update that may be a member of a set; `masked` is uint32[entries], or empty where nothing is summed, or
    what is summed is ciphertexts.
    """

    device: str
    sequence: int
    base_version: int
    seeds: Signed
    seeds_hash: bytes
    masked: Words


@dataclass(frozen=True, slots=True)
class OpenCohort:
    """A cohort that takes updates: `name` is the SHA-256 of its manifest."""

    manifest: CohortManifest
    name: bytes


@dataclass(frozen=True, slots=True)
class CohortSum:
    """The weighted sum of a set's levels, int64[entries], and of its weights."""

    levels: Levels
    total_weight: int
    devices: int


def admitted(manifest: CohortManifest, update: MaskedUpdate, device: str, key: VerifyKey) -> AdmittedUpdate:
    """Check a masked update of this device. What its boxes hold, and what its mask hides, can't be seen here.

    Raises:
        ProtocolError: with what is wrong.
    """
    seeds = verified(update.seeds, SealedSeeds, key, device)
    if seeds.device != device or seeds.cohort != message_hash(manifest):
        raise ProtocolError(
            Reason.WRONG_RECIPIENT,
            f"{device} sent seeds of {seeds.device} for cohort {seeds.cohort[:8].hex()}; this one is"
            f" {message_hash(manifest)[:8].hex()}",
        )
    if not manifest.oldest_version <= seeds.base_version <= manifest.newest_version:
        raise ProtocolError(
            Reason.TOO_STALE,
            f"update of version {seeds.base_version}; the cohort takes {manifest.oldest_version} to"
            f" {manifest.newest_version}",
        )
    if len(seeds.boxes) != len(manifest.helpers):
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"{len(seeds.boxes)} boxes of seeds for {len(manifest.helpers)} helpers"
        )
    if manifest.encryption_key:
        unpack_ciphertext(update.values, manifest.entries)
        masked = np.empty(0, np.uint32)
    else:
        masked = unpack(update.values, manifest.entries, field_of(manifest).width)
    return AdmittedUpdate(device, seeds.sequence, seeds.base_version, update.seeds, message_hash(seeds), masked)


def proposed_set(manifest: CohortManifest, weighted: Iterable[tuple[AdmittedUpdate, int]]) -> CohortSet:
    """The set of these updates with these weights, in the order that helpers ask for."""
    members = (Member(update.device, update.sequence, weight, update.seeds_hash) for update, weight in weighted)
    return CohortSet(message_hash(manifest), tuple(sorted(members, key=lambda member: member.device)))


def summed_ciphertext(manifest: CohortManifest, cohort_set: CohortSet, values_of: Callable[[str], bytes]) -> bytes:
    """The weighted sum of a set's ciphertexts, packed, each by its device; empty where updates are not encrypted."""
    if not manifest.encryption_key:
        return b""
    total: Ciphertext | None = None
    for member in cohort_set.members:
        ciphertext = unpack_ciphertext(values_of(member.device), manifest.entries)
        total = add_weighted(total, ciphertext, member.weight)
    return b"" if total is None else pack_ciphertext(total)


def require_summed(cohort_set: CohortSet, ciphertext: bytes) -> None:
    """Check that a set is of this summed ciphertext.

    Raises:
        VoidCohortError: it names another, or none.
    """
    if ciphertext and hashlib.sha256(ciphertext).digest() != cohort_set.ciphertext:
        raise VoidCohortError(
            "the encrypted updates add up to another ciphertext than their set names, so nothing is made of them"
        )


def unmasked(
    manifest: CohortManifest, cohort_set: CohortSet, updates: Mapping[str, AdmittedUpdate], answers: Iterable[Signed]
) -> CohortSum:
    """The weighted sum of a set's updates, by device, from the answers of enough helpers, in whatever order.

    Raises:
        VoidCohortError: too few answers; SpoiledSumError: answers that disagree, or a sum that no updates have.
    """
    masks = sum_of_masks(manifest, cohort_set, answers)
    return sum_without(manifest, cohort_set, lambda device: updates[device].masked, masks)


def sum_of_masks(manifest: CohortManifest, cohort_set: CohortSet, answers: Iterable[Signed]) -> Words:
    """The weighted sum of all masks of a set, uint32[entries], from the answers of enough helpers.

    Raises:
        VoidCohortError: too few answers; SpoiledSumError: answers that disagree.
    """
    plan, field = seed_plan_of(manifest), field_of(manifest)
    usable = _usable_answers(manifest, cohort_set, answers)
    if len(usable) < plan.answers_needed:
        raise VoidCohortError(
            f"cohort {manifest.number}: {len(usable)} of {plan.helpers} mask helpers answered, {plan.answers_needed}"
            " must; its updates go back into residuals"
        )
    total = np.zeros(manifest.entries, np.uint32)
    for told in _sums_of_seeds(manifest, usable):
        total += unpack(told, manifest.entries, field.width)
    return total


def sum_without(
    manifest: CohortManifest, cohort_set: CohortSet, masked_of: Callable[[str], Words], masks: Words
) -> CohortSum:
    """The weighted sum of a set's updates, each uint32[entries] of its device, without the sum of their `masks`.

    Where updates are encrypted, all of it is in `masks`: the key holder has taken the sum off its own.

    Raises:
        SpoiledSumError: it is a sum that no updates have.
    """
    total = np.zeros(manifest.entries, np.uint32)
    for member in cohort_set.members if not manifest.encryption_key else ():
        total += np.uint32(member.weight) * masked_of(member.device)
    total -= masks
    total_weight = sum(member.weight for member in cohort_set.members)
    try:
        levels = field_of(manifest).signed_sum(total, total_weight)
    except ProtocolError as error:
        raise SpoiledSumError(f"cohort {manifest.number}: {error.detail}") from error
    return CohortSum(levels, total_weight, len(cohort_set.members))


def weighted_mean(manifest: CohortManifest, total: CohortSum) -> FloatVector:
    """The mean update at the cohort's positions, each device by its weight; float32[entries]."""
    return (total.levels * (field_of(manifest).step / total.total_weight)).astype(np.float32)


def checked_answer(manifest: CohortManifest, message: Signed) -> HelperAnswer:
    """Check a helper's answer to a cohort.

    Raises:
        ProtocolError: with what is wrong.
    """
    number = read_unverified(message, HelperAnswer).helper
    if number >= len(manifest.helpers):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"answer of helper {number}; the cohort's last is {len(manifest.helpers) - 1}"
        )
    answer = verified(message, HelperAnswer, VerifyKey(manifest.helpers[number]), f"helper {number}")
    if answer.cohort != message_hash(manifest):
        raise ProtocolError(Reason.WRONG_HASH, f"answer for cohort {answer.cohort[:8].hex()}, which this one is not")
    held = len(seed_plan_of(manifest).held_by(number))
    if len(answer.sums) != held:
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"helper {number} answered {len(answer.sums)} sums for the {held} seeds that it holds"
        )
    for sum_of_masks in answer.sums:
        unpack(sum_of_masks, manifest.entries, field_of(manifest).width)
    return answer


def _usable_answers(
    manifest: CohortManifest, cohort_set: CohortSet, answers: Iterable[Signed]
) -> dict[int, HelperAnswer]:
    """Answers for this set by helper, each once; what is none, or no longer fits, is left out."""
    set_hash = message_hash(cohort_set)
    usable: dict[int, HelperAnswer] = {}
    for message in answers:
        try:
            answer = checked_answer(manifest, message)
        except ProtocolError:
            continue
        if answer.set_hash == set_hash:
            usable.setdefault(answer.helper, answer)
    return usable


def _sums_of_seeds(manifest: CohortManifest, usable: Mapping[int, HelperAnswer]) -> Sequence[bytes]:
    """The sum of each seed's masks. Helpers that hold one seed must agree: one that lies would move the model.

    Raises:
        SpoiledSumError: two of them differ.
    """
    plan = seed_plan_of(manifest)
    sums: list[bytes | None] = [None] * plan.seeds
    told_by: list[int] = [0] * plan.seeds
    for helper, answer in sorted(usable.items()):
        for number, told in zip(plan.held_by(helper), answer.sums, strict=True):
            if sums[number] is None:
                sums[number], told_by[number] = told, helper
            elif sums[number] != told:
                raise SpoiledSumError(
                    f"cohort {manifest.number}: helpers {told_by[number]} and {helper} answered differently for one"
                    " seed: one of them is wrong, or a device gave them different seeds; its updates go back into"
                    " residuals"
                )
    return [told for told in sums if told is not None]
