"""The shipped broker-coordinator in its own process, on a real Mosquitto, with devices reduced to their protocol."""

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from broker_coordinator.aggregation.version import version_zero
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE, blob_hash
from fleet_protocol.chunks import chunk_count
from fleet_protocol.codec import apply_difference, read_weights, write_weights
from fleet_protocol.encryption import EncryptedPayload
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, key_id
from fleet_protocol.kinds import ENCRYPTED_UPDATE, Outcome, PresenceState, encode_payload
from fleet_protocol.limits import MAX_CHUNK_BYTES
from fleet_protocol.topics import PackedWeights
from tests.support.bundles import TASK, write_bundle
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.device import SigningDevice
from tests.support.waiting import until

Sent = tuple[ConnectedDevice, int, bytes]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The tiny task with graphs that take three chunks each."""
    return write_bundle(tmp_path / "bundle", graph_bytes=5 * MAX_CHUNK_BYTES // 2)


def journalled(coordinator: CoordinatorProcess) -> list[tuple[str, int]]:
    with coordinator.journal() as journal:
        return [(row.device, row.sequence) for row in journal.updates()]


def test_receipt_says_that_the_update_is_journalled(coordinator, connect) -> None:
    device = connect("kitchen-pi")
    receipt = device.tell(device.update(1))
    assert journalled(coordinator) == [("kitchen-pi", 1)]
    assert (receipt.outcome, receipt.highest_sequence) == (Outcome.ACCEPTED, 1)


def test_update_that_comes_twice_is_receipted_twice_and_applied_once(coordinator, connect) -> None:
    device = connect("kitchen-pi")
    data = device.update(1)
    named = device.publish(data)
    device.publish(data)
    until(lambda: len(device.received.receipts.get(named, [])) == 2, "two receipts")
    assert {receipt.outcome for receipt in device.received.receipts[named]} == {Outcome.ACCEPTED}
    assert journalled(coordinator) == [("kitchen-pi", 1)]


def test_full_buffer_makes_a_version_that_a_device_can_fetch(coordinator, connect, bundle) -> None:
    device = connect("kitchen-pi")
    for sequence in (1, 2, 3):
        device.tell(device.update(sequence))
    manifest = until(lambda: (m := device.received.manifests[TASK]).version == 1 and m, "version 1 is announced")
    assert manifest.bundle == bundle.hash
    assert fetch(device, manifest.weights, sequence=1) == newest_weights(coordinator)
    assert connect("late-pi").received.manifests[TASK] == manifest


ONE_OF_EACH = {Reason.SEQUENCE_REUSED: 1, Reason.WRONG_HASH: 1}


def counts_of(device: str, coordinator: CoordinatorProcess) -> dict[Reason, int]:
    with coordinator.journal() as journal:
        return journal.overview.rejections_of(device)


def newest_weights(coordinator: CoordinatorProcess) -> bytes:
    with coordinator.journal() as journal:
        return journal.newest_version(TASK).weights


def fetch(device: ConnectedDevice, blob: str, sequence: int, chunks: list[int] | None = None) -> bytes:
    """Subscribe, ask, gather, and check the hash."""
    device.listen_for(blob)
    device.publish(device.blob_request(blob, chunks or [], sequence))
    first = until(lambda: device.received.chunks.get((blob, 0)), "the first chunk")[0]
    count = -(-first.total_bytes // MAX_CHUNK_BYTES)
    until(lambda: all((blob, number) in device.received.chunks for number in range(count)), f"all {count} chunks")
    data = b"".join(device.received.chunks[blob, number][0].data for number in range(count))
    assert blob_hash(data) == blob
    return data


def test_bundle_files_come_in_chunks_and_shared_by_who_asks_together(coordinator, connect, bundle) -> None:
    devices = [connect(name) for name in ("kitchen-pi", "garden-pi", "attic-pi")]
    blob = bundle.description.files[TRAIN_FILE]
    assert fetch(devices[0], bundle.hash, sequence=1) == bundle.files[DESCRIPTION_FILE]
    count = chunk_count(len(bundle.files[TRAIN_FILE]))
    assert count == 3
    ask_together(coordinator, devices, blob, lambda device: device.blob_request(blob, [], sequence=2))
    for device in devices:
        until(lambda received=device.received: len([b for b, _ in received.chunks if b == blob]) == count, "all chunks")
    # Whatever else was on its way to the first device comes before the receipt of a later message.
    devices[0].tell(devices[0].update(1))
    copies = [len(chunks) for (name, _), chunks in devices[0].received.chunks.items() if name == blob]
    assert copies == [1] * count, "asking together costs no more than asking alone"


def ask_together(
    coordinator: CoordinatorProcess,
    devices: list[ConnectedDevice],
    wanted: str | PackedWeights,
    request: Callable[[ConnectedDevice], bytes],
) -> None:
    """All ask while the coordinator is paused: it receives all requests at the same moment."""
    for device in devices:
        device.listen_for(wanted)
    with coordinator.paused():
        for device in devices:
            device.hand_over(request(device))


def test_device_goes_from_any_version_to_any_other_by_one_difference(coordinator, connect, bundle) -> None:
    device = connect("kitchen-pi")
    for sequence in range(1, 13):
        device.tell(device.update(sequence, base_version=(sequence - 1) // 3))
    until(lambda: newest_version(coordinator) == 4, "four versions")
    with coordinator.journal() as journal:
        files = [version.weights for version in journal.versions(TASK)]
    weights = [read_weights(file, bundle.description.parameters) for file in files]
    shapes = bundle.description.shapes
    for sequence, (base, version) in enumerate([(0, 1), (3, 4), (0, 4), (None, 4), (99, 4)]):
        packed = fetch_packed(device, PackedWeights(TASK, version, base), sequence)
        start = None if base in (None, 99) else weights[base]
        assert write_weights(apply_difference(start, packed, shapes), bundle.description.parameters) == files[version]
        assert len(packed) < len(files[version]) / 3
    device.publish(device.weights_request(5, 4, sequence=90))
    device.publish(device.weights_request(4, 3, sequence=90))
    device.tell(device.update(13, base_version=4))
    until(lambda: counts_of("kitchen-pi", coordinator) == ONE_OF_EACH, "both are counted")


def fetch_packed(device: ConnectedDevice, wanted: PackedWeights, sequence: int) -> bytes:
    device.listen_for(wanted)
    device.publish(device.weights_request(wanted.version, wanted.base, sequence))
    return until(lambda: device.received.chunks.get((wanted, 0)), f"{wanted}")[0].data


def test_who_asks_for_the_same_difference_together_shares_it(coordinator, connect) -> None:
    devices = [connect(name) for name in ("kitchen-pi", "garden-pi", "attic-pi")]
    for sequence in (1, 2, 3):
        devices[0].tell(devices[0].update(sequence))
    until(lambda: newest_version(coordinator) == 1, "version 1")
    wanted = PackedWeights(TASK, 1, 0)
    ask_together(coordinator, devices, wanted, lambda device: device.weights_request(1, 0, sequence=1))
    for device in devices:
        until(lambda received=device.received: (wanted, 0) in received.chunks, "the difference")
    devices[0].tell(devices[0].update(4))
    assert len(devices[0].received.chunks[wanted, 0]) == 1


def test_encrypted_updates_make_the_versions_that_open_ones_make(coordinator, connect) -> None:
    device = connect("kitchen-pi")
    signed = [device.update(sequence, recipient=coordinator.public_key) for sequence in (1, 2, 3)]
    for data in signed[:2]:
        assert device.tell(data).outcome is Outcome.ACCEPTED
    coordinator.kill()
    coordinator.start()
    assert device.publish_until_receipt(signed[2]).outcome is Outcome.ACCEPTED
    until(lambda: newest_version(coordinator) == 1, "version 1, from updates opened before and after a restart")
    for sequence in (4, 5, 6):
        device.tell(device.update(sequence, base_version=1))
    until(lambda: newest_version(coordinator) == 2, "version 2")
    with coordinator.journal() as journal:
        rows = list(journal.updates(TASK))
    assert [row.envelope for row in rows[:3]] == signed


def test_update_encrypted_for_another_coordinator_is_refused_by_name(coordinator, connect) -> None:
    device, stranger = connect("kitchen-pi"), SigningKey.generate().verify_key
    receipt = device.tell(device.update(1, recipient=stranger))
    assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, Reason.WRONG_RECIPIENT)
    assert key_id(stranger).hex() in receipt.detail
    garbled = encode_payload(EncryptedPayload(key_id(coordinator.public_key), bytes(100)))
    assert device.tell(device.sign(ENCRYPTED_UPDATE, garbled, sequence=2, task=TASK)).reason == Reason.MALFORMED
    assert journalled(coordinator) == []


def test_unknown_blob_and_replayed_request_are_counted_and_not_answered(coordinator, connect, bundle) -> None:
    device = connect("kitchen-pi")
    request = device.blob_request(bundle.hash, [], sequence=7)
    device.listen_for(bundle.hash)
    device.publish(request)
    until(lambda: device.received.chunks.get((bundle.hash, 0)), "the chunk")
    device.publish(request)
    device.publish(device.blob_request("ab" * 32, [], sequence=8))
    device.tell(device.update(1))
    until(lambda: counts_of("kitchen-pi", coordinator) == ONE_OF_EACH, "both are counted")
    assert len(device.received.chunks[bundle.hash, 0]) == 1


def test_bad_messages_are_refused_one_by_one_while_good_ones_pass(coordinator, connect) -> None:
    device, neighbour, stranger = connect("kitchen-pi"), connect("garden-pi"), SigningDevice("kitchen-pi")
    broken = bytearray(device.update(90))
    broken[-1] ^= 1
    bad = {
        device.update(10, task="another"): Reason.UNKNOWN_TASK,
        device.update(11, base_version=99): Reason.UNKNOWN_VERSION,
        device.update(12, samples=0): Reason.OUT_OF_BOUNDS,
        device.update(13, loss=float("nan")): Reason.NOT_FINITE,
        device.update(14, packed=b"\x01\x00"): Reason.MALFORMED,
    }
    for data in bad:
        device.publish(data)
    for data in (b"", b"\x00" * 2000, bytes(broken), stranger.update(1), neighbour.update(1)):
        device.publish(data)
    neighbour.publish(b"garbage", neighbour.state)
    assert device.tell(device.update(91)).outcome is Outcome.ACCEPTED
    assert neighbour.tell(neighbour.update(1)).outcome is Outcome.ACCEPTED
    assert {data: device.receipt(data).reason for data in bad} == {data: reason.value for data, reason in bad.items()}
    assert {device.receipt(data).outcome for data in bad} == {Outcome.REJECTED}
    assert device.tell(device.update(91, samples=3)).reason == Reason.SEQUENCE_REUSED
    with coordinator.journal() as journal:
        unproven = journal.overview.rejections_of("")
    assert unproven[Reason.BAD_SIGNATURE] == unproven[Reason.UNKNOWN_KEY] == unproven[Reason.WRONG_TOPIC] == 1
    assert journalled(coordinator) == [("kitchen-pi", 91), ("garden-pi", 1)]


def test_killed_coordinator_loses_nothing_and_applies_nothing_twice(coordinator, connect) -> None:
    devices = [connect("kitchen-pi"), connect("garden-pi")]
    sent = []
    for sequence in range(1, 31):
        for device in devices:
            data = device.update(sequence, base_version=coordinator_version(device))
            device.publish(data)
            sent.append((device, sequence, data))
        if sequence % 6 == 0:
            coordinator.kill()
            coordinator.start()
            device.publish_until_receipt(data)
    for device, _, data in sent:
        device.publish_until_receipt(data)
    check_nothing_lost_or_twice(coordinator, sent)


def test_killed_and_wiped_broker_loses_nothing_and_applies_nothing_twice(broker, coordinator, connect) -> None:
    devices = [connect("kitchen-pi"), connect("garden-pi")]
    sent = []
    for sequence in range(1, 13):
        for device in devices:
            data = device.update(sequence, base_version=coordinator_version(device))
            device.publish(data)
            sent.append((device, sequence, data))
        if sequence % 4 == 0:
            broker.kill()
            broker.wipe()
            broker.start()
            device.publish_until_receipt(data)
    for device, _, data in sent:
        device.publish_until_receipt(data)
    check_nothing_lost_or_twice(coordinator, sent)
    # The broker has lost its retained messages too; a new device still receives the current manifest.
    assert connect("late-pi").received.manifests[TASK].version == newest_version(coordinator)


def coordinator_version(device: ConnectedDevice) -> int:
    return device.received.manifests[TASK].version


def newest_version(coordinator: CoordinatorProcess) -> int:
    with coordinator.journal() as journal:
        return journal.newest_version(TASK).number


def check_nothing_lost_or_twice(coordinator: CoordinatorProcess, sent: list[Sent]) -> None:
    """Every update with an accepting receipt is in the journal once, and nothing else is."""
    accepted = {(d.name, sequence) for d, sequence, data in sent if d.receipt(data).outcome is Outcome.ACCEPTED}
    assert accepted
    assert Counter(journalled(coordinator)) == Counter(accepted)
    until(lambda: newest_version(coordinator) == len(accepted) // 3, "every full buffer is a version")
    with coordinator.journal() as journal:
        held = Counter(row.aggregate for row in journal.updates() if row.aggregate is not None)
    assert held == dict.fromkeys(range(1, len(accepted) // 3 + 1), 3)


def test_full_disk_acknowledges_nothing_and_recovers(broker, coordinator, connect) -> None:
    device = connect("kitchen-pi")
    first = device.update(1)
    device.tell(first)
    coordinator.fill_disk()
    sent = [device.update(sequence) for sequence in range(2, 32)]
    for data in sent:
        device.publish(data)
    until(lambda: "journal_unavailable" in coordinator.log(), "it says that the disk is full")
    assert journalled(coordinator) == [("kitchen-pi", 1)]
    assert not any(digest(data) in device.received.receipts for data in sent)
    coordinator.free_disk()
    assert device.receipt(sent[-1])
    until(lambda: "journal_recovered" in coordinator.log(), "it says that all is well again")
    assert coordinator.log().count("journal_unavailable") == 1
    check_nothing_lost_or_twice(
        coordinator, [(device, sequence, data) for sequence, data in enumerate([first, *sent], 1)]
    )


def test_presence_shows_in_the_list_of_devices(coordinator, connect) -> None:
    device = connect("kitchen-pi")
    device.publish(device.presence(PresenceState.ONLINE, 3), device.state, retain=True)
    until(lambda: coordinator.devices("list")[0]["presence"] == "online", "the presence is seen")
    (listed,) = coordinator.devices("list")
    assert (listed["name"], listed["state"], listed["boot"]) == ("kitchen-pi", "approved", 3)
    assert listed["public_key"] == bytes(device.key.verify_key).hex()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_approval_needs_no_restart(tmp_path, broker, bundle, protocol) -> None:
    coordinator = CoordinatorProcess(
        tmp_path / "closed", broker, [tmp_path / "bundle"], enrolment="closed", protocol=protocol
    )
    coordinator.start()
    device = ConnectedDevice("kitchen-pi", broker, coordinator.public_key)
    try:
        assert device.enrol().reason == Reason.UNKNOWN_KEY
        key = key_id(device.key.verify_key).hex()
        (pending,) = coordinator.devices("list")
        assert (pending["state"], pending["presence"], pending["key_id"]) == ("pending", None, key)
        assert coordinator.devices("approve", "kitchen-pi", key)[0]["state"] == "approved"
        assert device.tell(device.update(1)).outcome is Outcome.ACCEPTED
        coordinator.devices("revoke", "kitchen-pi")
        assert device.tell(device.update(2)).reason == Reason.REVOKED_KEY
        assert coordinator.stop() == 0
    finally:
        device.close()
        coordinator.kill()


def test_tasks_are_published_paused_and_rolled_back_without_a_restart(tmp_path, coordinator, connect) -> None:
    device = connect("kitchen-pi")
    roses = write_bundle(tmp_path / "roses", task="roses")
    coordinator.tasks("publish", str(tmp_path / "roses"))
    manifest = until(lambda: device.received.manifests.get("roses"), "the new task is announced")
    assert (manifest.version, manifest.bundle) == (0, roses.hash)
    coordinator.tasks("pause", TASK)
    late = device.update(1)
    until(lambda: device.tell(late).reason == Reason.TASK_PAUSED, "updates wait")
    coordinator.tasks("resume", TASK)
    assert until(lambda: device.tell(late).outcome is Outcome.ACCEPTED, "the same update is taken")
    for sequence in (2, 3):
        device.tell(device.update(sequence))
    until(lambda: device.received.manifests[TASK].version == 1, "version 1 is announced")
    assert coordinator.tasks("rollback", TASK, "0")["version"] == 2
    until(lambda: device.received.manifests[TASK].version == 2, "the rollback is announced")
    assert newest_weights(coordinator) == version_zero(load_bundle(tmp_path / "bundle")).weights


def test_sigterm_ends_it_cleanly_and_its_session_waits(coordinator, connect) -> None:
    device = connect("kitchen-pi")
    assert coordinator.stop() == 0
    data = device.update(1)
    device.publish(data)
    coordinator.start()
    assert device.receipt(data).outcome is Outcome.ACCEPTED
    assert "session_kept=True" in coordinator.log()


def test_unreachable_broker_is_one_line_and_is_waited_for(tmp_path, broker, bundle) -> None:
    broker.stop()
    coordinator = CoordinatorProcess(tmp_path / "early", broker, [tmp_path / "bundle"])
    coordinator.start()
    until(lambda: "broker_unreachable" in coordinator.log(), "it says that there is no broker")
    broker.start()
    until(lambda: "broker_connected" in coordinator.log(), "it finds the broker")
    assert coordinator.stop() == 0
    assert coordinator.log().count("broker_unreachable") == 1


def test_broker_that_hangs_up_is_tried_again(tmp_path, broker, bundle) -> None:
    broker.stop()
    with socket.create_server((broker.host, broker.port)) as mute:
        coordinator = CoordinatorProcess(tmp_path / "early", broker, [tmp_path / "bundle"])
        coordinator.start()
        for _ in range(2):
            connection, _ = mute.accept()
            connection.close()
    assert coordinator.stop() == 0


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "broker_coordinator.cli", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)


def test_keygen_writes_a_private_file_once(tmp_path) -> None:
    file = tmp_path / "coordinator.key"
    made = command("keygen", str(file))
    assert made.returncode == 0
    assert len(made.stdout.strip()) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    again = command("keygen", str(file))
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    assert file.read_text() == text


def test_what_the_operator_must_mend_is_one_line_and_exit_2(tmp_path, broker, bundle) -> None:
    coordinator = CoordinatorProcess(tmp_path / "c", broker, [tmp_path / "bundle"])
    text = coordinator.configuration.read_text()
    key_file = coordinator.configuration.parent / "coordinator.key"

    def complaint() -> str:
        done = command("run", "--config", str(coordinator.configuration))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        return done.stderr

    coordinator.configuration.write_text("flet = 1\n" + text)
    assert "'flet'" in complaint()
    coordinator.configuration.write_text(text)
    key_file.chmod(0o644)
    assert "chmod 600" in complaint()
    key_file.chmod(0o600)
    (tmp_path / "bundle" / TRAIN_FILE).write_bytes(b"altered")
    assert TRAIN_FILE in complaint()
    (tmp_path / "bundle" / TRAIN_FILE).unlink()
    assert "export the bundle again" in complaint()
    key_file.unlink()
    assert "keygen" in complaint()
    coordinator.configuration.unlink()
    assert "coordinator.toml" in complaint()


def test_other_bundle_under_the_same_name_is_said_once_and_the_old_one_stays_served(
    tmp_path, coordinator, connect, bundle
) -> None:
    device = connect("kitchen-pi")
    coordinator.stop()
    before = len(coordinator.log())
    write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(buffer_size=7))
    coordinator.start_serving()
    assert device.tell(device.update(1)).outcome == Outcome.ACCEPTED
    assert connect("late-pi").received.manifests[TASK].bundle == bundle.hash
    assert coordinator.log()[before:].count("event=bundle_not_published") == 1
