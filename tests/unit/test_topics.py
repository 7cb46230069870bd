"""Topics that every broker carries, and nothing else taken for one of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason

HASH = "0f" * 32
names = st.from_regex(r"[a-z0-9_-]{1,48}", fullmatch=True)


@given(names, names, names, st.integers(0, 10**9 - 1))
def test_every_topic_is_carried_by_every_broker_and_read_back(fleet, shard, device, number):
    for build in (topics.up, topics.down, topics.state):
        assert topics.device_of(build(fleet, shard, device)) == (device, build.__name__)
    assert topics.blob_of(topics.blob_chunk(fleet, HASH, number)) == (HASH, number)
    built = [
        topics.up(fleet, shard, device),
        topics.manifest(fleet, device),
        topics.blob_chunk(fleet, HASH, number),
    ]
    for topic in built:
        assert re.fullmatch(r"[a-z0-9_/-]{1,255}", topic)
        assert topic.count("/") <= 7


@pytest.mark.parametrize(
    "name", ["", "x" * 49, "Pi", "pi/2", "pi+", "#", "+", "pi 2", "pi\n", "pi\x00", "é", "٣", "$sys"]
)
def test_name_that_some_broker_would_not_carry_is_refused(name):
    with pytest.raises(ProtocolError, match="device name") as caught:
        topics.check_name("device", name)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edgeflock/v1/f/0/pi",
        "edgeflock/v1/f/0/pi/up/more",
        "edgeflock/v1/f/0/pi/sideways",
        "edgeflock/v2/f/0/pi/up",
        "elsewhere/v1/f/0/pi/up",
        "/edgeflock/v1/f/0/up",
        "edgeflock/v1/f/0//up",
        "edgeflock/v1/f/0/Pi/up",
        "edgeflock/v1/f/0/+/up",
        "edgeflock/v1/f/0/pi/up\n",
    ],
)
def test_topic_of_no_device_is_refused(topic):
    with pytest.raises(ProtocolError) as caught:
        topics.device_of(topic)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "topic",
    [
        f"edgeflock/v1/f/blob/{HASH}",
        f"edgeflock/v1/f/blob/{HASH}/",
        f"edgeflock/v1/f/blob/{HASH}/-1",
        f"edgeflock/v1/f/blob/{HASH}/007",
        f"edgeflock/v1/f/blob/{HASH}/٣",
        f"edgeflock/v1/f/blob/{HASH}/1\n",
        f"edgeflock/v1/f/blob/{HASH}/12345678901234567890",
        f"edgeflock/v1/f/blob/{HASH.upper()}/1",
        f"edgeflock/v1/f/blob/{HASH[:-1]}/1",
        f"edgeflock/v1/f/0/{HASH}/1",
        f"elsewhere/v1/f/blob/{HASH}/1",
    ],
)
def test_topic_of_no_chunk_is_refused(topic):
    with pytest.raises(ProtocolError) as caught:
        topics.blob_of(topic)
    assert caught.value.reason is Reason.MALFORMED
