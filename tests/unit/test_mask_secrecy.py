"""What the coordinator and `colluding` helpers see of a cohort is the same whatever its updates are, but for their sum.

Constructive: for any two inputs with one weighted sum, seeds are found that turn what was seen with the first into
what is seen with the second. Statistical: what is sent is even over the whole modulus. Masks of one entry in 8 bits are
short enough to look for seeds.
"""

import re
from collections import Counter
from itertools import combinations, count
from pathlib import Path

import numpy as np
import pytest

from secure_aggregation.bit_packing import unpack
from secure_aggregation.masks import mask, update_place
from secure_aggregation.messages import SEED_BYTES, message_hash
from secure_aggregation.seed_plan import SeedPlan
from tests.support.masked_cohort import MaskedCohort, manifest_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "secure-aggregation.md"
MODULUS = 256


def one_mask(seed, place, number):
    """The mask of one entry, modulo 2^32."""
    return int(mask(seed, place, number, 1)[0])


def seed_with_mask(wanted, place, number):
    """The first seed whose mask's one entry is `wanted` modulo 256: one in 256 is."""
    for candidate in count():
        seed = candidate.to_bytes(SEED_BYTES, "big")
        if one_mask(seed, place, number) % MODULUS == wanted % MODULUS:
            return seed
    raise AssertionError


def view(levels, weights, seeds, places, plan):
    """All that helpers and coordinator compute of masks: what each device sent, and each seed's weighted sum."""
    masks = [
        [one_mask(seed, place, number) for number, seed in enumerate(own)]
        for own, place in zip(seeds, places, strict=True)
    ]
    sent = [(level + sum(own)) % MODULUS for level, own in zip(levels, masks, strict=True)]
    sums = [
        sum(weight * own[number] for weight, own in zip(weights, masks, strict=True)) % MODULUS
        for number in range(plan.seeds)
    ]
    return sent, sums


@pytest.mark.parametrize(("helpers", "colluding"), [(2, 1), (3, 2), (4, 1), (4, 2), (5, 2)])
def test_other_inputs_of_equal_sum_are_explained_by_other_seeds_that_the_colluding_helpers_do_not_hold(
    helpers, colluding
):
    plan = SeedPlan(helpers, colluding)
    generator = np.random.default_rng(helpers * 10 + colluding)
    weights = (2, 2, 1, 1)
    first, second = (1, -3, 2, 0), (-2, 1, 1, -1)
    assert np.dot(weights, first) == np.dot(weights, second)
    places = [update_place(bytes(32), f"pi-{number}", 5) for number in range(4)]
    seeds = [[generator.bytes(SEED_BYTES) for _ in range(plan.seeds)] for _ in places]
    seen = view(first, weights, seeds, places, plan)
    for accomplices in combinations(range(helpers), colluding):
        known = {number for helper in accomplices for number in plan.held_by(helper)}
        (hidden,) = set(range(plan.seeds)) - known
        explained = [list(own) for own in seeds]
        for own, place, before, after in zip(explained, places, first, second, strict=True):
            own[hidden] = seed_with_mask(one_mask(own[hidden], place, hidden) + before - after, place, hidden)
        assert explained != seeds
        assert view(second, weights, explained, places, plan) == seen


def test_colluding_helpers_lack_one_seed_and_one_more_helper_has_it():
    for helpers in range(2, 6):
        for colluding in range(1, helpers):
            plan = SeedPlan(helpers, colluding)
            every = set(range(plan.seeds))
            for group in combinations(range(helpers), colluding):
                assert len(every - {seed for helper in group for seed in plan.held_by(helper)}) == 1
            for group in combinations(range(helpers), plan.answers_needed):
                assert every == {seed for helper in group for seed in plan.held_by(helper)}


def test_any_two_groups_that_may_have_an_answer_share_an_honest_helper():
    for helpers in range(3, 6):
        for colluding in range(1, helpers - 1):
            needed = SeedPlan(helpers, colluding).signatures_needed
            groups = list(combinations(range(helpers), needed))
            assert all(len({*one} & {*other}) > colluding for one in groups for other in groups)
    assert SeedPlan(4, 1).signatures_needed == 3


@pytest.mark.parametrize("level", [-1, 0, 1])
def test_what_a_device_sends_is_even_over_the_modulus_whatever_it_hides(level):
    """Chi-square with 255 degrees of freedom: above 400 once in 10^8 draws, and these draws are always the same."""
    cohort = MaskedCohort(manifest_of(2, 1, entries=20_000, bits=2, weights=(1,)), 1, seed=level + 3)
    vector = np.full(20_000, level, np.float32)
    update = cohort.round_of(cohort.names[0], 6, vector).update
    sent = Counter((unpack(update.values, 20_000, 8) % MODULUS).tolist())
    expected = 20_000 / MODULUS
    assert sum((sent[value] - expected) ** 2 / expected for value in range(MODULUS)) < 400


def test_no_seed_or_level_is_drawn_twice_and_the_cohort_is_named_by_its_manifest():
    cohort = MaskedCohort(manifest_of(), 4)
    again = [cohort.round_of(cohort.names[0], 5, np.zeros(16, np.float32)).update for _ in range(50)]
    assert len({update.values for update in again}) == len({update.seeds.content for update in again}) == 50
    assert message_hash(manifest_of(number=2)) != message_hash(manifest_of())


def test_the_documents_table_of_helpers_is_what_the_plan_says():
    rows = re.findall(
        r"^\| (\d), (\d) \| (\d+) \| (\d) \| (\d) \| (\d|none) \| (\d) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert len(rows) == 8
    for helpers, colluding, seeds, held, answers, signatures, dead in rows:
        plan = SeedPlan(int(helpers), int(colluding))
        needed = max(plan.answers_needed, plan.signatures_needed)
        told = (plan.seeds, len(plan.held_by(0)), plan.answers_needed, plan.signatures_needed, plan.helpers - needed)
        assert told == (int(seeds), int(held), int(answers), int(signatures.replace("none", "0")), int(dead))
