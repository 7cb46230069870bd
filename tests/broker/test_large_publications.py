"""A publication that is larger than any message of the protocol costs no memory and holds nothing up."""

import re
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleet_host.publication_limit import ENDS_THAT_SHOW
from fleet_protocol import topics
from fleet_protocol.bundle_files import TRAIN_FILE
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.limits import MAX_CHUNK_BYTES, MIB
from tests.support.broker import Broker
from tests.support.bundles import write_bundle
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import until

LARGE_BYTES = 60 * MIB
ROOM_BYTES = 8 * MIB


@pytest.fixture
def generous_broker(tmp_path: Path) -> Iterator[Broker]:
    """As Mosquitto is without `max_packet_size`, but for this test's needs."""
    broker = Broker(tmp_path / "generous", maximum_packet_bytes=2 * LARGE_BYTES)
    broker.start()
    yield broker
    broker.kill()


def publish_large(broker: Broker) -> None:
    """By an outsider, who is told that the broker has all of it."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    sent = client.publish(topics.up(FLEET, SHARD, "stranger"), bytes(LARGE_BYTES), qos=1)
    until(sent.is_published, "the broker has the large publication")
    client.disconnect()
    client.loop_stop()


def peak_bytes(process: CoordinatorProcess) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_coordinator_reads_no_publication_that_is_larger_than_any_message(
    tmp_path, generous_broker, bundle, protocol
) -> None:
    coordinator = CoordinatorProcess(
        tmp_path / "coordinator", generous_broker, [tmp_path / "bundle"], protocol=protocol
    )
    coordinator.start()
    device = ConnectedDevice("kitchen-pi", generous_broker, coordinator.public_key)
    try:
        device.enrol()
        assert device.tell(device.update(1)).outcome is Outcome.ACCEPTED
        before = peak_bytes(coordinator)
        publish_large(generous_broker)
        assert device.tell(device.update(2)).outcome is Outcome.ACCEPTED
        assert peak_bytes(coordinator) < before + ROOM_BYTES
        coordinator.stop()
        coordinator.start()
        assert device.tell(device.update(3)).outcome is Outcome.ACCEPTED
        check_counted_once(coordinator, protocol)
    finally:
        device.close()
        coordinator.kill()


def check_counted_once(coordinator: CoordinatorProcess, protocol: str) -> None:
    """An MQTT 5 broker keeps it back; else it is read and acknowledged, so that it never comes again."""
    with coordinator.journal() as journal:
        counts = journal.overview.rejections_of("")
    lines = [line for line in coordinator.log().splitlines() if "too_large" in line]
    if protocol == "5":
        assert (counts, lines) == ({}, [])
        return
    assert counts == {Reason.TOO_LARGE: 1}
    (line,) = lines
    assert topics.up(FLEET, SHARD, "stranger") in line
    assert f"a packet of {LARGE_BYTES + len(topics.up(FLEET, SHARD, 'stranger')) + 4} bytes; at most 4195328" in line


@pytest.mark.parametrize(("protocol", "connections"), [("5", 1), ("3.1.1", 1 + ENDS_THAT_SHOW)])
def test_chunk_that_the_broker_does_not_take_is_named_and_holds_nothing_up(tmp_path, protocol, connections) -> None:
    bundle = write_bundle(tmp_path / "bundle", graph_bytes=MAX_CHUNK_BYTES)
    broker = Broker(tmp_path / "narrow", maximum_packet_bytes=MAX_CHUNK_BYTES // 2)
    broker.start()
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "bundle"], protocol=protocol)
    coordinator.start()
    device = ConnectedDevice("kitchen-pi", broker, coordinator.public_key)
    try:
        device.enrol()
        device.publish(device.blob_request(bundle.description.files[TRAIN_FILE], [], sequence=1))
        until(lambda: "publication_too_large" in coordinator.log(), "it names what does not pass")
        assert device.tell(device.update(1)).outcome is Outcome.ACCEPTED
        assert coordinator.log().count("broker_connected") == connections
        assert coordinator.log().count("event=publication_ends_connections") == (connections > 1)
    finally:
        device.close()
        coordinator.kill()
        broker.kill()
