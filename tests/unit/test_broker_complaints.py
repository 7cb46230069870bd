"""What a connection's end shows is said once, with what to check; an ordinary end shows nothing."""

import logging

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.shell.connection.broker_complaints import BrokerComplaints
from fleet_host.short_connections import SHORT_ONES_THAT_SHOW, SHORT_SECONDS

TAKEN_OVER = aiomqtt.MqttCodeError(ReasonCode(PacketTypes.DISCONNECT, "Session taken over"))
ORDINARY = aiomqtt.MqttError("connection reset")
BEFORE_ANY = float("-inf")
"""An attempt that the broker did not answer."""


@pytest.fixture
def complaints(caplog):
    caplog.set_level(logging.WARNING)
    return BrokerComplaints("home-kitchen", 67_584)


def events(caplog) -> list[str]:
    return [record.getMessage().split()[0].removeprefix("event=") for record in caplog.records]


def test_session_that_was_taken_over_is_said_once_with_the_name(complaints, caplog):
    for _ in range(3):
        complaints.connection_ended(TAKEN_OVER, None, lasted_seconds=10 * SHORT_SECONDS)
    assert events(caplog) == ["session_taken_over"]
    assert "client=home-kitchen" in caplog.text


def test_connections_that_end_at_once_are_said_once(complaints, caplog):
    for number in range(3 * SHORT_ONES_THAT_SHOW):
        assert bool(caplog.records) == (number >= SHORT_ONES_THAT_SHOW)
        complaints.connection_ended(ORDINARY, None, lasted_seconds=1.0)
    assert events(caplog) == ["connections_end_at_once"]


def test_broker_that_is_away_and_connections_that_lasted_show_nothing(complaints, caplog):
    for _ in range(3 * SHORT_ONES_THAT_SHOW):
        complaints.connection_ended(ORDINARY, None, lasted_seconds=1.0)
        complaints.connection_ended(ORDINARY, None, lasted_seconds=BEFORE_ANY)
        complaints.connection_ended(ORDINARY, None, lasted_seconds=2 * SHORT_SECONDS)
    assert events(caplog) == []


def test_publication_that_ends_connections_is_said_instead_of_a_second_device(complaints, caplog):
    for _ in range(SHORT_ONES_THAT_SHOW + 2):
        complaints.connection_ended(ORDINARY, 5000, lasted_seconds=0.1)
    assert events(caplog) == ["publication_ends_connections"]
