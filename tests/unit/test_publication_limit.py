"""How long a packet a broker takes: what it says counts; what ends connections is held back, and tried again later."""

from fleet_host.publication_limit import ENDS_THAT_SHOW, HELD_BACK_SECONDS, OnItsWay, PublicationLimit

LARGE, SMALL = 4_000_000, 300


def ended_with(
    limit: PublicationLimit, longest: int, *, taken: int = 0, seconds: float = 0.0, now: float = 0.0
) -> int | None:
    limit.connected(None)
    return limit.connection_ended(OnItsWay(longest, seconds, taken), now)


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
    ends = [ended_with(limit, LARGE, taken=SMALL) for _ in range(ENDS_THAT_SHOW)]
    assert ends == [None] * (ENDS_THAT_SHOW - 1) + [LARGE]
    assert limit.maximum_bytes(HELD_BACK_SECONDS - 1) == LARGE - 1
    assert limit.maximum_bytes(HELD_BACK_SECONDS) is None
    assert ended_with(limit, LARGE, now=HELD_BACK_SECONDS) == LARGE


def test_ends_without_a_publication_on_its_way_show_nothing():
    limit = PublicationLimit()
    for _ in range(10 * ENDS_THAT_SHOW):
        assert ended_with(limit, 0) is None


def test_publication_that_gets_through_is_not_suspected():
    limit = PublicationLimit()
    for _ in range(10 * ENDS_THAT_SHOW):
        assert ended_with(limit, LARGE) is None
        assert ended_with(limit, 0, taken=LARGE) is None


def test_others_that_get_through_clear_only_what_is_shorter():
    limit = PublicationLimit()
    assert [ended_with(limit, LARGE, taken=SMALL) for _ in range(ENDS_THAT_SHOW)][-1] == LARGE
    limit = PublicationLimit()
    assert [ended_with(limit, SMALL, taken=LARGE) for _ in range(10)] == [None] * 10


def test_broker_that_waits_for_others_for_minutes_holds_no_short_publication_back():
    """Servers of a cluster elect for nine seconds, or have no majority, and end each connection after four."""
    limit = PublicationLimit()
    assert [ended_with(limit, SMALL, seconds=4.0) for _ in range(100)] == [None] * 100
    assert limit.maximum_bytes(0.0) is None


def test_of_long_publications_late_ends_show_a_quarter_of_what_prompt_ones_do():
    limit = PublicationLimit()
    ends = [ended_with(limit, LARGE, taken=SMALL, seconds=60.0) for _ in range(4 * ENDS_THAT_SHOW)]
    assert ends == [None] * (4 * ENDS_THAT_SHOW - 1) + [LARGE]
    assert ended_with(limit, LARGE, seconds=60.0, now=HELD_BACK_SECONDS) == LARGE
