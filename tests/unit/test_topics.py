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
    for build in (topics.up, topics.down, topics.state, topics.session, topics.relayed):
        assert topics.device_of(build(fleet, shard, device)) == (device, build.__name__)
    assert topics.blob_of(topics.blob_chunk(fleet, HASH, number)) == (HASH, number)
    assert topics.chunk_of(topics.chunk(fleet, HASH, number)) == (HASH, number)
    for packed in (topics.PackedWeights(device, number, None), topics.PackedWeights(device, number, number + 1)):
        assert topics.chunk_of(topics.chunk(fleet, packed, number)) == (packed, number)
    assert topics.gossip_of(topics.gossip(fleet, shard, device)) == (shard, device)
    built = [
        topics.roster(fleet, device),
        topics.gossip(fleet, shard, device),
        topics.up(fleet, shard, device),
        topics.manifest(fleet, device),
        topics.invitation(fleet, device),
        topics.blob_chunk(fleet, HASH, number),
        topics.packed_chunk(fleet, topics.PackedWeights(device, number, None), number),
    ]
    for topic in built:
        assert re.fullmatch(r"[a-z0-9_/-]{1,255}", topic)
        assert topic.count("/") <= 7


@given(names, names, names)
def test_no_name_makes_a_topic_of_gossip_one_of_another_kind(fleet, task, device):
    topic = topics.gossip(fleet, task, device)
    for read in (topics.device_of, topics.blob_of, topics.packed_of):
        with pytest.raises(ProtocolError):
            read(topic)
    for other in (topics.up(fleet, task, device), topics.roster(fleet, task), topics.manifest(fleet, task)):
        with pytest.raises(ProtocolError):
            topics.gossip_of(other)


@pytest.mark.parametrize(
    "tail", ["d/from", "d/from/", "d/to/pi", "D/from/pi", "d/from/+", "d/from/pi/more", "/from/pi"]
)
def test_topic_of_no_gossip_is_refused(tail):
    with pytest.raises(ProtocolError) as caught:
        topics.gossip_of(f"edgeflock/v1/f/gossip/{tail}")
    assert caught.value.reason is Reason.MALFORMED


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


@pytest.mark.parametrize(
    "tail",
    [
        "d/1/0",
        "d/1/0/0/0",
        "d/01/0/0",
        "d/1/-1/0",
        "d/1/all/0",
        "d/1/whole/",
        "d/1/0/00",
        "d/1/0/+",
        "D/1/0/0",
        "/1/0/0",
    ],
)
def test_topic_of_no_packed_weights_is_refused(tail):
    with pytest.raises(ProtocolError) as caught:
        topics.packed_of(f"edgeflock/v1/f/weights/{tail}")
    assert caught.value.reason is Reason.MALFORMED
