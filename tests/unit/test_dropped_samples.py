"""What retention drops is counted by task and rule, over restarts and damaged files, without a write for each."""

import sqlite3

import pytest

from edge_agent.shell.samples.dropped_samples import DROPS_PER_WRITE, dropped_words, read_dropped
from edge_agent.shell.samples.sample_store import SampleStore
from fleet_protocol.sample_line import Sample

VALUES = bytes(4 * 2)
RULES = ["newest", "reservoir", "balanced"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "samples.db"


def filled(path, retention, *, samples, maximum=4, maximum_bytes=1000) -> SampleStore:
    store = SampleStore(path, maximum, maximum_bytes, retention)
    for number in range(samples):
        store.add("digits", VALUES, number % 3)
    return store


def written(path) -> dict[str, dict[str, int]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return read_dropped(connection)
    finally:
        connection.close()


@pytest.mark.parametrize("retention", RULES)
def test_every_sample_is_stored_or_counted_over_restarts(path, retention):
    for _ in range(3):
        store = filled(path, retention, samples=50)
        store.close()
    store = filled(path, "newest", samples=1)
    assert store.count("digits") == 4
    assert store.dropped("digits") == ({"newest": 147} if retention == "newest" else {retention: 146, "newest": 1})
    assert store.dropped("faces") == {}
    store.close()
    assert written(path) == {"digits": store.dropped("digits")}


def test_one_sample_may_make_room_by_several(path):
    store = filled(path, "newest", samples=4, maximum_bytes=4 * len(VALUES))
    store.add("digits", 3 * VALUES, 0)
    assert (store.count("digits"), store.dropped("digits")) == (2, {"newest": 3})


@pytest.mark.parametrize("retention", RULES)
def test_power_cut_costs_the_newest_counts_alone(path, retention):
    store = filled(path, retention, samples=200, maximum=100)
    for number in range(500):
        store.add("digits", VALUES, number % 3)
    counted = store.dropped("digits")[retention]
    cut = SampleStore(path, 100, 1000, retention)
    assert counted == 600
    kept_on_card = cut.dropped("digits")[retention]
    assert counted - kept_on_card < (DROPS_PER_WRITE if retention != "reservoir" else counted)


def test_samples_that_waited_for_their_schema_are_counted_apart(path):
    store = SampleStore(path, 4)
    for number in range(10):
        store.add_unjudged(Sample("digits", [float(number)], 0))
    assert store.dropped("digits") == {"waiting": 6}


def test_samples_that_their_owner_forgets_are_not_counted(path):
    store = filled(path, "newest", samples=4)
    store.forget("digits")
    assert store.dropped("digits") == {}


def test_store_that_is_begun_anew_goes_on_counting(path):
    store = filled(path, "newest", samples=10)
    store.start_anew("the card is damaged")
    store.add("digits", VALUES, 0)
    store.close()
    assert written(path) == {"digits": {"newest": 6}}


def test_full_disk_refuses_no_closing(path, monkeypatch):
    store = filled(path, "newest", samples=10)
    page_count = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {page_count}")
    store.close()


def test_store_of_an_earlier_release_has_dropped_nothing_yet(path):
    filled(path, "newest", samples=4).close()
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE dropped")
    connection.close()
    assert written(path) == {}
    assert SampleStore(path, 4).dropped("digits") == {}


def test_words_say_how_many_and_by_which_rule():
    assert dropped_words({}) == ""
    assert (
        dropped_words({"waiting": 2, "newest": 40}) == "42 made room or were not kept (40 by 'newest', 2 by 'waiting')"
    )
