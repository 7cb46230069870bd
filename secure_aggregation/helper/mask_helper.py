"""A mask helper speaks for one set of each cohort: it signs the set's hash, and answers with sums of masks. Pure.

Everything is a function of the request, the helper's key and what it has claimed, so that a repeated request gets the
same bytes, and nothing is lost or told twice when the helper is killed at any point.
"""

from collections.abc import Sequence

import numpy as np

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import Signed, SumRequest
from secure_aggregation.bit_packing import Words, pack
from secure_aggregation.boxes import opened_seeds
from secure_aggregation.helper.claims import Claims
from secure_aggregation.helper.key_holder import KeyHolder, decrypted_sum, is_to_decrypt, named_ciphertext
from secure_aggregation.helper.set_checks import CheckedSet, HelperPolicy, Roster, checked_set, strangers_of
from secure_aggregation.manifest import field_of, seed_plan_of
from secure_aggregation.masks import mask, update_place
from secure_aggregation.messages import HelperAnswer, SealedSeeds, SetSignature
from secure_aggregation.signatures import read_unverified, signed, verified


class MaskHelper:
    """`roster` and `policy` are the owner's; `claims` outlive the process; `holder` has its encryption key, if it is a
    key holder.
    """

    def __init__(
        self,
        key: SigningKey,
        coordinator: VerifyKey,
        roster: Roster,
        policy: HelperPolicy,
        claims: Claims,
        *,
        holder: KeyHolder | None = None,
    ) -> None:
        self._key = key
        self._coordinator = coordinator
        self._roster = roster
        self._policy = policy
        self._claims = claims
        self._holder = holder

    def unusable(self, request: SumRequest) -> tuple[str, ...]:
        """Devices of a set that this helper does not know, or else those whose boxes don't open here. Nothing is
        claimed, so they can be left out before it is.

        Raises:
            ProtocolError: the set can't be spoken for whoever is left out.
        """
        if strangers := strangers_of(request, self._coordinator, self._roster):
            return strangers
        checked = self._checked(request)
        is_to_decrypt(checked, self._holder)
        return tuple(seeds.device for seeds in checked.seeds if self._opened(checked, seeds) is None)

    def sign(self, request: SumRequest) -> Signed:
        """This helper's `SetSignature`: of this cohort and these updates, it speaks for this set alone, for ever.

        Raises:
            ProtocolError: with what is wrong, or `SEQUENCE_REUSED`: it speaks for another set already.
        """
        checked = self._checked(request)
        self._opened_of_all(checked)
        self._claim(checked)
        return signed(self._key, SetSignature(checked.cohort, checked.set_hash, checked.number))

    def answer(self, request: SumRequest, signatures: Sequence[Signed], ciphertext: bytes = b"") -> Signed:
        """This helper's `HelperAnswer`, given the signatures of enough of the cohort's helpers for this set; a key
        holder's, given the set's `ciphertext` too.

        Raises:
            ProtocolError: as `sign`, or `BAD_SIGNATURE`: too few helpers have signed this set. `UNKNOWN_KEY`,
                `WRONG_HASH`: what is encrypted is not for this helper, or not what the set names.
        """
        checked = self._checked(request)
        to_decrypt = named_ciphertext(checked, ciphertext) if is_to_decrypt(checked, self._holder) else None
        _check_signatures(checked, signatures)
        opened = self._opened_of_all(checked)
        self._claim(checked)
        width = field_of(checked.manifest).width
        totals = _weighted_sums(checked, opened)
        if to_decrypt is not None and self._holder is not None:
            totals[0] -= decrypted_sum(checked, to_decrypt, self._holder)
        packed = tuple(pack(total, width) for total in totals)
        return signed(self._key, HelperAnswer(checked.cohort, checked.set_hash, checked.number, packed))

    def _checked(self, request: SumRequest) -> CheckedSet:
        return checked_set(request, self._key.verify_key, self._coordinator, self._roster, self._policy)

    def _opened_of_all(self, checked: CheckedSet) -> list[tuple[bytes, ...]]:
        """Each member's seeds for this helper; refuses the set where a box does not open."""
        opened = []
        for seeds in checked.seeds:
            own = self._opened(checked, seeds)
            if own is None:
                raise ProtocolError(
                    Reason.MALFORMED,
                    f"the box of {seeds.device} for helper {checked.number} does not open; leave the device out",
                )
            opened.append(own)
        return opened

    def _opened(self, checked: CheckedSet, seeds: SealedSeeds) -> tuple[bytes, ...] | None:
        if len(seeds.boxes) != len(checked.manifest.helpers):
            return None
        plan = seed_plan_of(checked.manifest)
        place = update_place(seeds.cohort, seeds.device, seeds.sequence)
        try:
            return opened_seeds(
                seeds.boxes[checked.number],
                seeds.ephemeral,
                plan=plan,
                number=checked.number,
                key=self._key,
                place=place,
            )
        except ProtocolError:
            return None

    def _claim(self, checked: CheckedSet) -> None:
        devices = {(bytes(self._roster[member.device]), member.sequence): member.device for member in checked.members}
        earlier = self._claims.claim(checked.cohort, checked.set_hash, devices)
        if earlier is None:
            return
        claimed = f"cohort {checked.cohort[:8].hex()}"
        if earlier.update is not None:
            claimed = f"update {earlier.update[1]} of {devices[earlier.update]}"
        raise ProtocolError(
            Reason.SEQUENCE_REUSED,
            f"{claimed} is of the set {earlier.set_hash[:8].hex()}, not {checked.set_hash[:8].hex()}; a helper speaks"
            " for one set: the updates of this one go back to their devices",
        )


def _check_signatures(checked: CheckedSet, signatures: Sequence[Signed]) -> None:
    """Count the helpers that have signed this set; whatever else is among the signatures counts as nothing."""
    needed = seed_plan_of(checked.manifest).signatures_needed
    helpers = {number for message in signatures if (number := _signer(checked, message)) is not None}
    if len(helpers) < needed:
        raise ProtocolError(
            Reason.BAD_SIGNATURE,
            f"{len(helpers)} of {len(checked.manifest.helpers)} helpers have signed set"
            f" {checked.set_hash[:8].hex()}; {needed} must, before any answers: ask the others to sign",
        )


def _signer(checked: CheckedSet, message: Signed) -> int | None:
    """The number of the helper that has signed this set with this message, if one has."""
    try:
        number = read_unverified(message, SetSignature).helper
        key = VerifyKey(checked.manifest.helpers[number])
        signature = verified(message, SetSignature, key, f"helper {number}")
    except (ProtocolError, IndexError):
        return None
    agrees = (signature.cohort, signature.set_hash) == (checked.cohort, checked.set_hash)
    return number if agrees else None


def _weighted_sums(checked: CheckedSet, opened: Sequence[Sequence[bytes]]) -> list[Words]:
    """For each seed that this helper holds: sum over members of weight times mask, uint32[entries], modulo 2^32."""
    numbers = seed_plan_of(checked.manifest).held_by(checked.number)
    entries = checked.manifest.entries
    totals = np.zeros((len(numbers), entries), np.uint32)
    for member, seeds in zip(checked.members, opened, strict=True):
        place = update_place(checked.cohort, member.device, member.sequence)
        for row, (number, seed) in enumerate(zip(numbers, seeds, strict=True)):
            totals[row] += np.uint32(member.weight) * mask(seed, place, number, entries)
    return list(totals)
