"""`broker-coordinator tasks invite`: asks devices for a round of a task, by one signed message over the broker."""

from typing import Any

from paho.mqtt import MQTTException, publish
from paho.mqtt.enums import MQTTProtocolVersion

from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from fleet_host.broker_settings import BrokerSettings
from fleet_host.child_process import ended_after
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Invitation

LONGEST_SECONDS = 30.0
"""From the connection to the broker's acknowledgement."""
PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


def invite(configuration: CoordinatorConfiguration, task: str, invitation: Invitation) -> None:
    """Publish the invitation; whoever is connected and has `invitation = true` in its trigger hears it.

    Raises:
        ConfigurationError: the key can't be read, or the broker does not take the message.
    """
    signer = MessageSigner(configuration.keys()[0], configuration.fleet, configuration.shard)
    publication = signer.invitation(task, invitation)
    broker = configuration.broker
    where = f"broker {broker.host}:{broker.port}"
    try:
        with ended_after(LONGEST_SECONDS, f"{PROGRAM}: {where} does not answer; the invitation may be lost: try again"):
            _publish(publication, configuration)
    except (OSError, MQTTException) as error:
        raise ConfigurationError(
            f"{where} did not take the invitation: {error}; compare [broker] with what the running coordinator has"
        ) from error


def _publish(publication: Publication, configuration: CoordinatorConfiguration) -> None:
    """At QoS 1, as a client that stays no longer."""
    broker = configuration.broker
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


def _access(broker: BrokerSettings) -> dict[str, Any]:
    """Protocol, password and TLS, as `publish.single` names them."""
    access: dict[str, Any] = {"protocol": PROTOCOLS[broker.protocol], "transport": "tcp"}
    if broker.username is not None:
        access["auth"] = {"username": broker.username, "password": broker.password()}
    if (context := broker.tls_context()) is not None:
        access["tls"] = context
    return access
