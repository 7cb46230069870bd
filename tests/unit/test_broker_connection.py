"""What a broker would not take is said, and ends neither the program that speaks to it nor the connection."""

import logging
from unittest.mock import create_autospec

import pytest
from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.connection import BrokerConnection, Owner
from fleet_host.broker_settings import BrokerSettings

LARGEST_BYTES = 100


@pytest.fixture
def connection() -> BrokerConnection:
    """Accepted by a broker that takes short packets alone."""
    owner = create_autospec(Owner, instance=True)
    connection = BrokerConnection(BrokerSettings(host="broker.example", port=1883), "relay-home-0", {}, owner)
    announced = Properties(PacketTypes.CONNACK)
    announced.MaximumPacketSize = LARGEST_BYTES
    accepted = ReasonCode(PacketTypes.CONNACK, "Success")
    connection._on_connect(create_autospec(Client), None, ConnectFlags(session_present=False), accepted, announced)
    return connection


def test_publication_that_is_too_large_for_the_broker_is_said_once_and_not_kept(connection, caplog) -> None:
    caplog.set_level(logging.ERROR)
    for _ in range(2):
        connection.publish(Publication("edgeflock/v1/home/0/kitchen-pi/relayed", bytes(LARGEST_BYTES)))
    assert connection.unacknowledged == 0
    assert caplog.text.count("event=publication_too_large") == 1
    connection.publish(Publication("edgeflock/v1/home/0/kitchen-pi/relayed", b"short"))
    assert connection.unacknowledged == 1
