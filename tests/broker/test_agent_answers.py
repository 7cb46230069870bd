"""What an agent says of receipts that are not for it."""

from pathlib import Path

import aiomqtt

from broker_coordinator.distribution.signed_messages import MessageSigner
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey
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
