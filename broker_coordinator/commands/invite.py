"""`broker-coordinator tasks invite`: asks devices for a round of a task, by one signed message over the broker."""

import ssl
from typing import Any

from paho.mqtt import MQTTException, publish
from paho.mqtt.enums import MQTTProtocolVersion

from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.distribution.signed_messages import MessageSigner
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Invitation

PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


def invite(configuration: CoordinatorConfiguration, task: str, invitation: Invitation) -> None:
    """Publish the invitation; whoever is connected and has `invitation = true` in its trigger hears it.

    Raises:
        ConfigurationError: the key can't be read, or the broker does not take the message.
    """
    signer = MessageSigner(configuration.signing_key(), configuration.fleet, configuration.shard)
    publication = signer.invitation(task, invitation)
    broker = configuration.broker
    try:
        publish.single(
            publication.topic,
            publication.data,
            qos=1,
            hostname=broker.host,
            port=broker.port,
            client_id=f"{configuration.fleet}-invite",
            keepalive=broker.keepalive_seconds,
            **_access(broker),
        )
    except (OSError, ssl.SSLError, MQTTException) as error:
        raise ConfigurationError(
            f"broker {broker.host}:{broker.port} did not take the invitation: {error}; compare [broker] with what"
            " the running coordinator has"
        ) from error


def _access(broker: BrokerSettings) -> dict[str, Any]:
    """Protocol, password and TLS, as `publish.single` names them."""
    access: dict[str, Any] = {"protocol": PROTOCOLS[broker.protocol], "transport": "tcp"}
    if broker.username is not None:
        access["auth"] = {"username": broker.username, "password": broker.password()}
    if (context := broker.tls_context()) is not None:
        access["tls"] = context
    return access
