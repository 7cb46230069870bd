"""A process that has lost the lease of the versions, or may have, says nothing more of them; what it said is mended."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
from sqlalchemy import update

from broker_coordinator.admission.decisions import Message
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.announcements import REPEAT_SECONDS
from broker_coordinator.serving.manifest_watch import ManifestWatch
from broker_coordinator.serving.older_database import note_older_database
from broker_coordinator.storage.database import JournalUnavailableError, writing
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.lease import VERSIONS, Lease, LeaseLostError
from broker_coordinator.storage.restores import Noticed
from broker_coordinator.storage.schema import leases
from broker_coordinator.storage.stored_manifests import stored_manifests
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.kinds import Manifest
from tests.support.bench import KEY, Bench
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD


class Leader(Bench):
    """A leader whose line to its database can be cut."""

    def __init__(self, database, bundle) -> None:
        self.is_cut = False
        self.others = Journal.open(database)
        self.lease = Lease(self.others.engine, [VERSIONS])
        assert self.lease.take() is None
        super().__init__(database, bundle, confirm_lease=self.confirm)

    def confirm(self) -> None:
        if self.is_cut:
            raise JournalUnavailableError("no route to host")
        self.lease.confirm()

    def lose_lease(self) -> None:
        """Another process has it, and this one has not noticed."""
        with closing(Journal.open(self.database)) as other, writing(other.engine) as connection:
            connection.execute(update(leases).values(number=leases.c.number + 1, holder="another process"))

    def connect_anew(self) -> None:
        self.coordinator.announce_all()


@pytest.fixture
def leader(database, bundle) -> Iterator[Leader]:
    leader = Leader(database, bundle)
    yield leader
    leader.lease.release()
    for journal in (leader.journal, leader.others):
        journal.close()


def test_leader_says_what_it_knows_only_once_its_lease_is_confirmed(leader) -> None:
    leader.connect_anew()
    assert leader.manifests() == []
    leader.make_versions()
    assert len(leader.manifests()) == 1


def test_leader_that_is_cut_off_from_its_database_publishes_no_manifest_whenever_its_broker_comes_back(leader) -> None:
    leader.make_versions()
    assert len(leader.manifests()) == 1
    leader.is_cut = True
    for _ in range(3):
        leader.connect_anew()
        with pytest.raises(JournalUnavailableError):
            leader.make_versions()
        assert leader.said() == [], "by now another one may have made a newer version"
    leader.is_cut = False
    leader.make_versions()
    assert len(leader.manifests()) == 1, "nobody had: it goes on"


def test_leader_whose_lease_another_process_has_ends_before_it_says_anything(leader) -> None:
    leader.make_versions()
    leader.said()
    leader.lose_lease()
    leader.connect_anew()
    with pytest.raises(LeaseLostError, match="versions: another process has taken over"):
        leader.make_versions()
    assert leader.said() == []


def test_older_manifest_that_takes_a_newer_ones_place_is_replaced_soon_and_no_other_one_is_repeated(
    database, bundle
) -> None:
    bench, device = Bench(database, bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    older = [each for each in bench.said() if each.retained]
    bench.handle(device, *(device.update(sequence) for sequence in (1, 2, 3)))
    bench.make_versions()
    newer = [each for each in bench.said() if each.retained]
    for heard in (older, newer, newer):
        hear(bench, heard)
        bench.now += REPEAT_SECONDS
        assert bench.manifests() == []
    hear(bench, older)
    bench.now += REPEAT_SECONDS
    assert [manifest.version for manifest in bench.manifests()] == [1]
    bench.journal.close()


def hear(bench: Bench, published: list) -> None:
    assert published
    for each in published:
        bench.coordinator.receive_manifest(Message(each.topic, each.data), bench.now)


def test_shards_that_find_a_restored_database_together_begin_one_generation(database, bundle) -> None:
    bench = Bench(database, bundle)
    engine = bench.journal.engine
    heard = MessageSigner(KEY, FLEET, SHARD).manifest(TASK, Manifest(10, "ab" * 32, "cd" * 32, generation=4))
    first = watch(bench, lambda: note_older_database(engine, Noticed.MANIFESTS))
    second = watch(bench, lambda: settle(bench, first))  # which is faster, at the worst moment
    for each in (first, second):
        each.begin()
        each.receive(heard.topic, heard.data, 0.0)
    settle(bench, second)
    (task,) = TaskRegistry(engine).tasks()
    assert task.generation == 5, "which is above the one that devices know"
    bench.journal.close()


def watch(bench: Bench, is_older) -> ManifestWatch:
    return ManifestWatch(TaskRegistry(bench.journal.engine), (KEY,), FLEET, is_older=is_older)


def settle(bench: Bench, watching: ManifestWatch) -> None:
    watching.settle({TASK}, partial(stored_manifests, bench.journal.engine), 0.0)
