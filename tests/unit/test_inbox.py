"""How much of a message the agent reads follows from its topic's kind, whatever fleet, tasks and devices are called."""

import pytest

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.inbox import Inbox
from fleet_protocol import topics
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_QUERIES_BYTES, MAX_ROSTER_BYTES, MAX_SIGNED_CHUNK_BYTES

KINDS = ("blob", "weights", "query", "roster", "task")
CALLBACKS = (
    "receipt",
    "manifest",
    "not_readable",
    "invitation",
    "succession",
    "authorities",
    "queries",
    "chunk",
    "roster",
)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("fleet", KINDS)
def test_a_fleet_or_task_called_like_a_kind_of_message_changes_no_limit(fleet, task):
    identity = Identity(fleet, "0", "pi", SigningKey(bytes(32)), write_verify_key(SigningKey(bytes(32)).verify_key))
    inbox = Inbox(fleet, identity, **dict.fromkeys(CALLBACKS))
    limits = {
        topics.blob_chunk(fleet, "0f" * 32, 0): MAX_SIGNED_CHUNK_BYTES,
        topics.packed_chunk(fleet, topics.PackedWeights(task, 3, None), 0): MAX_SIGNED_CHUNK_BYTES,
        topics.queries(fleet, task): MAX_QUERIES_BYTES,
        topics.roster(fleet, task): MAX_ROSTER_BYTES,
        topics.manifest(fleet, task): MAX_CONTROL_BYTES,
        topics.invitation(fleet, task): MAX_CONTROL_BYTES,
    }
    assert {topic: inbox._limit(topic) for topic in limits} == limits


@pytest.mark.parametrize("leaf", ["up", "down", "state", "session", "relayed"])
def test_a_task_or_device_called_like_a_leaf_has_no_topics_of_a_device(leaf):
    assert topics.leaf_of(getattr(topics, leaf)("home", "0", "pi")) == leaf
    for topic in (topics.manifest("home", leaf), topics.gossip("home", leaf, leaf), topics.roster("home", leaf)):
        assert topics.leaf_of(topic) == ""
