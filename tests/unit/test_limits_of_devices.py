"""What one device may weigh: how often it sends, and how long its deltas are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.consumers.norm_quantile import WARM_UP_UPDATES, NormQuantile
from fleet_host.rate_limit import UNLIMITED, RateLimit, TokenBucket


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 500), max_size=80))
def test_token_bucket_allows_no_more_than_its_burst_and_rate(interval, burst, gaps) -> None:
    bucket, now, full_at, allowed = TokenBucket(interval, burst), 0.0, 0.0, []
    for gap in gaps:
        now += gap
        if (after := bucket.after(full_at, now)) is not None:
            full_at = after
            allowed.append(now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + (allowed[last] - allowed[first]) / interval + 1e-6


def test_full_bucket_gives_its_whole_burst_at_once() -> None:
    bucket, full_at = TokenBucket(10.0, 3), 0.0
    for _ in range(3):
        full_at = bucket.after(full_at, 100.0)
    assert bucket.after(full_at, 100.0) is None
    assert bucket.after(full_at, 110.0) is not None
    assert UNLIMITED.after(0.0, 5.0) == 5.0


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.tuples(st.floats(0, 500), st.floats(1, 40)), max_size=80))
def test_what_costs_more_than_is_left_is_paid_for_later(interval, burst, events) -> None:
    limit, now, spent, since = RateLimit(interval, 1, burst=burst), 0.0, 0.0, 0.0
    for gap, cost in events:
        now += gap
        if limit.allows("pi", now, cost):
            assert spent <= burst - 1 + (now - since) / interval + 1e-6, "at least one unit was left"
            spent += cost
    assert limit.allows("pi", now + (spent + 1) * interval), "nobody waits longer than for what was spent"


def test_buckets_that_are_not_full_are_bounded() -> None:
    limit = RateLimit(10.0, 3, burst=2)
    assert [limit.allows(key, 0.0) for key in "abcd"] == [True, True, True, False]
    assert [limit.has_room(key, 0.0) for key in "aad"] == [True, True, True]
    assert [limit.allows("a", 0.0), limit.has_room("a", 0.0), limit.allows("a", 0.0)] == [True, False, False]
    assert limit.allows("d", 10.0), "those of b and c are full again"


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_running_quantile_finds_the_quantile_and_follows_it(quantile) -> None:
    generator, found = np.random.default_rng(3), NormQuantile(quantile)
    for scale in (1.0, 20.0):
        norms = scale * generator.lognormal(0, 0.5, 2000)
        found = found.after_all(map(float, norms))
        assert found.estimate == pytest.approx(np.quantile(norms, quantile), rel=0.35)


def test_nothing_is_bounded_before_enough_is_seen_or_without_a_factor() -> None:
    few = NormQuantile(0.5).after_all([1.0] * (WARM_UP_UPDATES - 1))
    assert few.bound(2.0) == math.inf
    assert few.after(1.0).bound(0.0) == math.inf
    assert few.after(1.0).bound(2.0) == pytest.approx(2.0, rel=0.6)
