"""Joins a fleet with an invitation: over the invitation's own account at the broker, which reaches nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.mqtt.broker_client import HEARS_AT_QOS, BrokerClient
from edge_agent.shell.connection.identity import Identity
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol.device_invitation import DeviceInvitation, prove_invitation
from fleet_protocol.envelope import digest
from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import SigningKey, key_id
from fleet_protocol.kinds import ENROLMENT, Enrolment, Outcome, Receipt, encode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_PACKET_OVERHEAD_BYTES

ASK_AGAIN_SECONDS = 6.0
"""Longer than the coordinator keeps unverified answers to one name apart."""
NOT_AUTHORISED = frozenset({4, 5, 134, 135})
"""Reason codes of CONNACK, of MQTT 3.1.1 and 5, for a login that the broker does not know."""


class NotAuthorisedError(Exception):
    """The broker does not know this account, not yet or not any more."""


async def enrol(
    invitation: DeviceInvitation, broker: BrokerSettings, identifier: str, key: SigningKey, described: tuple[str, str]
) -> Receipt:
    """Ask until the coordinator answers; returns its verified receipt. `described` are profile and software version.

    Raises:
        NotAuthorisedError: from the broker, about the invitation's account.
        MqttError: the connection broke.
    """
    identity = Identity(invitation.fleet, invitation.shard, invitation.device, key, invitation.coordinator_key.hex())
    token = invitation.key()
    proof = prove_invitation(token, identity.up_topic, key.verify_key)
    enrolment = Enrolment(identity.public_key, *described, list(invitation.tasks), key_id(token.verify_key), proof)
    async with _connected(broker, identifier) as client:
        await client.subscribe(identity.down_topic, qos=HEARS_AT_QOS)
        sent: set[bytes] = set()
        while True:
            signed = identity.sign_control(ENROLMENT, encode_payload(enrolment))
            sent.add(digest(signed))
            await client.hand_over(identity.up_topic, signed)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    return await _receipt(client, identity, sent)


async def try_login(broker: BrokerSettings, identifier: str) -> None:
    """Connect, and leave again.

    Raises:
        NotAuthorisedError: the broker does not know this account.
        MqttError: there is no connection.
    """
    async with _connected(broker, identifier):
        pass


@contextlib.asynccontextmanager
async def _connected(broker: BrokerSettings, identifier: str) -> AsyncIterator[BrokerClient]:
    client = BrokerClient(
        broker,
        identifier,
        maximum_packet_bytes=MAX_CONTROL_BYTES + MAX_PACKET_OVERHEAD_BYTES,
        on_too_long=lambda *_: None,
    )
    try:
        await client.__aenter__()
    except aiomqtt.MqttCodeError as error:
        if _code(error) in NOT_AUTHORISED:
            raise NotAuthorisedError(str(error)) from error
        raise
    try:
        yield client
    finally:
        with contextlib.suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)


def _code(error: aiomqtt.MqttCodeError) -> int | None:
    return error.rc.value if isinstance(error.rc, ReasonCode) else error.rc


async def _receipt(client: BrokerClient, identity: Identity, sent: set[bytes]) -> Receipt:
    """The next verified receipt for one of these enrolments; whatever else comes is nobody's word."""
    async for message in client.messages:
        if not isinstance(message.payload, bytes):
            continue
        try:
            receipt, _ = identity.verify_from_coordinator(message.topic.value, message.payload, MAX_CONTROL_BYTES)
        except ProtocolError:
            continue
        if isinstance(receipt, Receipt) and receipt.digest in sent:
            return receipt
    raise aiomqtt.MqttError("the connection ended")


def is_accepted(receipt: Receipt) -> bool:
    """Whether the device takes part from now on."""
    return receipt.outcome is Outcome.ACCEPTED
