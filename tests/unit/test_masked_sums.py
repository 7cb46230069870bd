"""Secure aggregation gives the weighted sum of the quantised updates exactly, or nothing."""

from dataclasses import replace
from itertools import combinations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_aggregation.coordinator import VoidCohortError, unmasked, weighted_mean
from secure_aggregation.messages import HelperAnswer, message_hash
from secure_aggregation.seed_plan import SeedPlan
from secure_aggregation.signatures import read_unverified, signed
from tests.support.masked_cohort import MaskedCohort, key_of, manifest_of

PLANS = [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1), (5, 2), (5, 3)]


@given(plan=st.sampled_from(PLANS), gone=st.permutations(range(10)), seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=12)
def test_sum_is_exact_for_every_sufficient_set_of_answers_with_devices_gone_and_answers_repeated(
    plan, gone, seed, data
):
    cohort = MaskedCohort(manifest_of(*plan, entries=11), 10, seed)
    here = [name for number, name in enumerate(cohort.names) if number not in gone[:3]]
    weights = dict(zip(here, (*data.draw(st.permutations([4, 4, 1, 1])), 4, 4, 1), strict=True))
    cohort_set = cohort.set_of(weights)
    answers = cohort.answers(cohort_set, range(plan[0]))
    for answering in combinations(answers, SeedPlan(*plan).answers_needed):
        repeated = data.draw(st.permutations([*answering, *answering]))
        total = unmasked(cohort.manifest, cohort_set, cohort.admitted, repeated)
        np.testing.assert_array_equal(total.levels, cohort.plain_sum(weights))
        assert total.total_weight == sum(weights.values())


@pytest.mark.parametrize("plan", PLANS)
def test_one_answer_too_few_gives_nothing(plan):
    cohort = MaskedCohort(manifest_of(*plan), 4)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 1))
    needed = SeedPlan(*plan).answers_needed
    answers = cohort.answers(cohort_set, range(needed - 1))
    with pytest.raises(VoidCohortError, match=f"{needed - 1} of {plan[0]} mask helpers answered, {needed} must"):
        unmasked(cohort.manifest, cohort_set, cohort.admitted, [*answers, *answers])


def test_mean_is_that_of_the_updates_within_half_a_level_on_average():
    cohort = MaskedCohort(manifest_of(entries=2000, bits=8), 8)
    weights = dict.fromkeys(cohort.names, 1)
    cohort_set = cohort.set_of(weights)
    total = unmasked(cohort.manifest, cohort_set, cohort.admitted, cohort.answers(cohort_set, (0, 2)))
    expected = np.mean([cohort.rounds[name].sent.values for name in cohort.names], axis=0)
    np.testing.assert_allclose(weighted_mean(cohort.manifest, total), expected, atol=1e-6)


def test_answers_of_strangers_for_other_sets_and_of_other_lengths_count_as_none():
    cohort = MaskedCohort(manifest_of(), 8)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 1))
    good = cohort.answers(cohort_set, (0, 1))
    told = read_unverified(good[0], HelperAnswer)
    helper = key_of("helper-0")
    bad = [
        signed(key_of("stranger"), told),
        signed(helper, msgspec.structs.replace(told, set_hash=bytes(32))),
        signed(helper, msgspec.structs.replace(told, cohort=bytes(32))),
        signed(helper, msgspec.structs.replace(told, sums=told.sums[:1])),
        signed(helper, msgspec.structs.replace(told, sums=(b"", b"", b""))),
        signed(helper, msgspec.structs.replace(told, helper=4)),
        msgspec.structs.replace(good[0], content=b"\x80"),
    ]
    with pytest.raises(VoidCohortError, match="1 of 4 mask helpers answered"):
        unmasked(cohort.manifest, cohort_set, cohort.admitted, [*bad, good[1]])


def test_helpers_that_answer_differently_void_the_cohort_and_are_named():
    cohort = MaskedCohort(manifest_of(), 4)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 1))
    answers = cohort.answers(cohort_set, (0, 1))
    told = read_unverified(answers[1], HelperAnswer)
    zeros = msgspec.structs.replace(told, sums=tuple(bytes(len(one)) for one in told.sums))
    with pytest.raises(VoidCohortError, match="helpers 0 and 1 answered differently"):
        unmasked(cohort.manifest, cohort_set, cohort.admitted, [answers[0], signed(key_of("helper-1"), zeros)])


def test_a_sum_that_no_updates_have_voids_the_cohort():
    cohort = MaskedCohort(manifest_of(2, 1, entries=64), 4)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 1))
    answers = cohort.answers(cohort_set, (0, 1))
    name = cohort.names[0]
    spoilt = replace(cohort.admitted[name], masked=cohort.admitted[name].masked ^ np.uint32(0x5555))
    with pytest.raises(VoidCohortError, match="a device sent more than it may"):
        unmasked(cohort.manifest, cohort_set, cohort.admitted | {name: spoilt}, answers)


def test_a_set_names_its_devices_in_order_whatever_order_they_came_in():
    cohort = MaskedCohort(manifest_of(), 6)
    weights = dict.fromkeys(cohort.names, 2)
    backwards = dict(reversed(weights.items()))
    assert message_hash(cohort.set_of(weights)) == message_hash(cohort.set_of(backwards))
