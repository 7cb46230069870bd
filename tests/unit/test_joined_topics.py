"""Topics of one value each become readings that their levels name."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.sources.joined_topics import MAX_VALUE_BYTES, JoinedTopics, name_in
from edge_agent.sources.mqtt_topic import MqttTopicSettings
from edge_agent.sources.settings import SourceSettings
from fleet_protocol.limits import MAX_READING_FIELDS

ALL: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("topic_filter", "topic", "name"),
    [
        ("kitchen/sensor/+/state", "kitchen/sensor/temperature/state", "temperature"),
        ("zigbee2mqtt/living-room/+", "zigbee2mqtt/living-room/humidity", "humidity"),
        ("homeassistant/+/+/state", "homeassistant/binary_sensor/door/state", "binary_sensor/door"),
        ("kitchen/#", "kitchen/sensor/temperature", "sensor/temperature"),
        ("kitchen/#", "kitchen", "kitchen"),
        ("kitchen/temperature", "kitchen/temperature", "kitchen/temperature"),
    ],
)
def test_wildcards_name_a_value(topic_filter, topic, name):
    assert name_in(topic_filter, topic) == name


LEVEL = st.text("abc-_ é'", max_size=4)


@given(st.lists(st.tuples(LEVEL, st.booleans()), min_size=1, max_size=6))
def test_name_has_the_levels_that_the_wildcards_stand_for(levels):
    topic_filter = "/".join("+" if is_wild else level for level, is_wild in levels)
    topic = "/".join(level for level, _ in levels)
    named = [level for level, is_wild in levels if is_wild]
    assert name_in(topic_filter, topic) == ("/".join(named) or topic)


def test_last_values_make_a_reading_and_old_ones_are_missing():
    joined = JoinedTopics("kitchen/+", kept_seconds=60)
    for name, payload, at in (("t", b"21.5", 0.0), ("h", b"40", 30.0), ("door", b"on", 40.0), ("t", b"22", 50.0)):
        assert joined.put(f"kitchen/{name}", payload, at, ALL)
    assert joined.reading(50.0) == {"t": 22, "h": 40, "door": "on"}
    assert joined.reading(95.0) == {"t": 22, "door": "on"}


@pytest.mark.parametrize("word", [b"unavailable", b"Unknown", b"NaN", b"null", b" ", b"None"])
def test_sensor_that_says_that_it_has_no_value_has_none(word):
    joined = JoinedTopics("kitchen/+", kept_seconds=60)
    joined.put("kitchen/t", b"21.5", 0.0, ALL)
    joined.put("kitchen/t", word, 1.0, ALL)
    assert joined.reading(1.0) == {"t": None}


def test_what_is_not_wanted_costs_nothing_and_what_is_too_much_is_refused():
    joined = JoinedTopics("house/+", kept_seconds=60)
    assert not joined.put("house/camera", b"x" * 100_000, 0.0, frozenset({"t"}))
    with pytest.raises(ReadingRefusedError, match=f"at most {MAX_VALUE_BYTES}"):
        joined.put("house/t", b"x" * (MAX_VALUE_BYTES + 1), 0.0, frozenset({"t"}))
    for number in range(MAX_READING_FIELDS):
        joined.put(f"house/{number}", b"1", 0.0, ALL)
    joined.put("house/0", b"2", 0.0, ALL)
    with pytest.raises(ReadingRefusedError, match="name those to take under fields"):
        joined.put("house/one-more", b"1", 0.0, ALL)
    assert len(joined.reading(0.0)) == MAX_READING_FIELDS


@given(st.binary(max_size=200))
@example(b'"\xff"')
@example(b'{"a": "\\ud800"}')
def test_any_payload_is_a_value_that_json_has(payload):
    joined = JoinedTopics("a/+", kept_seconds=1)
    joined.put("a/b", payload, 0.0, ALL)
    msgspec.json.encode(joined.reading(0.0))


def test_members_that_paths_name_are_those_that_are_wanted():
    source = SourceSettings(
        kind="mqtt",
        task="occupancy",
        fields={"temperature": "$.kitchen_temperature", "humidity": "$['kitchen-humidity'].value"},
        time="$.clock",
        units={"$.unit": "C"},
    )
    assert source.form.names == {"kitchen_temperature", "kitchen-humidity", "clock", "unit"}
    assert SourceSettings(kind="mqtt", task="a", inputs=["$.x[0]"], label="$.y").form.names == {"x", "y"}
    assert SourceSettings(kind="mqtt", task="a").form.names == ALL


def test_one_topic_has_nothing_to_join():
    settings = {"topic": "kitchen/temperature", "broker": {"host": "broker.example"}, "join_seconds": 10}
    with pytest.raises(msgspec.ValidationError, match=r"write \+ for the level that names"):
        msgspec.convert(settings, MqttTopicSettings)
