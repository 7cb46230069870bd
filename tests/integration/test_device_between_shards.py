"""A device that moves from one shard to another, or is in the wrong one: nothing it sends is lost, nor counts twice."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import Database
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal, JournalEntry
from edge_agent.core.shard_choice import Place
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import MANIFEST, Manifest, Outcome, PresenceState, Receipt, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from fleet_protocol.moved_message import MovedMessage, write_moved
from fleet_protocol.shards import shard_of
from tests.support.bench import KEY
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

OTHER = "1"
SHARDS = (SHARD, OTHER)
MOVER = next(name for name in ("pi-0", "pi-1", "pi-2", "pi-3") if shard_of(name, SHARDS) == OTHER)


class Shard:
    """One shard's coordinator with a connection to the database of its own."""

    def __init__(self, database: Database, bundle, shard: str, *, is_open: bool) -> None:
        self._shard = shard
        self.journal = Journal.open(database)
        settings = AdmissionSettings(FLEET, shard, open_enrolment=is_open, maximum_devices=100, shards=SHARDS)
        signer = MessageSigner(KEY, FLEET, shard, SHARDS)
        self.coordinator = Coordinator(self.journal, [bundle], signer, settings)

    def hear(self, device: SigningDevice, *messages: bytes, leaf: Callable = topics.up) -> list[Receipt]:
        topic = leaf(FLEET, self._shard, device.name)
        self.coordinator.handle([Message(topic, data) for data in messages], 0.0)
        down = topics.down(FLEET, self._shard, device.name)
        said = [read_envelope(each.data, MAX_CONTROL_BYTES) for each in self.said() if each.topic == down]
        return [decode_payload(envelope.payload, Receipt) for envelope in said]

    def said(self) -> list:
        return self.coordinator.publications(1000, 0.0)


@pytest.fixture
def start(database: Database, tmp_path) -> Iterator[Callable[..., Shard]]:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(buffer_size=1000))
    started: list[Shard] = []

    def start_one(shard: str, *, is_open: bool = True) -> Shard:
        started.append(Shard(database, bundle, shard, is_open=is_open))
        return started[-1]

    yield start_one
    for each in started:
        each.journal.close()


@pytest.fixture
def device() -> SigningDevice:
    return SigningDevice(MOVER)


def move(device: SigningDevice, shard: str) -> None:
    device.identity.move(Place(shard, SHARD))


def addressed(device: SigningDevice, sequence: int) -> bytes:
    return device.identity.addressed(device.update(sequence))


def outcomes(receipts: list[Receipt]) -> list[str]:
    return [receipt.reason or receipt.outcome.value for receipt in receipts]


def journalled(shard: Shard) -> list[tuple[str, int]]:
    return [(row.device, row.sequence) for row in shard.journal.updates()]


def test_update_that_both_shards_hear_counts_once_whoever_is_first(start, device):
    shards = [start(SHARD), start(OTHER)]
    for each in shards:
        move(device, each._shard)
        assert outcomes(each.hear(device, device.enrolment())) == ["accepted"]
    for sequence, order in ((1, (0, 1)), (2, (1, 0))):
        for at in order:
            move(device, shards[at]._shard)
            (receipt,) = shards[at].hear(device, addressed(device, sequence))
            assert receipt.outcome is Outcome.ACCEPTED
            assert receipt.digest == digest(device.update(sequence)), "which the device finds in its outbox"
    assert journalled(shards[0]) == [(MOVER, 1), (MOVER, 2)]


def test_refusal_of_one_shard_is_the_others_too(start, device):
    here, there = start(SHARD), start(OTHER)
    for each in (here, there):
        move(device, each._shard)
        each.hear(device, device.enrolment())
    bad = device.update(1, samples=0)
    move(device, SHARD)
    (first,) = here.hear(device, bad)
    (second,) = there.hear(device, write_moved(MovedMessage(SHARD, bad)))
    assert first.outcome is second.outcome is Outcome.REJECTED
    assert first.reason == second.reason
    assert journalled(there) == []


def test_device_in_the_wrong_shard_is_taken_and_said(start, device, caplog):
    here = start(SHARD)
    here.hear(device, device.enrolment())
    assert outcomes(here.hear(device, device.update(1), device.update(2))) == ["accepted"] * 2
    assert caplog.text.count("event=device_in_other_shard") == 1
    assert f"device={MOVER} shard=0 belongs_to=1" in caplog.text
    assert journalled(here) == [(MOVER, 1), (MOVER, 2)]


def test_device_that_was_approved_elsewhere_is_approved_where_it_comes(start, device):
    here, there = start(SHARD, is_open=False), start(OTHER, is_open=False)
    assert outcomes(here.hear(device, device.enrolment())) == [Reason.UNKNOWN_KEY.value]
    DeviceRegistry(here.journal.engine).approve(MOVER, device.key.verify_key)
    assert outcomes(here.hear(device, device.update(1))) == ["accepted"]
    move(device, OTHER)
    assert outcomes(there.hear(device, device.enrolment(), addressed(device, 2))) == ["accepted"] * 2


def test_device_that_another_shard_let_in_is_known_where_it_comes_closed_as_that_is(start, device):
    here, there = start(SHARD), start(OTHER, is_open=False)
    move(device, OTHER)
    assert outcomes(there.hear(device, device.enrolment())) == [Reason.UNKNOWN_KEY.value], "it waits there"
    move(device, SHARD)
    here.hear(device, device.enrolment())
    move(device, OTHER)
    assert outcomes(there.hear(device, device.enrolment())) == ["accepted"]
    (row,) = DeviceRegistry(there.journal.engine).devices()
    assert row.state is DeviceState.APPROVED


def test_name_that_is_bound_in_one_shard_is_bound_in_the_other(start, device):
    here, there = start(SHARD), start(OTHER)
    here.hear(device, device.enrolment())
    impostor = SigningDevice(MOVER)
    move(impostor, OTHER)
    (receipt,) = there.hear(impostor, impostor.enrolment())
    assert receipt.outcome is Outcome.REJECTED
    assert "bound to another key" in receipt.detail
    assert len(DeviceRegistry(there.journal.engine).devices()) == 1


def test_of_two_keys_that_enrol_under_one_name_in_two_shards_at_once_the_first_is_let_in(
    start, device, monkeypatch, caplog
):
    here, there = start(SHARD), start(OTHER)
    impostor = SigningDevice(MOVER)
    move(impostor, OTHER)
    write, said = Journal.write, []

    def enrol_the_other_first(journal: Journal, entry: JournalEntry) -> int:
        monkeypatch.setattr(Journal, "write", write)
        said.extend(outcomes(here.hear(device, device.enrolment())))
        return write(journal, entry)

    monkeypatch.setattr(Journal, "write", enrol_the_other_first)
    (receipt,) = there.hear(impostor, impostor.enrolment())
    assert said == ["accepted"]
    assert receipt.outcome is Outcome.REJECTED
    assert "bound to another key" in receipt.detail
    assert "batch_failed" not in caplog.text, "nothing has gone wrong"
    (row,) = DeviceRegistry(there.journal.engine).devices()
    assert row.public_key == device.key.verify_key


def test_key_that_was_revoked_before_it_came_is_refused(start, device):
    here, there = start(SHARD), start(OTHER)
    here.hear(device, device.enrolment())
    DeviceRegistry(here.journal.engine).revoke(MOVER)
    move(device, OTHER)
    assert outcomes(there.hear(device, device.enrolment())) == [Reason.REVOKED_KEY.value]


def test_last_will_that_comes_late_under_the_former_shard_shows_nobody_as_offline(start, device):
    here, there = start(SHARD), start(OTHER)
    here.hear(device, device.enrolment())
    here.hear(device, device.presence(PresenceState.ONLINE, 5), leaf=topics.state)
    will = device.presence(PresenceState.OFFLINE, 5)
    move(device, OTHER)
    there.hear(device, device.enrolment())
    there.hear(device, device.presence(PresenceState.ONLINE, 6), leaf=topics.state)
    here.hear(device, will, leaf=topics.state)
    (row,) = DeviceRegistry(here.journal.engine).devices()
    assert (row.presence, row.boot) == (PresenceState.ONLINE, 6)


def test_presence_that_is_taken_back_is_no_message(start, device):
    here = start(SHARD)
    here.hear(device, device.enrolment())
    here.hear(device, device.presence(PresenceState.ONLINE, 5), leaf=topics.state)
    assert here.hear(device, b"", leaf=topics.state) == []
    assert sum(here.journal.overview.rejections_of("").values()) == 0
    (row,) = DeviceRegistry(here.journal.engine).devices()
    assert row.presence is PresenceState.ONLINE, "its new shard says how it is"


def test_manifests_name_the_shards(start):
    here = start(SHARD)
    here.coordinator.announce_all()
    read = [read_envelope(each.data, MAX_CONTROL_BYTES) for each in here.said()]
    manifests = [decode_payload(each.payload, Manifest) for each in read if each.header.kind is MANIFEST]
    assert [each.shards for each in manifests] == [SHARDS]


@pytest.mark.parametrize("shards", [(), (SHARD,), SHARDS], ids=str)
def test_coordinator_whose_shards_were_left_out_says_so(database, tmp_path, caplog, shards):
    bundle = write_bundle(tmp_path / "bundle")
    settings = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=100, shards=shards)
    with closing(Journal.open(database)) as journal:
        coordinator = Coordinator(journal, [bundle], MessageSigner(KEY, FLEET, SHARD, shards), settings)
        coordinator.check_manifests()
        before = Manifest(0, bundle.hash, "ab" * 32)
        published = MessageSigner(KEY, FLEET, SHARD, SHARDS).manifest(TASK, before)
        coordinator.receive_manifest(Message(published.topic, published.data), 0.0)
        coordinator.subscribed_to_manifests(0.0)
        coordinator.make_versions(1.0)
    assert caplog.text.count("event=shards_left_out named_before=0,1") == (not shards)
