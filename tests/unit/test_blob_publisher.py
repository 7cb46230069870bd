"""Chunks that are asked for together are published once, and the limit on answers to strangers holds."""

from broker_coordinator.distribution.chunk_queue import SHARING_WINDOW_SECONDS, ChunkQueue
from fleet_host.rate_limit import RateLimit

BLOB, OTHER = "aa" * 32, "bb" * 32


def test_who_asks_within_the_window_shares_a_publication() -> None:
    publisher = ChunkQueue()
    publisher.request(BLOB, [0, 1], now=1.0)
    publisher.request(BLOB, [1, 2], now=1.0 + SHARING_WINDOW_SECONDS / 2)
    assert publisher.take(10, now=1.0) == []
    assert publisher.next_due() == 1.0 + SHARING_WINDOW_SECONDS
    assert publisher.take(10, now=1.0 + SHARING_WINDOW_SECONDS) == [(BLOB, 0), (BLOB, 1)]
    assert publisher.take(10, now=2.0) == [(BLOB, 2)]
    assert publisher.next_due() is None


def test_who_asks_after_the_publication_gets_another() -> None:
    publisher = ChunkQueue()
    publisher.request(BLOB, [0], now=1.0)
    assert publisher.take(10, now=2.0) == [(BLOB, 0)]
    publisher.request(BLOB, [0], now=2.0)
    assert publisher.take(10, now=3.0) == [(BLOB, 0)]


def test_limit_leaves_the_rest_in_order() -> None:
    publisher = ChunkQueue()
    publisher.request(BLOB, range(3), now=1.0)
    publisher.request(OTHER, [7], now=1.0)
    assert publisher.take(2, now=2.0) == [(BLOB, 0), (BLOB, 1)]
    assert publisher.take(2, now=2.0) == [(BLOB, 2), (OTHER, 7)]


def test_rate_limit_per_key_and_over_all_keys() -> None:
    limit = RateLimit(interval_seconds=5.0, maximum_keys=2)
    assert [limit.allows(key, 0.0) for key in ("a", "a", "b", "c")] == [True, False, True, False]
    assert [limit.allows(key, 5.0) for key in ("c", "a", "b")] == [True, True, False]
