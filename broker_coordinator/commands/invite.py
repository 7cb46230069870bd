"""`broker-coordinator tasks invite`: asks devices for a round of a task, by one signed message over the broker."""

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

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
    with ended_after(LONGEST_SECONDS, f"{PROGRAM}: {where} does not answer; the invitation may be lost: try again"):
        try:
            refusal = _publish(publication, _client(broker, f"{configuration.fleet}-invite"), broker)
        except OSError as error:
            refusal = str(error)
    if refusal:
        remedy = f"compare [broker] with what the running coordinator has, and let it write to {publication.topic}"
        raise ConfigurationError(f"{where} did not take the invitation: {refusal}; {remedy}")


def _client(broker: BrokerSettings, identifier: str) -> paho.Client:
    """One that stays no longer than its message, and logs nothing: the command says what became of it."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, identifier, protocol=PROTOCOLS[broker.protocol], reconnect_on_failure=False
    )
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password())
    if (context := broker.tls_context()) is not None:
        client.tls_set_context(context)
    return client


def _publish(publication: Publication, client: paho.Client, broker: BrokerSettings) -> str:
    """At QoS 1; returns why the broker has not taken it, empty where it has.

    Raises:
        OSError: the broker can't be reached.
    """
    answers: list[ReasonCode] = []

    def connected(_client: object, _data: object, _flags: object, answer: ReasonCode, _properties: object) -> None:
        if answer.is_failure:
            answers.append(answer)
        else:
            client.publish(publication.topic, publication.data, qos=1)

    def published(_client: object, _data: object, _number: object, answer: ReasonCode, _properties: object) -> None:
        answers.append(answer)

    client.on_connect, client.on_publish = connected, published
    client.connect(broker.host, broker.port, broker.keepalive_seconds)
    while not answers:
        status = client.loop()
        if status is not MQTTErrorCode.MQTT_ERR_SUCCESS and not answers:
            return paho.error_string(status)
    client.disconnect()
    return str(answers[0]) if answers[0].is_failure else ""
