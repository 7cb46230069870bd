"""Generations of a task: another bundle under its name, a renewed or restored database, a removed task."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from broker_coordinator.admission.decisions import Message
from broker_coordinator.commands.export import model_of
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.lost_versions import MAX_LOST_GENERATIONS
from broker_coordinator.serving.manifest_watch import LONGEST_SECONDS, QUIET_SECONDS, is_ahead
from broker_coordinator.storage.journal import Journal, JournalEntry
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.task_rows import PAYLOADS_PER_STEP
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Manifest, Outcome
from fleet_protocol.limits import MAX_GENERATION, MAX_NAMED_GENERATION
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import TINY_SHAPES, SigningDevice
from tests.support.fleet import FLEET, SHARD

BUFFER = 3
PLANS = [
    AggregationPlan(buffer_size=BUFFER),
    AggregationPlan(buffer_size=BUFFER, strategy="ca2fl"),
    AggregationPlan(buffer_size=BUFFER, strategy="aced"),
    AggregationPlan(buffer_size=BUFFER, strategy="ef21"),
    AggregationPlan(buffer_size=1, strategy="fedasync"),
]


OTHER_SHAPES = [[6, 8], [6]]


def bundle_with(folder, plan: AggregationPlan, shapes: list[list[int]] | None = None):
    update = UpdatePlan(0.5, feedback="ef21" if plan.strategy == "ef21" else "residual")
    parameters = [Parameter(f"part {number}", shape) for number, shape in enumerate(shapes or TINY_SHAPES)]
    return write_bundle(folder, aggregation=plan, update=update, parameters=parameters)


class Fleet:
    """Three devices that send one update each, again and again, always from the newest version."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.generation = 0
        self.shapes = TINY_SHAPES
        self._sequence = 0
        self.devices = [SigningDevice(name) for name in ("kitchen-pi", "garden-pi", "attic-pi")]
        for device in self.devices:
            bench.handle(device, device.enrolment())
        bench.said()

    def send(self, rounds: int = 1) -> list[str]:
        """The reasons in the receipts; empty where an update is accepted."""
        reasons = []
        for _ in range(rounds):
            self._sequence += 1
            for device in self.devices:
                base = self.bench.journal.newest_number(TASK)
                life = 7 + self.generation
                data = device.update(
                    self._sequence, base_version=base, generation=self.generation, life=life, shapes=self.shapes
                )
                self.bench.handle(device, data)
                reasons += [receipt.reason for receipt in self.bench.receipts()]
                self.bench.make_versions()
        return reasons


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.strategy)
def test_another_bundle_begins_a_generation_with_its_own_weights_and_versions_count_on(
    database, tmp_path, plan
) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", plan))
    fleet = Fleet(bench)
    assert set(fleet.send(4)) == {""}
    last = bench.journal.newest_number(TASK)
    changed = bundle_with(tmp_path / "second", plan, OTHER_SHAPES)
    registry = TaskRegistry(bench.journal.engine)
    published = registry.publish(changed)
    assert registry.publish(changed) == published, "a second time changes nothing"
    assert (published.generation, published.first_version) == (1, last + 1)
    bench.coordinator.reload_if_changed()
    (manifest,) = bench.manifests()
    assert (manifest.generation, manifest.version, manifest.bundle) == (1, last + 1, changed.hash)
    assert set(fleet.send()) == {Reason.OLD_GENERATION}
    fleet.generation, fleet.shapes = 1, OTHER_SHAPES
    (device, *_) = fleet.devices
    bench.handle(device, device.update(90, base_version=last, generation=1, life=8, shapes=OTHER_SHAPES))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.UNKNOWN_VERSION], "of the bundle before"
    assert set(fleet.send(4)) == {""}
    bench.restart()
    assert set(fleet.send(2)) == {""}
    made = bench.journal.newest_number(TASK) - published.first_version
    assert made == 6 * len(fleet.devices) // (1 if plan.strategy == "fedasync" else BUFFER)
    found = verify_versions(bench.journal, TASK)
    assert (found.start, found.compared, found.difference) == (last + 1, made, None)
    assert model_of(bench.journal, TASK, None, single=False)
    with pytest.raises(ConfigurationError, match="is of another bundle"):
        VersionRegistry(bench.journal.engine).roll_back(TASK, last)
    assert VersionRegistry(bench.journal.engine).roll_back(TASK, last + 1).restored == last + 1


def test_updates_that_wait_for_a_former_bundle_are_set_aside_and_shown(database, tmp_path) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1), device.update(2))
    TaskRegistry(bench.journal.engine).publish(bundle_with(tmp_path / "second", PLANS[0], OTHER_SHAPES))
    assert [each.sequence for each in bench.journal.overview.payloads_set_aside(TASK, 9)] == [1, 2]
    bench.said()
    bench.handle(device, device.update(1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED], "what was receipted stays so"


def test_update_that_is_decided_while_the_operator_changes_its_task_is_decided_again(
    database, tmp_path, monkeypatch
) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    operator, write = TaskRegistry(Journal.open(database).engine), Journal.write

    def renew_first(journal: Journal, entry: JournalEntry) -> int:
        monkeypatch.setattr(Journal, "write", write)
        operator.renew(TASK)
        return write(journal, entry)

    monkeypatch.setattr(Journal, "write", renew_first)
    bench.handle(device, device.update(1))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.OLD_GENERATION]
    assert list(bench.journal.updates()) == []


def test_renewed_task_refuses_what_was_trained_before_and_counts_nothing_twice(database, tmp_path) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    fleet = Fleet(bench)
    fleet.send(2)
    registry = TaskRegistry(bench.journal.engine)
    assert registry.renew(TASK).generation == 1
    assert registry.renew(TASK, after_generation=7).generation == 8
    (first, *_) = fleet.devices
    applied, late = first.update(1, life=7), first.update(9, base_version=2, life=7)
    bench.said()
    bench.handle(first, applied, late, late)
    assert [receipt.reason for receipt in bench.receipts()] == ["", Reason.OLD_GENERATION, Reason.OLD_GENERATION]
    fleet.generation = 8
    assert set(fleet.send()) == {""}
    assert verify_versions(bench.journal, TASK).difference is None
    assert len(list(bench.journal.updates())) == 9


@pytest.mark.parametrize("removed_before", [False, True], ids=["served", "removed"])
def test_last_generation_stays_readable_as_whatever_would_need_another_is_refused_and_changes_nothing(
    database, tmp_path, removed_before
) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    registry = TaskRegistry(bench.journal.engine)
    last = MAX_GENERATION - removed_before
    assert registry.renew(TASK, after_generation=last - 1).generation == last
    if removed_before:
        assert registry.remove(TASK).generation == MAX_GENERATION
    else:
        device = SigningDevice("kitchen-pi")
        bench.handle(device, device.enrolment(), device.update(1, generation=last))
        bench.coordinator.reload_if_changed()
        assert [manifest.generation for manifest in bench.manifests()] == [MAX_GENERATION]
    changes: list[Callable[[], object]] = [
        lambda: registry.publish(bundle_with(tmp_path / "second", PLANS[0], OTHER_SHAPES)),
        lambda: registry.renew(TASK),
        lambda: registry.renew(TASK, after_generation=MAX_GENERATION),
    ]
    before = registry.served().readable, registry.removed_tasks(), list(bench.journal.updates())
    for change in changes if removed_before else [*changes, lambda: registry.remove(TASK)]:
        with pytest.raises(
            ConfigurationError, match=f"no generation is left after {MAX_GENERATION}.*another task name"
        ):
            change()
    assert before == (registry.served().readable, registry.removed_tasks(), list(bench.journal.updates()))


def test_removed_task_leaves_the_database_and_its_devices_are_told(database, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("broker_coordinator.storage.task_rows.PAYLOADS_PER_STEP", 2)
    assert PAYLOADS_PER_STEP > 2
    roses = write_bundle(tmp_path / "roses", task="roses", aggregation=AggregationPlan(buffer_size=1))
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    registry = TaskRegistry(bench.journal.engine)
    registry.publish(roses)
    fleet = Fleet(bench)
    device = fleet.devices[0]
    bench.handle(device, device.update(50, task="roses"))
    bench.make_versions()
    fleet.send(3)
    bench.said()
    removed = registry.remove(TASK)
    assert removed.removed
    bench.coordinator.reload_if_changed()
    farewells = [manifest for manifest in bench.manifests() if manifest.removed]
    assert [(each.generation, each.version) for each in farewells] == [(1, 4)]
    assert len(list(bench.journal.payloads(TASK))) <= 1, "the journal's last row stays, by which it counts"
    assert bench.journal.newest_version(TASK) is None
    assert set(fleet.send()) == {Reason.UNKNOWN_TASK}
    bench.restart()
    bench.handle(device, device.update(51, task="roses", base_version=1))
    bench.make_versions()
    assert bench.journal.newest_number("roses") == 2, "positions have not gone back"
    with pytest.raises(ConfigurationError, match="serves no task 'tiny'; it serves roses"):
        registry.set_paused(TASK, paused=True)
    registry.remove(TASK)
    again = registry.publish(bundle_with(tmp_path / "second", PLANS[0]))
    assert (again.generation, again.first_version) == (2, 4)
    bench.coordinator.reload_if_changed()
    fleet.generation = 2
    assert set(fleet.send(2)) == {""}
    assert verify_versions(bench.journal, TASK).difference is None


def manifest_message(manifest: Manifest, key: SigningKey = KEY) -> Message:
    published = MessageSigner(key, FLEET, SHARD).manifest(TASK, manifest)
    return Message(published.topic, published.data)


@pytest.mark.parametrize("restored", [True, False], ids=["restored", "made anew"])
def test_coordinator_that_finds_a_later_manifest_of_its_own_begins_a_generation_after_it(
    database, tmp_path, caplog, restored
) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    fleet = Fleet(bench)
    fleet.send(2 if restored else 0)
    own = bench.coordinator
    own.check_manifests()
    own.announce_all()
    own.subscribed_to_manifests(bench.now)
    assert own.is_checking_manifests(bench.now)
    assert own.publications(10, bench.now) == [], "nothing is announced before the broker has told"
    known = Manifest(10, "ab" * 32, "cd" * 32, generation=4)
    own.receive_manifest(manifest_message(Manifest(99, "ab" * 32, "cd" * 32), SigningKey.generate()), bench.now)
    own.receive_manifest(manifest_message(known), bench.now)
    bench.make_versions()
    assert not own.is_checking_manifests(bench.now)
    (manifest,) = bench.manifests()
    assert (manifest.generation, manifest.version) == (5, 2 if restored else 0)
    assert caplog.text.count("event=generation_begun") == 1
    assert caplog.text.count("event=manifest_ignored") == 1
    own.receive_manifest(manifest_message(Manifest(200, "ab" * 32, "cd" * 32, generation=9)), bench.now)
    bench.make_versions()
    assert bench.manifests() == [], "only what was there at the start counts"


def test_later_manifest_that_an_earlier_key_of_the_coordinator_has_signed_counts_too(tmp_path) -> None:
    earlier = SigningKey.generate()
    bundle = bundle_with(tmp_path / "first", PLANS[0])
    bench = Bench(tmp_path / "c.db", bundle, replace(OPEN, keys=(KEY, earlier)))
    bench.coordinator.check_manifests()
    bench.coordinator.subscribed_to_manifests(bench.now)
    later = Manifest(10, "ab" * 32, "cd" * 32, generation=4)
    bench.coordinator.receive_manifest(manifest_message(later, earlier), bench.now)
    bench.make_versions()
    assert [manifest.generation for manifest in bench.manifests()] == [5]


def test_coordinator_that_finds_the_last_generation_says_so_and_goes_on(database, tmp_path, caplog) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    own = bench.coordinator
    own.check_manifests()
    own.receive_manifest(manifest_message(Manifest(10, "ab" * 32, "cd" * 32, generation=MAX_GENERATION)), bench.now)
    own.subscribed_to_manifests(bench.now)
    bench.make_versions()
    assert caplog.text.count("event=generation_not_begun") == 1
    assert set(Fleet(bench).send()) == {""}


def test_manifest_that_never_comes_is_not_waited_for(database, tmp_path) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    bench.coordinator.check_manifests()
    bench.coordinator.announce_all()
    bench.make_versions()
    assert bench.coordinator.is_checking_manifests(1e9), "there is no connection yet"
    bench.coordinator.subscribed_to_manifests(bench.now)
    assert bench.coordinator.next_due() == bench.now + QUIET_SECONDS
    bench.now += QUIET_SECONDS
    bench.make_versions()
    assert bench.coordinator.next_due() is None
    assert [manifest.generation for manifest in bench.manifests()] == [0]


def test_start_waits_no_longer_for_manifests_however_many_messages_an_outsider_publishes_there(
    database, tmp_path
) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    own = bench.coordinator
    own.check_manifests()
    own.announce_all()
    own.subscribed_to_manifests(bench.now)
    begun = bench.now
    while own.is_checking_manifests(bench.now):
        own.receive_manifest(Message(topics.manifest(FLEET, "junk"), b"junk"), bench.now)
        bench.now += QUIET_SECONDS / 2
        bench.make_versions()
        assert bench.now <= begun + LONGEST_SECONDS
    assert [manifest.generation for manifest in bench.manifests()] == [0]
    assert set(Fleet(bench).send()) == {""}


OWN = Manifest(7, "ab" * 32, "cd" * 32, generation=2)


@pytest.mark.parametrize(
    ("found", "ahead"),
    [
        (OWN, False),
        (Manifest(6, "ab" * 32, "cd" * 32, generation=2), False),
        (Manifest(8, "ab" * 32, "cd" * 32, generation=2), True),
        (Manifest(9, "ab" * 32, "cd" * 32, generation=1), False),
        (Manifest(0, "ab" * 32, "cd" * 32, generation=3), True),
        (Manifest(7, "ab" * 32, "ef" * 32, generation=2), True),
        (Manifest(7, "ab" * 32, "cd" * 32, generation=2, removed=True), True),
        (Manifest(7, "ab" * 32, "cd" * 32, 9, generation=2), False),
    ],
)
def test_manifest_is_ahead_where_a_device_that_knows_it_would_not_follow(found, ahead) -> None:
    assert is_ahead(found, OWN) is ahead


def test_log_says_once_what_to_run_where_devices_know_what_the_database_does_not(database, tmp_path, caplog) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1, base_version=1), device.update(2, generation=3))
    assert caplog.text.count("event=database_behind_devices") == 1
    assert f"tasks renew {TASK}" in caplog.text
    bench.handle(device, device.update(3, generation=3))
    assert "--after-generation" not in caplog.text, "said before"
    bench.restart()
    bench.handle(device, device.update(4, generation=3))
    assert "--after-generation 3" in caplog.text


@pytest.mark.parametrize("claimed", [MAX_LOST_GENERATIONS + 1, MAX_NAMED_GENERATION, MAX_GENERATION])
def test_liar_about_generations_gets_no_command_and_hides_no_true_claim(database, tmp_path, caplog, claimed) -> None:
    bench = Bench(database, bundle_with(tmp_path / "first", PLANS[0]))
    liar, honest = SigningDevice("kitchen-pi"), SigningDevice("garden-pi")
    for device in (liar, honest):
        bench.handle(device, device.enrolment())
    bench.handle(liar, liar.update(1, generation=claimed), liar.update(2, generation=claimed))
    assert caplog.text.count("event=generation_not_believed") == 1
    assert "tasks renew" not in caplog.text
    bench.handle(liar, liar.update(3, generation=1))
    bench.handle(honest, honest.update(1, generation=MAX_LOST_GENERATIONS))
    assert "--after-generation 1;" in caplog.text
    TaskRegistry(bench.journal.engine).renew(TASK, after_generation=1)
    bench.coordinator.reload_if_changed()
    bench.handle(honest, honest.update(2, generation=MAX_LOST_GENERATIONS))
    assert f"--after-generation {MAX_LOST_GENERATIONS};" in caplog.text, "a claim too low costs one more renewal"
