"""Who has spoiled sums is found by leaving suspects out by turns, whoever else may come and go."""

import random

from hypothesis import given
from hypothesis import strategies as st

from secure_aggregation.suspects import Suspects

DEVICES = [f"pi-{number:02}" for number in range(24)]


@given(st.integers(0, 2**32), st.sets(st.sampled_from(DEVICES), min_size=1, max_size=2), st.integers(2, 12))
def test_who_spoils_is_left_out_after_some_sums_and_everybody_else_counts(seed, spoilers, fewest):
    generator, suspects = random.Random(seed), Suspects()
    for _ in range(600):
        members = set(DEVICES) - suspects.left_out(DEVICES, fewest, generator.sample)
        assert len(members) >= fewest
        if members & spoilers:
            suspects.spoiled(members)
        else:
            suspects.summed(members)
        if suspects.names == spoilers:
            return
    raise AssertionError(f"{sorted(suspects.names)} are suspects after 600 sums, {sorted(spoilers)} have spoiled them")


def test_nobody_is_left_out_before_a_sum_is_spoiled_nor_where_too_few_would_stay():
    suspects = Suspects()
    suspects.summed(set(DEVICES))
    assert not suspects.left_out(DEVICES, 2, random.Random(0).sample)
    suspects.spoiled(set(DEVICES))
    assert not suspects.left_out(DEVICES, len(DEVICES), random.Random(0).sample)
    assert len(suspects.left_out(DEVICES, len(DEVICES) - 1, random.Random(0).sample)) == 1


def test_cleared_device_that_spoils_a_sum_later_is_a_suspect_again():
    suspects = Suspects()
    suspects.spoiled({"pi-00", "pi-01"})
    suspects.summed({"pi-01", "pi-02"})
    assert suspects.names == {"pi-00"}
    suspects.spoiled({"pi-01", "pi-02"})
    assert suspects.names == {"pi-00", "pi-01", "pi-02"}
