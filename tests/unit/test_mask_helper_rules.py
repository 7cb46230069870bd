"""Every way that docs/secure-aggregation.md names to make a mask helper tell more than one sum is refused, in words."""

from dataclasses import replace as with_fields

import pytest
from msgspec.structs import replace

from fleet_protocol.errors import ProtocolError, Reason
from secure_aggregation.helper.claims import ClaimsInMemory, EarlierClaim
from secure_aggregation.helper.set_checks import HelperPolicy
from secure_aggregation.messages import CohortManifest, SealedSeeds, SetSignature, message_hash
from secure_aggregation.signatures import read_unverified, signed
from tests.support.masked_cohort import MaskedCohort, key_of, manifest_of


@pytest.fixture(scope="module")
def cohort():
    """Ten devices, four helpers of which one may collude."""
    return MaskedCohort(manifest_of(), 10)


def ones(names):
    return dict.fromkeys(names, 1)


def signatures_for(cohort_set, cohort, numbers):
    """Signatures of these helpers, as those of accomplices are: made without looking."""
    return [
        signed(key_of(f"helper-{number}"), SetSignature(cohort_set.cohort, message_hash(cohort_set), number))
        for number in numbers
    ]


def refused(reason, words, call, *arguments):
    with pytest.raises(ProtocolError, match=words) as refusal:
        call(*arguments)
    assert refusal.value.reason == reason


def test_a_second_set_that_lacks_one_device_is_signed_by_nobody(cohort):
    helper = cohort.helper(0)
    helper.sign(cohort.request(cohort.set_of(ones(cohort.names))))
    without_one = cohort.request(cohort.set_of(ones(cohort.names[1:])))
    refused(Reason.SEQUENCE_REUSED, "is of the set", helper.sign, without_one)


def test_the_same_devices_with_other_weights_are_another_set(cohort):
    helper = cohort.helper(0)
    helper.sign(cohort.request(cohort.set_of(ones(cohort.names))))
    weights = ones(cohort.names) | dict.fromkeys(cohort.names[:2], 4)
    refused(Reason.SEQUENCE_REUSED, "is of the set", helper.sign, cohort.request(cohort.set_of(weights)))


def test_coordinator_with_an_accomplice_gets_no_two_honest_helpers_to_answer_for_different_sets(cohort):
    """c = 4, T = 1: helper 3 signs all. Whole for helpers 0 and 1, without one device for 2, would isolate it."""
    whole = cohort.set_of(ones(cohort.names))
    without_one = cohort.set_of(ones(cohort.names[1:]))
    for signers in ((0,), (0, 1)):
        fresh = [cohort.helper(number) for number in range(3)]
        for_whole = [fresh[number].sign(cohort.request(whole)) for number in signers]
        for_less = [fresh[number].sign(cohort.request(without_one)) for number in range(3) if number not in signers]
        for_whole += signatures_for(whole, cohort, [3])
        for_less += signatures_for(without_one, cohort, [3])
        answered = [can_answer(fresh, cohort.request(whole), for_whole)]
        answered.append(can_answer(fresh, cohort.request(without_one), for_less))
        assert answered == [len(signers) == 2, len(signers) == 1]


def can_answer(helpers, request, signatures):
    """Whether any of them answers."""
    for helper in helpers:
        try:
            helper.answer(request, signatures)
        except ProtocolError:
            continue
        return True
    return False


def test_answer_waits_for_more_than_half_of_helpers_and_accomplices_together(cohort):
    helper = cohort.helper(0)
    whole = cohort.set_of(ones(cohort.names))
    request = cohort.request(whole)
    two = signatures_for(whole, cohort, [0, 1])
    stranger = signed(key_of("stranger"), SetSignature(whole.cohort, message_hash(whole), 2))
    beyond = signed(key_of("stranger"), SetSignature(whole.cohort, message_hash(whole), 4))
    other_set = signed(key_of("helper-2"), SetSignature(whole.cohort, bytes(32), 2))
    other_cohort = signed(key_of("helper-2"), SetSignature(bytes(32), message_hash(whole), 2))
    too_few = [*two, *two, stranger, beyond, other_set, other_cohort, replace(two[0], content=b"")]
    refused(Reason.BAD_SIGNATURE, "2 of 4 helpers have signed set .*; 3 must", helper.answer, request, too_few)
    assert helper.answer(request, [*too_few, *signatures_for(whole, cohort, [2])])


def test_three_live_helpers_of_four_are_enough_and_the_same_request_gets_the_same_bytes(cohort):
    helper = cohort.helper(0)
    whole = cohort.set_of(ones(cohort.names))
    request = cohort.request(whole)
    signatures = signatures_for(whole, cohort, [0, 1, 2])
    assert helper.sign(request) == helper.sign(request)
    assert helper.answer(request, signatures) == helper.answer(request, reversed(signatures))


class KilledError(Exception):
    """The helper's process ends here."""


class KilledClaims:
    """Claims on a disk that outlives the process, which is killed before or after the commit."""

    def __init__(self, disk, after_commit):
        self._disk, self._after_commit = disk, after_commit

    def claim(self, cohort, set_hash, updates):
        if self._after_commit:
            self._disk.claim(cohort, set_hash, updates)
        raise KilledError


@pytest.mark.parametrize("after_commit", [False, True])
def test_helper_that_is_killed_anywhere_answers_for_one_set(cohort, after_commit):
    disk = ClaimsInMemory()
    whole, less = (cohort.request(cohort.set_of(ones(names))) for names in (cohort.names, cohort.names[1:]))
    with pytest.raises(KilledError):
        cohort.helper(0, KilledClaims(disk, after_commit)).sign(whole)
    restarted = cohort.helper(0, disk)
    if after_commit:
        refused(Reason.SEQUENCE_REUSED, "is of the set", restarted.sign, less)
        assert restarted.sign(whole) == cohort.helper(0).sign(whole)
    else:  # nothing had left the helper, so either set is still as good
        assert restarted.sign(less)
        refused(Reason.SEQUENCE_REUSED, "is of the set", restarted.sign, whole)


def test_an_update_is_summed_once_in_a_helpers_life_whatever_cohort_it_is_shown_in(cohort):
    """A broken device signs one number for two cohorts: the helper still takes it once."""
    claims = ClaimsInMemory()
    cohort.helper(0, claims).sign(cohort.request(cohort.set_of(ones(cohort.names))))
    later = MaskedCohort(manifest_of(number=2), 10)
    again = later.request(later.set_of(ones(later.names)))
    refused(Reason.SEQUENCE_REUSED, "update 5 of pi-0000 is of the set", later.helper(0, claims).sign, again)
    next_numbers = MaskedCohort(manifest_of(number=3), 10, sequence=6)
    assert next_numbers.helper(0, claims).sign(next_numbers.request(next_numbers.set_of(ones(next_numbers.names))))


def test_claims_that_conflict_change_nothing():
    claims = ClaimsInMemory()
    assert claims.claim(b"c1", b"s1", [(b"a", 1)]) is None
    assert claims.claim(b"c2", b"s2", [(b"b", 1), (b"a", 1)]) == EarlierClaim((b"a", 1), b"s1")
    assert claims.claim(b"c2", b"s3", [(b"b", 1)]) is None
    assert claims.claim(b"c2", b"s2", [(b"c", 1)]) == EarlierClaim(None, b"s3")


def test_a_card_with_a_new_key_counts_from_the_start_again(cohort):
    claims = ClaimsInMemory()
    cohort.helper(0, claims).sign(cohort.request(cohort.set_of(ones(cohort.names))))
    later = MaskedCohort(manifest_of(number=2), 10, key_prefix="new ")
    assert later.helper(0, claims).sign(later.request(later.set_of(ones(later.names))))


def test_small_sets_are_refused_by_manifest_and_by_owner(cohort):
    few = cohort.request(cohort.set_of(ones(cohort.names[:1])))
    refused(Reason.OUT_OF_BOUNDS, "a set of 1 devices; from 2", cohort.helper(0).sign, few)
    owner = cohort.helper(0, policy=HelperPolicy(fewest_devices=11, fewest_per_weight=2))
    refused(
        Reason.OUT_OF_BOUNDS,
        "a set of 10 devices; from 11",
        owner.sign,
        cohort.request(cohort.set_of(ones(cohort.names))),
    )


@pytest.mark.parametrize("weight", [1, 2, 3, 4])
def test_a_weight_that_one_device_has_alone_is_refused(cohort, weight):
    others = 4 if weight != 4 else 1
    weights = dict.fromkeys(cohort.names, others) | {cohort.names[3]: weight}
    refused(
        Reason.OUT_OF_BOUNDS,
        f"1 devices with weight {weight}; at least 2",
        cohort.helper(0).sign,
        cohort.request(cohort.set_of(weights)),
    )


def test_a_weight_that_the_manifest_does_not_allow_is_refused():
    cohort = MaskedCohort(manifest_of(weights=(1, 2)), 4)
    request = cohort.request(cohort.set_of(dict.fromkeys(cohort.names, 4)))
    refused(Reason.OUT_OF_BOUNDS, "weight 4 is not among", cohort.helper(0).sign, request)


@pytest.mark.parametrize("weight", [0, 5, 2**31, 2**63])
def test_a_weight_beyond_four_is_none_anywhere(cohort, weight):
    """So a total weight is 4096 at most, and the sum of 16-bit levels fits 32 bits."""
    with pytest.raises(ProtocolError) as manifest_refused:
        read_unverified(signed(cohort.coordinator, manifest_of(weights=(weight,))), CohortManifest)
    assert manifest_refused.value.reason is Reason.MALFORMED
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, weight))
    refused(Reason.MALFORMED, "Expected", cohort.helper(0).sign, cohort.request(cohort_set))


def test_invented_devices_are_refused(cohort):
    helper = cohort.helper(0, roster={name: key for name, key in cohort.roster.items() if name != cohort.names[4]})
    request = cohort.request(cohort.set_of(ones(cohort.names)))
    refused(Reason.UNKNOWN_KEY, "pi-0004 is not in this helper's roster", helper.sign, request)


def test_two_names_of_one_device_are_refused(cohort):
    helper = cohort.helper(0, roster=cohort.roster | {cohort.names[1]: key_of(cohort.names[0]).verify_key})
    request = cohort.request(cohort.set_of(ones(cohort.names)))
    refused(Reason.OUT_OF_BOUNDS, "two names of this set have one key", helper.sign, request)


def test_a_device_that_stands_in_a_set_twice_is_refused(cohort):
    whole = cohort.set_of(ones(cohort.names))
    for members in ((whole.members[0], *whole.members), tuple(reversed(whole.members))):
        doubled = replace(whole, members=members)
        refused(
            Reason.MALFORMED, "in the order of their names, each once", cohort.helper(0).sign, cohort.request(doubled)
        )


def test_a_key_that_changed_is_refused(cohort):
    helper = cohort.helper(0, roster=cohort.roster | {cohort.names[2]: key_of("another").verify_key})
    request = cohort.request(cohort.set_of(ones(cohort.names)))
    refused(Reason.BAD_SIGNATURE, "not signed by pi-0002", helper.sign, request)


def test_seeds_that_the_coordinator_makes_up_replays_or_exchanges_are_refused(cohort):
    whole = cohort.set_of(ones(cohort.names))
    request = cohort.request(whole)
    first, *others = request.seeds
    told = read_unverified(first, SealedSeeds)
    device = key_of(cohort.names[0])
    helper = cohort.helper(0)
    forged = replace(request, seeds=(signed(cohort.coordinator, told), *others))
    refused(Reason.BAD_SIGNATURE, "not signed by pi-0000", helper.sign, forged)
    other_number = replace(request, seeds=(signed(device, replace(told, sequence=4)), *others))
    refused(Reason.WRONG_RECIPIENT, "seeds of update 4", helper.sign, other_number)
    other_cohort = replace(request, seeds=(signed(device, replace(told, cohort=bytes(32))), *others))
    refused(Reason.WRONG_RECIPIENT, "for cohort 0000000000000000", helper.sign, other_cohort)
    again = replace(request, seeds=(signed(device, replace(told, ephemeral=bytes(32))), *others))
    refused(Reason.WRONG_HASH, "seeds of pi-0000 are others than the set names", helper.sign, again)
    refused(
        Reason.WRONG_SHAPE, "seeds of 9 devices for a set of 10", helper.sign, replace(request, seeds=tuple(others))
    )


@pytest.mark.parametrize("base_version", [2, 7])
def test_an_update_from_outside_of_the_versions_is_refused(cohort, base_version):
    whole = cohort.set_of(ones(cohort.names))
    request = cohort.request(whole)
    told = replace(read_unverified(request.seeds[0], SealedSeeds), base_version=base_version)
    members = (replace(whole.members[0], seeds=message_hash(told)), *whole.members[1:])
    stale = cohort.request(
        replace(whole, members=members), seeds=(signed(key_of(cohort.names[0]), told), *request.seeds[1:])
    )
    refused(Reason.TOO_STALE, f"version {base_version}; the cohort takes 3 to 6", cohort.helper(0).sign, stale)


def test_sets_and_manifests_of_anybody_else_are_refused(cohort):
    whole = cohort.set_of(ones(cohort.names))
    helper = cohort.helper(0)
    stranger = key_of("stranger")
    refused(
        Reason.BAD_SIGNATURE,
        "by the coordinator",
        helper.sign,
        cohort.request(whole, cohort_set=signed(stranger, whole)),
    )
    manifest = signed(stranger, cohort.manifest)
    refused(Reason.BAD_SIGNATURE, "by the coordinator", helper.sign, cohort.request(whole, manifest=manifest))


def test_another_manifest_under_the_name_of_a_cohort_is_refused(cohort):
    """Weaker numbers than the devices agreed to: its hash is another name, which no device signed seeds for."""
    weaker = signed(cohort.coordinator, replace(cohort.manifest, colluding=2))
    request = cohort.request(cohort.set_of(ones(cohort.names)), manifest=weaker)
    refused(Reason.WRONG_HASH, "came with the manifest of", cohort.helper(0).sign, request)


def test_helper_that_no_manifest_names_refuses(cohort):
    helper = cohort.helper(9)
    refused(
        Reason.WRONG_RECIPIENT,
        "no mask helper with the key",
        helper.sign,
        cohort.request(cohort.set_of(ones(cohort.names))),
    )


def test_more_work_than_the_owner_allows_is_refused(cohort):
    helper = cohort.helper(0, policy=with_fields(HelperPolicy(2, 2), most_masked_entries=479))
    request = cohort.request(cohort.set_of(ones(cohort.names)))
    refused(Reason.OUT_OF_BOUNDS, "480 entries of masks; most_masked_entries is 479", helper.sign, request)


def test_boxes_that_do_not_open_are_named_before_anything_is_claimed():
    cohort = MaskedCohort(manifest_of(), 6)
    for name, boxes in zip(cohort.names, (lambda good: good[::-1], lambda good: good[:2]), strict=False):
        told = read_unverified(cohort.admitted[name].seeds, SealedSeeds)
        spoilt = replace(told, boxes=boxes(told.boxes))
        cohort.admitted[name] = with_fields(
            cohort.admitted[name], seeds=signed(key_of(name), spoilt), seeds_hash=message_hash(spoilt)
        )
    helper = cohort.helper(0)
    whole = cohort.request(cohort.set_of(ones(cohort.names)))
    assert helper.unusable(whole) == tuple(cohort.names[:2])
    refused(Reason.MALFORMED, "box of pi-0000 for helper 0 does not open", helper.sign, whole)
    assert helper.sign(cohort.request(cohort.set_of(ones(cohort.names[2:]))))


def test_in_the_simple_mode_a_helper_answers_without_signatures_and_still_once():
    cohort = MaskedCohort(manifest_of(3, 2), 6)
    helper = cohort.helper(1)
    assert helper.answer(cohort.request(cohort.set_of(ones(cohort.names))), [])
    less = cohort.request(cohort.set_of(ones(cohort.names[1:])))
    refused(Reason.SEQUENCE_REUSED, "is of the set", helper.answer, less, [])
