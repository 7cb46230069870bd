"""What one device may weigh: how often it sends, and how long its deltas are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.consumers.norm_quantile import WARM_UP_UPDATES, NormQuantile
from fleet_host.rate_limit import UNLIMITED, TokenBucket


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 500), max_size=80))
def test_token_bucket_allows_no_more_than_its_burst_and_rate(interval, burst, gaps) -> None:
    bucket, now, full_at, allowed = TokenBucket(interval, burst), 0.0, 0.0, []
    for gap in gaps:
        now += gap
        if (after := bucket.after_one(full_at, now)) is not None:
            full_at = after
            allowed.append(now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + (allowed[last] - allowed[first]) / interval + 1e-6


def test_full_bucket_gives_its_whole_burst_at_once() -> None:
    bucket, full_at = TokenBucket(10.0, 3), 0.0
    for _ in range(3):
        full_at = bucket.after_one(full_at, 100.0)
    assert bucket.after_one(full_at, 100.0) is None
    assert bucket.after_one(full_at, 110.0) is not None
    assert UNLIMITED.after_one(0.0, 5.0) == 5.0


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
