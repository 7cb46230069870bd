"""What one device may weigh: how often it sends, and how long its deltas are."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.bounds import Bounds
from broker_coordinator.consumers.peers import FEWEST_FOR_NORMS, MAX_PEERS, Declared, Peers
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


declared = st.builds(Declared, st.integers(1, 1_000_000), st.floats(0, 100))
names = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(names, declared), max_size=40), names, st.sampled_from([0.1, 0.5, 0.9]))
def test_what_is_usual_is_a_quantile_of_what_the_others_sent_last(sent, device, quantile) -> None:
    peers = Peers()
    for each in sent:
        peers.note(*each)
    others = [each for name, each in dict(sent).items() if name != device]
    samples, norm = peers.usual(device, quantile)
    if others:
        assert samples == sorted(each.samples for each in others)[len(others) // 2]
    else:
        assert samples is None
    if len(others) < FEWEST_FOR_NORMS:
        assert norm is None
    else:
        assert norm == np.quantile([each.norm for each in others], quantile, method="higher")


def test_one_device_moves_nobodys_measure_however_much_it_sends() -> None:
    peers = Peers()
    for number in range(10):
        peers.note(f"honest-{number}", Declared(60, 1.0))
    for _ in range(1000):
        peers.note("evil", Declared(1_000_000, 99.0))
    assert peers.usual("honest-3", 0.5) == (60, 1.0)
    assert peers.usual("evil", 0.5) == (60, 1.0)


def test_only_the_devices_that_sent_last_are_remembered() -> None:
    peers = Peers()
    for number in range(3 * MAX_PEERS):
        peers.note(f"device-{number}", Declared(number + 1, float(number)))
    assert len(peers.last) == len(peers.samples) == len(peers.norms) == MAX_PEERS
    assert peers.usual("somebody", 0.5)[0] == 2 * MAX_PEERS + MAX_PEERS // 2 + 1


NORMS = st.just(0.0) | st.floats(1e-6, 100)


@given(st.lists(st.tuples(st.integers(1, 10**6), NORMS), min_size=3, max_size=30), st.data())
def test_no_device_weighs_much_more_than_most_nor_than_another_one(sent, data) -> None:
    samples, norms = zip(*sent, strict=True)
    bounds = Bounds.among(samples, norms)
    number = data.draw(st.integers(0, len(sent) - 1))
    assert bounds.weight(samples[number]) <= 1.5 * sorted(samples)[(len(samples) - 1) // 2]
    median = sorted(norms)[(len(norms) - 1) // 2]
    counts = bounds.scale(norms[number]) * norms[number]
    assert not median or counts <= 4 * median * (1 + 1e-12)
    assert not median or counts <= 2 * sorted(norms)[-2] * (1 + 1e-12)


@given(st.integers(2, 40), st.floats(1e-3, 100), st.floats(1e-3, 1e6))
def test_one_device_among_like_ones_counts_at_most_twice_as_much(others, norm, poisoned) -> None:
    peers = Peers()
    for number in range(others):
        peers.note(f"honest-{number}", Declared(60, norm))
    peers.note("evil", Declared(60, poisoned))
    assert peers.usual("evil") == (60, norm)
    bounds = Bounds.among([60] * (others + 1), [norm] * others + [poisoned])
    assert bounds.scale(poisoned) * poisoned <= 2 * norm * (1 + 1e-12)


def test_a_class_that_few_devices_see_may_pull_as_far_as_they_do() -> None:
    peers = Peers()
    for number in range(40):
        peers.note(f"device-{number}", Declared(60, 3.5 if number < 9 else 1.0))
    assert peers.usual("device-0") == (60, 2.0), "of two times that, 4, nothing is scaled away"
    assert Bounds.among([60] * 40, [3.5] * 9 + [1.0] * 31).scale(3.5) == 1.0
    assert Bounds.among([60] * 40, [3.5] * 3 + [1.0] * 37).scale(3.5) == 2.0 / 3.5, "fewer than a tenth"


def test_two_of_eight_devices_may_pull_as_far_as_they_do_together_and_one_alone_may_not() -> None:
    peers = Peers()
    for number in range(8):
        peers.note(f"device-{number}", Declared(60, 3.0 if number < 2 else 1.0))
    assert peers.usual("device-0") == (60, 2.0)
    peers.note("device-1", Declared(60, 1.0))
    assert peers.usual("device-0") == (60, 1.0)


def test_one_device_moves_the_measure_of_others_at_most_to_twice_the_median() -> None:
    peers = Peers()
    for number in range(10):
        peers.note(f"honest-{number}", Declared(60, 1.0))
    peers.note("evil", Declared(60, 99.0))
    assert peers.usual("honest-3") == (60, 2.0)
    assert peers.usual("evil") == (60, 1.0)


def test_few_devices_are_bounded_by_what_can_be_known() -> None:
    assert Bounds.among([], []) == Bounds(math.inf, math.inf)
    assert Bounds.among([60, 1_000_000], [1.0, 99.0]) == Bounds(90.0, math.inf)
    assert Bounds.among([60, 60, 1_000_000], [1.0, 1.0, 99.0]) == Bounds(90.0, 2.0)
    assert Bounds.among([60] * 3, [0.0] * 3).norm == math.inf, "zeros say nothing of what is long"
