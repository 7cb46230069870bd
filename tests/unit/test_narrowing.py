"""When pictures that a generator draws are said to have become alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.narrowing import MOST_EARLIER, NARROW_SHARE, NEGLIGIBLE, compared_with, narrowing

NUMBERS = st.lists(st.integers(0, 10_000), unique=True)


@given(kept=NUMBERS, version=st.integers(0, 10_000))
def test_versions_that_are_compared_are_earlier_kept_ones_with_the_first_and_the_last(kept, version):
    *earlier, last = compared_with(kept, version)
    older = sorted(number for number in kept if number < version)
    assert last == version
    assert earlier == sorted(set(earlier))
    assert set(earlier) <= set(older)
    assert len(earlier) == min(len(older), MOST_EARLIER)
    assert earlier[:1] + earlier[-1:] == older[:1] + older[-1:]


@pytest.mark.parametrize(
    ("found", "greatest_in", "is_narrow"),
    [
        ({0: 0.01, 4: 0.30, 8: 0.29}, 4, False),
        ({0: 0.01, 4: 0.30, 8: 0.30 * NARROW_SHARE - 0.001}, 4, True),
        ({0: NEGLIGIBLE, 8: 0.0}, 0, False),
        ({8: 0.2}, 8, False),
        ({0: 0.01, 4: 0.02, 8: 0.3}, 8, False),
    ],
)
def test_pictures_are_narrow_where_a_version_before_drew_far_more_unlike_ones(found, greatest_in, is_narrow):
    seen = narrowing(1, 8, found)
    assert (seen.cluster, seen.variety, seen.greatest_in) == (1, found[8], greatest_in)
    assert seen.is_narrow == is_narrow
