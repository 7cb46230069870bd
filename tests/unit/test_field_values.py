"""Values of stored samples, as queries see them."""

import sqlite3
import struct
from contextlib import closing

import msgspec
import pytest

from edge_agent.shell.samples.field_values import FIRST_SECOND, field_values
from edge_agent.shell.samples.sample_store import SampleStore
from fleet_protocol.sample_schema import InputSchema
from tests.support.queries import TASK, asked, described
from tests.unit.test_query_fields import NAMED, SEVERAL

DAY = 86_400
MONDAY = FIRST_SECOND + 1000 * DAY


@pytest.fixture
def store(tmp_path):
    store = SampleStore(tmp_path / "samples.db", 1000, notes_arrivals=True)
    yield store
    store.close()


def row(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def fill(store: SampleStore) -> None:
    """Sample n has the inputs n, 10 n, 0, -n and the label n % 3, and came n days after Monday."""
    for number in range(10):
        store.add("tiny", row(number, 10 * number, 0, -number), number % 3)
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE arrivals SET received_at = ? + ? * (sample - 1)", (MONDAY, DAY))


def test_values_of_inputs_labels_and_times_are_those_of_the_samples(store) -> None:
    fill(store)
    assert field_values(store.path, TASK, asked("count", field="input[1]")) == [10.0 * number for number in range(10)]
    assert field_values(store.path, TASK, asked("count", field="label")) == [float(number % 3) for number in range(10)]
    times = field_values(store.path, TASK, asked("count", field="received_at"))
    assert times == [float(MONDAY + number * DAY) for number in range(10)]


def test_filter_and_window_take_some(store) -> None:
    fill(store)
    where = [{"field": "label", "at_least": 1.0, "at_most": 1.0}, {"field": "input[3]", "at_least": -7.0}]
    assert field_values(store.path, TASK, asked("count", where=where)) == [1.0, 4.0, 7.0]
    window = msgspec.structs.replace(asked("count"), since=MONDAY + 2 * DAY, until=MONDAY + 4 * DAY)
    assert field_values(store.path, TASK, window) == [2.0, 3.0], "the end itself belongs to the next window"


def test_samples_of_an_unknown_time_are_in_no_window(store) -> None:
    fill(store)
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE arrivals SET received_at = 17 WHERE sample = 1")
        connection.execute("DELETE FROM arrivals WHERE sample = 2")
    until = msgspec.structs.replace(asked("count"), until=MONDAY + 4 * DAY)
    assert field_values(store.path, TASK, until) == [2.0, 3.0]
    assert len(field_values(store.path, TASK, asked("count"))) == 10


def test_missing_values_and_samples_of_another_form_do_not_count(store) -> None:
    fill(store)
    store.add("tiny", row(float("nan"), 1, 1, 1), 0)
    store.add("tiny", row(1, 2), 0)
    store.add("other", row(1, 2, 3, 4), 0)
    assert len(field_values(store.path, TASK, asked("count"))) == 10
    assert len(field_values(store.path, TASK, asked("count", field="input[1]"))) == 11


def test_readings_are_in_their_own_unit_and_categories_are_numbers(store) -> None:
    window = [0.0] * 10
    store.add("tiny", row(*window, -0.5, 0, 1, 0, 1), 1)
    query = asked("count", task=NAMED, field="reading.temperature")
    assert field_values(store.path, NAMED, query) == [10.0]
    assert field_values(store.path, NAMED, asked("count", task=NAMED, field="reading.mode")) == [1.0]
    assert field_values(store.path, NAMED, asked("count", task=NAMED, field="reading.open")) == [1.0]


def test_heads_are_values_of_the_row_of_labels(store) -> None:
    store.add("tiny", row(*range(7)), row(4, 0.5, 0.25))
    assert field_values(store.path, SEVERAL, asked("count", task=SEVERAL, field="label.word")) == [4.0]
    assert field_values(store.path, SEVERAL, asked("count", task=SEVERAL, field="label.loudness[1]")) == [0.25]


def test_time_of_a_sample_is_noted_and_goes_with_it(store) -> None:
    before = int(FIRST_SECOND)
    first = store.add("tiny", row(1, 2, 3, 4), 0)
    corrected = store.correct("tiny", first, 2)
    with closing(sqlite3.connect(store.path)) as connection:
        ((sample, received_at),) = connection.execute("SELECT * FROM arrivals").fetchall()
    assert sample == corrected
    assert received_at > before
    store.forget("tiny")
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM arrivals").fetchone() == (0,)


def test_time_is_noted_where_it_may_be_asked_for_alone(tmp_path) -> None:
    store = SampleStore(tmp_path / "other.db", 1000)
    store.add("tiny", row(1, 2, 3, 4), 0)
    assert field_values(store.path, TASK, asked("count", field="received_at")) == []
    store.start_anew("damaged")
    store.close()
    noting = SampleStore(tmp_path / "other.db", 1000, notes_arrivals=True)
    noting.start_anew("damaged again")
    noting.add("tiny", row(1, 2, 3, 4), 0)
    assert len(field_values(noting.path, TASK, asked("count", field="received_at"))) == 1
    noting.close()


def test_wide_pictures_are_not_read_whole(store) -> None:
    task = described(TASK.label, input=InputSchema([10_000], -100.0, 100.0))
    store.add("tiny", row(*[float(number % 50) for number in range(10_000)]), 1)
    assert field_values(store.path, task, asked("count", task=task, field="input[9999]")) == [49.0]
