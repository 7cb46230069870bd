"""How long a packet a broker takes: what it says counts; what ends connections is held back, and tried again later."""

from edge_agent.core.publication_limit import ENDS_THAT_SHOW, HELD_BACK_SECONDS, PublicationLimit

LARGE, SMALL = 4_000_000, 300


def ended_with(limit: PublicationLimit, *packets: int, now: float = 0.0) -> int | None:
    limit.connected(None)
    for packet in packets:
        limit.sent(packet)
    return limit.connection_ended(now)


def test_without_a_word_there_is_no_limit():
    limit = PublicationLimit()
    limit.connected(None)
    assert limit.maximum_bytes(0.0) is None


def test_what_the_broker_announces_is_the_limit_until_another_connection():
    limit = PublicationLimit()
    limit.connected(1000)
    assert limit.maximum_bytes(0.0) == 1000
    limit.connected(None)
    assert limit.maximum_bytes(0.0) is None


def test_publication_on_which_connections_end_is_held_back_and_shorter_ones_are_not():
    limit = PublicationLimit()
    ends = [ended_with(limit, SMALL, LARGE) for _ in range(ENDS_THAT_SHOW)]
    assert ends == [None] * (ENDS_THAT_SHOW - 1) + [LARGE]
    assert limit.maximum_bytes(HELD_BACK_SECONDS - 1) == LARGE - 1
    assert limit.maximum_bytes(HELD_BACK_SECONDS) is None
    assert ended_with(limit, LARGE, now=HELD_BACK_SECONDS) == LARGE


def test_ends_without_a_publication_on_its_way_show_nothing():
    limit = PublicationLimit()
    for _ in range(10 * ENDS_THAT_SHOW):
        assert ended_with(limit) is None


def test_publication_that_gets_through_is_not_suspected():
    limit = PublicationLimit()
    for _ in range(10 * ENDS_THAT_SHOW):
        assert ended_with(limit, LARGE) is None
        limit.connected(None)
        limit.sent(LARGE)
        limit.acknowledged(LARGE)
        assert limit.connection_ended(0.0) is None


def test_acknowledgement_of_shorter_ones_clears_nobody():
    limit = PublicationLimit()
    for _ in range(ENDS_THAT_SHOW):
        limit.connected(None)
        limit.sent(SMALL)
        limit.sent(LARGE)
        limit.acknowledged(SMALL)
        shown = limit.connection_ended(0.0)
    assert shown == LARGE
