"""What an agent says of receipts that are not for it."""

from pathlib import Path

import aiomqtt

from broker_coordinator.distribution.signed_messages import MessageSigner
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Manifest
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import until


async def test_receipts_for_another_device_of_the_same_name_and_key_are_said_once(
    tmp_path: Path, broker: Broker
) -> None:
    key = SigningKey.generate()
    signer = MessageSigner(key, FLEET, SHARD)
    agent = AgentProcess(tmp_path / "agent", "kitchen", broker, key.verify_key)
    agent.start()
    try:
        until(lambda: agent.status()["connected"], "it is connected")
        async with aiomqtt.Client(broker.host, broker.port) as coordinator:
            await coordinator.subscribe(f"edgeflock/v1/{FLEET}/{SHARD}/kitchen/up", qos=1)
            for number in range(10):
                receipt = signer.receipt(
                    "kitchen",
                    digest(bytes([number])),
                    reason=Reason.SEQUENCE_REUSED,
                    detail="",
                    highest_sequence=0,
                    newest_boot=0,
                )
                await coordinator.publish(receipt.topic, receipt.data, qos=1)
        until(lambda: "event=foreign_receipts" in agent.log(), "it says so")
        assert agent.log().count("event=foreign_receipts device=kitchen") == 1
    finally:
        agent.kill()


async def test_manifests_that_are_replayed_by_turns_write_no_line_each(tmp_path: Path, broker: Broker) -> None:
    key = SigningKey.generate()
    signer = MessageSigner(key, FLEET, SHARD)
    agent = AgentProcess(tmp_path / "agent", "kitchen", broker, key.verify_key)
    agent.start()

    async def publish(threshold: int, generation: int = 1) -> None:
        manifest = Manifest(1, "ab" * 32, "ab" * 32, threshold, generation, removed=True)
        publication = signer.manifest("digits", manifest)
        await outsider.publish(publication.topic, publication.data, qos=1)

    try:
        until(lambda: agent.status()["connected"], "it is connected")
        agent.feed(4)
        async with aiomqtt.Client(broker.host, broker.port) as outsider:
            for _ in range(150):
                await publish(1)
                await publish(EVERYONE)
            await publish(EVERYONE, generation=2)
        until(lambda: "event=task_removed task=digits generation=2" in agent.log(), "it has seen them all")
        assert len(agent.log().splitlines()) < 100
    finally:
        agent.kill()
