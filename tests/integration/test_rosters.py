"""Rosters of tasks that are learned by gossip, at a coordinator with a real database: who is in them, and when."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from broker_coordinator.admission.decisions import Message
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.roster_registry import RosterRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol import topics
from fleet_protocol.envelope import read_envelope
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import (
    ROSTER,
    UPDATE,
    Member,
    Outcome,
    PresenceState,
    Roster,
    Update,
    decode_payload,
    encode_payload,
)
from fleet_protocol.shards import shard_of
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice, packed_delta
from tests.support.fleet import FLEET, SHARD
from tests.support.led_shards import SHARDS, Shard

TOPIC = topics.roster(FLEET, TASK)
DEVICES = [SigningDevice(f"pi-{number}") for number in range(6)]
BY_HAND = replace(OPEN, open_enrolment=False)


class Gossiping:
    """A coordinator of a task that is learned on a ring."""

    def __init__(self, folder: Path, settings=OPEN) -> None:
        self.bundle = write_bundle(folder / "bundle", gossip=GossipPlan("ring"))
        self.database = folder / "fleet.db"
        self.settings = settings
        self.begin()

    def begin(self) -> None:
        self.bench = Bench(self.database, self.bundle, self.settings)

    @property
    def registry(self) -> DeviceRegistry:
        return DeviceRegistry(self.bench.journal.engine)

    @property
    def tasks(self) -> TaskRegistry:
        return TaskRegistry(self.bench.journal.engine)

    def enrol(self, *devices: SigningDevice) -> None:
        for device in devices:
            self.bench.handle(device, device.enrolment())

    def messages(self) -> list[bytes]:
        """What has been published on the topic of the roster since the last time."""
        self.bench.now += 2
        self.bench.make_versions()
        said = self.bench.said()
        assert all(each.retained for each in said if each.topic == TOPIC)
        return [each.data for each in said if each.topic == TOPIC]

    def rosters(self) -> list[Roster]:
        return [read(data) for data in self.messages()]

    def hear(self, data: bytes) -> None:
        """The broker delivers this on the roster's topic."""
        self.bench.coordinator.receive_roster(Message(TOPIC, data), self.bench.now)


def read(data: bytes, key: SigningKey = KEY) -> Roster:
    envelope = read_envelope(data, ROSTER.max_bytes)
    envelope.verify(key.verify_key, TOPIC)
    assert (envelope.header.kind, envelope.header.task) == (ROSTER, TASK)
    return decode_payload(envelope.payload, Roster)


def names(roster: Roster) -> list[str]:
    return [each.name for each in roster.members]


@pytest.fixture
def gossiping(tmp_path):
    gossiping = Gossiping(tmp_path)
    yield gossiping
    gossiping.bench.journal.close()


def test_a_roster_follows_approvals_and_revocations_and_counts_up(gossiping) -> None:
    (empty,) = gossiping.rosters()
    assert (empty.number, empty.members, empty.topology, empty.rule, empty.seed) == (1, (), "ring", "mean", 0)
    assert empty.bundle == gossiping.bundle.hash
    gossiping.enrol(*DEVICES[:4])
    (four,) = gossiping.rosters()
    assert four.number == 2
    assert four.members == tuple(Member(each.name, bytes(each.key.verify_key)) for each in DEVICES[:4])
    assert gossiping.rosters() == [], "nothing is new"
    gossiping.registry.revoke("pi-1")
    (three,) = gossiping.rosters()
    assert (three.number, names(three)) == (3, ["pi-0", "pi-3", "pi-2"]), "whoever was last takes the place"
    gossiping.registry.revoke("pi-3")
    gossiping.enrol(DEVICES[4])
    (last,) = gossiping.rosters()
    assert names(last) == ["pi-0", "pi-4", "pi-2"], "a newcomer takes the place of one that is gone"


def test_helpers_and_devices_that_wait_for_approval_are_in_no_roster(tmp_path) -> None:
    gossiping = Gossiping(tmp_path, BY_HAND)
    gossiping.enrol(*DEVICES[:2])
    assert [names(each) for each in gossiping.rosters()] == [[]]
    for device in DEVICES[:2]:
        gossiping.registry.approve(device.name, device.key.verify_key)
    assert [names(each) for each in gossiping.rosters()] == [["pi-0", "pi-1"]]
    HelperRegistry(gossiping.bench.journal.engine).allow("pi-0")
    assert [names(each) for each in gossiping.rosters()] == [["pi-1"]]
    gossiping.bench.journal.close()


def test_a_device_that_is_made_anew_keeps_its_place_with_another_key(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.rosters()
    gossiping.registry.revoke("pi-1")
    anew = SigningDevice("pi-1")
    gossiping.enrol(anew)
    (after,) = gossiping.rosters()
    assert names(after) == names(before)
    assert after.members[1] == Member("pi-1", bytes(anew.key.verify_key))
    assert after.number == before.number + 1


def test_after_a_restart_the_same_roster_is_published_again_with_its_number(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.rosters()
    gossiping.bench.restart()
    assert gossiping.rosters() == [before]
    gossiping.bench.coordinator.announce_all()
    assert gossiping.rosters() == [before], "the broker may have lost it"


def test_a_database_that_is_older_than_what_the_broker_retains_counts_past_it(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    gossiping.rosters()
    gossiping.bench.journal.close()
    shutil.copy(gossiping.database, older := gossiping.database.with_name("older.db"))
    gossiping.begin()
    gossiping.enrol(*DEVICES[3:])
    gossiping.registry.revoke("pi-0")
    (*_, retained) = gossiping.messages()
    assert read(retained).number == 2
    gossiping.bench.journal.close()
    gossiping.database = older
    gossiping.begin()
    gossiping.hear(retained)
    (own,) = gossiping.messages()
    assert (read(own).number, names(read(own))) == (3, ["pi-0", "pi-1", "pi-2"])
    gossiping.hear(own)
    gossiping.bench.now += 10
    gossiping.hear(retained)
    assert gossiping.messages() == [own], "a former leader has published once more what it knew"


def test_a_roster_that_somebody_has_replaced_or_cleared_is_published_again(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (own,) = gossiping.messages()
    gossiping.hear(own)
    assert gossiping.messages() == []
    for strange in (b"", b"junk", own[:-1] + bytes([own[-1] ^ 1])):
        gossiping.bench.now += 10
        gossiping.hear(strange)
        assert gossiping.messages() == [own]


def test_a_stranger_who_writes_on_topics_of_no_task_gets_no_answer_and_no_memory(gossiping) -> None:
    gossiping.messages()
    for number in range(100):
        strange = Message(topics.roster(FLEET, f"none-{number}"), b"junk")
        gossiping.bench.coordinator.receive_roster(strange, gossiping.bench.now)
    gossiping.bench.now += 10
    gossiping.bench.make_versions()
    assert [each.topic for each in gossiping.bench.said() if "/roster/" in each.topic] == []


def test_devices_that_come_and_go_do_not_have_the_roster_sent_to_all(gossiping) -> None:
    gossiping.enrol(*DEVICES)
    gossiping.messages()
    for boot in range(1, 4):
        gossiping.bench.present(DEVICES[0], DEVICES[0].presence(PresenceState.ONLINE, boot))
        gossiping.bench.now += 10
        assert gossiping.messages() == []


def test_the_longer_a_roster_is_the_more_changes_wait_for_one_message(gossiping, monkeypatch) -> None:
    monkeypatch.setattr("broker_coordinator.serving.rosters.SECONDS_OF_DEVICE", 10.0)
    gossiping.enrol(*DEVICES[:3])
    gossiping.rosters()
    gossiping.enrol(DEVICES[3])
    assert names(gossiping.rosters()[0]) == ["pi-0", "pi-1", "pi-2", "pi-3"], "the next one"
    gossiping.enrol(DEVICES[4])
    assert gossiping.rosters() == []
    gossiping.registry.revoke("pi-0")
    gossiping.bench.now += 30
    assert [names(each) for each in gossiping.rosters()] == [["pi-4", "pi-1", "pi-2", "pi-3"]]


def test_a_removed_task_has_no_roster_and_one_that_is_published_again_has_a_later_one(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.messages()
    gossiping.tasks.remove(TASK)
    assert gossiping.messages() == [b""]
    gossiping.bench.restart()
    gossiping.hear(before)
    assert gossiping.messages() == [b""], "the broker had retained it, or lost that it was cleared"
    gossiping.tasks.publish(gossiping.bundle)
    (roster,) = gossiping.rosters()
    assert roster.generation > read(before).generation
    assert len(roster.members) == 3


def test_another_bundle_of_the_task_has_a_roster_of_its_own_or_none(gossiping, tmp_path) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.rosters()
    gossiping.tasks.publish(write_bundle(tmp_path / "grid", gossip=GossipPlan("grid")))
    (roster,) = gossiping.rosters()
    assert (roster.topology, roster.generation, roster.number) == ("grid", before.generation + 1, before.number + 1)
    assert roster.bundle != before.bundle
    gossiping.tasks.publish(write_bundle(tmp_path / "plain"))
    assert gossiping.messages() == [b""]


def test_a_damaged_row_gives_everybody_a_place_anew_under_a_later_number(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.rosters()
    with writing(gossiping.bench.journal.engine) as connection:
        connection.exec_driver_sql("UPDATE rosters SET payload = X'ff'")
    assert RosterRegistry(gossiping.bench.journal.engine).published(TASK) is None
    gossiping.bench.restart()
    (roster,) = gossiping.rosters()
    assert (roster.number, roster.members) == (before.number + 1, before.members)


def test_too_few_devices_and_too_many_are_told_in_words(gossiping, caplog, monkeypatch) -> None:
    gossiping.enrol(*DEVICES[:1])
    gossiping.rosters()
    assert "topology 'ring' of 1 device: it takes 3 or more; add devices: approve 2 more" in caplog.text
    caplog.clear()
    monkeypatch.setattr("broker_coordinator.distribution.places.MAX_ROSTER_DEVICES", 4)
    gossiping.enrol(*DEVICES)
    (roster,) = gossiping.rosters()
    assert names(roster) == ["pi-0", "pi-1", "pi-2", "pi-3"]
    assert "2 of 6 approved devices have no place in the roster" in caplog.text
    assert "no device trains yet" not in caplog.text


def test_an_update_of_such_a_task_is_refused_with_its_reason(gossiping) -> None:
    gossiping.enrol(DEVICES[0])
    update = encode_payload(Update(16, 40, 0.5, packed_delta(1)))
    gossiping.bench.receipts()
    gossiping.bench.handle(DEVICES[0], DEVICES[0].sign(UPDATE, update, sequence=9, task=TASK))
    (receipt,) = gossiping.bench.receipts()
    assert receipt.outcome is Outcome.REJECTED
    assert "tiny is learned by gossip: no version is made of updates" in receipt.detail


def test_a_key_that_follows_signs_the_same_roster(gossiping) -> None:
    gossiping.enrol(*DEVICES[:3])
    (before,) = gossiping.messages()
    follower = SigningKey.generate()
    gossiping.settings = replace(OPEN, keys=(follower, KEY))
    gossiping.bench.journal.close()
    gossiping.bench = _with_key(gossiping, follower)
    gossiping.hear(before)
    (data,) = gossiping.messages()
    assert read(data, follower) == read(before)


def _with_key(gossiping: Gossiping, key: SigningKey) -> Bench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.bench.KEY", key)
        return Bench(gossiping.database, gossiping.bundle, gossiping.settings)


def test_only_who_leads_publishes_and_it_sees_who_is_let_in_elsewhere(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", gossip=GossipPlan("ring"))
    first, second = (Shard(tmp_path / "fleet.db", bundle, shard, leads=shard == SHARD) for shard in SHARDS)
    device = next(each for each in DEVICES if shard_of(each.name, SHARDS) == SHARDS[1])
    moved = SigningDevice(device.name, device.key, shard=SHARDS[1])
    second.hear(moved, moved.enrolment())
    said = {}
    for shard in (first, second):
        shard.coordinator.make_versions(10.0)
        said[shard] = [each.data for each in shard.coordinator.publications(100, 10.0) if each.topic == TOPIC]
        shard.journal.close()
    assert [names(read(data)) for data in said[first]] == [[device.name]]
    assert said[second] == []
