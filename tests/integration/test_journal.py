"""The journal: what is committed stays, what is not was never there."""

import numpy as np
import pytest

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import Database, DatabaseSetBackError, JournalUnavailableError, writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal, JournalEntry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.schema import payloads
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.keys import key_id
from fleet_protocol.kinds import Manifest, Outcome
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD
from tests.support.replay import versions_replayed

FEEDBACK_OF = {"ca2fl": "residual", "ef21": "ef21"}


@pytest.fixture
def bench(database: Database, bundle: Bundle) -> Bench:
    return Bench(database, bundle)


@pytest.fixture
def kitchen(bench: Bench) -> SigningDevice:
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    return device


def test_restart_keeps_the_buffer(bench, kitchen) -> None:
    bench.handle(kitchen, kitchen.update(1), kitchen.update(2))
    bench.make_versions()
    bench.restart()
    assert [(row.sequence, row.aggregate) for row in bench.journal.updates(TASK)] == [(1, None), (2, None)]
    bench.handle(kitchen, kitchen.update(3))
    bench.make_versions()
    assert [(row.sequence, row.aggregate) for row in bench.journal.updates(TASK)] == [(1, 1), (2, 1), (3, 1)]
    assert [version.number for version in bench.journal.versions(TASK)] == [0, 1]


def test_restart_between_commit_and_version_makes_the_version(bench, kitchen) -> None:
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in range(1, 8)))
    bench.restart()
    bench.make_versions()
    assert [row.aggregate for row in bench.journal.updates(TASK)] == [1, 1, 1, 2, 2, 2, None]
    assert [row.staleness for row in bench.journal.updates(TASK)] == [0, 0, 0, 1, 1, 1, 2]
    assert bench.manifests()[-1].version == 2


def test_coordinator_takes_nothing_into_a_database_that_lacks_what_it_has_committed(bench, kitchen) -> None:
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in range(1, 6)))
    bench.make_versions()
    run(bench, "DELETE FROM payloads WHERE position > 3")  # a backup, or a replica that lagged, is in its place
    with pytest.raises(DatabaseSetBackError, match="ends at position 3; this process knows 5"):
        bench.handle(kitchen, kitchen.update(6))
    with pytest.raises(DatabaseSetBackError):
        bench.make_versions()
    assert [row.sequence for row in bench.journal.updates(TASK)] == [1, 2, 3]


def test_no_version_is_made_behind_one_that_its_database_lacks(bench, kitchen) -> None:
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in (1, 2, 3)))
    bench.make_versions()
    bench.handle(kitchen, *(kitchen.update(sequence, base_version=1) for sequence in (4, 5, 6)))
    run(bench, "DELETE FROM versions WHERE number = 1")
    with pytest.raises(DatabaseSetBackError, match="version 0 of tiny is the newest; 2 was made"):
        bench.make_versions()
    assert [version.number for version in bench.journal.versions(TASK)] == [0]
    assert [row.aggregate for row in bench.journal.updates(TASK)] == [1, 1, 1, None, None, None]


def run(bench: Bench, statement: str) -> None:
    with writing(bench.journal.engine) as connection:
        connection.exec_driver_sql(statement)


def test_replay_of_the_journal_gives_every_version_bit_for_bit(tmp_path, database) -> None:
    plan = AggregationPlan(buffer_size=3, server_momentum=0.6, server_learning_rate=0.9)
    bundle = write_bundle(tmp_path / "momentum", aggregation=plan)
    bench, device = Bench(database, bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    for sequence in range(1, 16):
        bench.handle(device, device.update(sequence, samples=sequence))
        if sequence % 4 == 0:
            bench.restart()
        bench.make_versions()
    assert versions_replayed(bench.journal, TASK) == bench.journal.newest_number(TASK) == 5


@pytest.mark.parametrize("strategy", ["ca2fl", "ef21"])
def test_replay_and_restarts_agree_where_a_version_needs_what_devices_sent_before(tmp_path, database, strategy) -> None:
    plan = AggregationPlan(buffer_size=3, strategy=strategy, server_momentum=0.6)
    bundle = write_bundle(tmp_path / strategy, aggregation=plan, update=UpdatePlan(0.5, feedback=FEEDBACK_OF[strategy]))
    bench, devices = (
        Bench(database, bundle),
        [SigningDevice(name) for name in ("attic-pi", "kitchen-pi")],
    )
    for device in devices:
        bench.handle(device, device.enrolment())
    for sequence in range(1, 13):
        newest = bench.journal.newest_version(TASK).number
        for device in devices:
            data = device.update(sequence, base_version=newest, samples=sequence, life=1 + sequence // 7)
            bench.handle(device, data)
        if sequence % 4 == 0:
            bench.restart()
        bench.make_versions()
    assert versions_replayed(bench.journal, TASK) == bench.journal.newest_number(TASK) == 8


def test_update_is_journalled_once_however_often_it_comes(bench, kitchen) -> None:
    data = kitchen.update(1)
    bench.handle(kitchen, data, data)
    bench.handle(kitchen, data)
    bench.restart()
    bench.handle(kitchen, data)
    assert len(list(bench.journal.updates())) == 1
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]


def test_refusal_outlives_a_restart(bench, kitchen) -> None:
    data = kitchen.update(1, base_version=1)
    bench.handle(kitchen, data)
    bench.handle(kitchen, *(kitchen.update(sequence) for sequence in (2, 3, 4)))
    bench.make_versions()
    bench.restart()
    bench.handle(kitchen, data)  # version 1 exists by now, but the device has taken the update back
    (receipt,) = bench.receipts()
    assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, Reason.UNKNOWN_VERSION.value)
    assert receipt.highest_sequence == 4
    assert [row.sequence for row in bench.journal.updates()] == [2, 3, 4]


def test_full_disk_answers_nothing_and_recovers(tmp_path) -> None:
    patient = AggregationPlan(buffer_size=100)
    bench, kitchen = (
        Bench(tmp_path / "coordinator.db", write_bundle(tmp_path / "bundle", aggregation=patient)),
        SigningDevice("kitchen-pi"),
    )
    bench.handle(kitchen, kitchen.enrolment())
    bench.said()
    updates = [kitchen.update(sequence) for sequence in range(1, 41)]
    bench.fill_disk()
    with pytest.raises(JournalUnavailableError, match="full"):
        bench.handle(kitchen, *updates)
    assert bench.said() == []
    assert list(bench.journal.updates()) == []
    bench.free_disk()
    bench.handle(kitchen, *updates)
    assert len(bench.receipts()) == 40
    assert len(list(bench.journal.updates())) == 40


def test_server_that_goes_away_answers_nothing_and_is_used_again_when_it_returns(postgresql, bundle) -> None:
    bench, kitchen = Bench(postgresql.database("outage"), bundle), SigningDevice("kitchen-pi")
    bench.handle(kitchen, kitchen.enrolment())
    bench.said()
    postgresql.stop()
    try:
        for _ in range(2):
            with pytest.raises(JournalUnavailableError):
                bench.handle(kitchen, kitchen.update(1))
        with pytest.raises(JournalUnavailableError):
            bench.coordinator.reload_if_changed()
        with pytest.raises(ConfigurationError, match="postgresql\\+psycopg://edgeflock@"):
            Journal.open(bench.database)
        assert bench.said() == []
    finally:
        postgresql.start()
    bench.handle(kitchen, kitchen.update(1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    assert [row.sequence for row in bench.journal.updates()] == [1]


def test_commit_whose_answer_is_lost_is_answered_as_what_it_was(database, tmp_path, monkeypatch) -> None:
    """The server may die between its commit and its answer; the batch is then offered again, and was never refused."""
    plan = AggregationPlan(buffer_size=2, max_staleness=1)
    bench, device = Bench(database, write_bundle(tmp_path / "hasty", aggregation=plan)), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    write = Journal.write

    def write_unanswered(journal: Journal, entry: JournalEntry) -> int:
        monkeypatch.setattr(Journal, "write", write)
        write(journal, entry)
        raise JournalUnavailableError("the connection is lost")

    monkeypatch.setattr(Journal, "write", write_unanswered)
    batch = [device.update(sequence) for sequence in range(1, 9)] + [device.update(9, samples=0)]
    with pytest.raises(JournalUnavailableError):
        bench.handle(device, *batch)
    bench.make_versions()
    bench.handle(device, *batch)
    assert [receipt.reason for receipt in bench.receipts()] == ["", "", "", "", *["too_stale"] * 5]
    assert [row.sequence for row in bench.journal.updates()] == [1, 2, 3, 4]


def test_version_is_one_transaction(tmp_path) -> None:
    parameters = [Parameter("wide", [80, 80])]
    bundle = write_bundle(tmp_path / "wide", parameters=parameters)
    bench, device = Bench(tmp_path / "coordinator.db", bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    shapes = bundle.description.shapes
    bench.handle(device, *(device.update(sequence, shapes=shapes) for sequence in (1, 2, 3)))
    bench.fill_disk()
    with pytest.raises(JournalUnavailableError):
        bench.make_versions()
    assert [row.aggregate for row in bench.journal.updates()] == [None, None, None]
    assert [version.number for version in bench.journal.versions(TASK)] == [0]
    bench.free_disk()
    bench.make_versions()
    assert [row.aggregate for row in bench.journal.updates()] == [1, 1, 1]
    newest = bench.journal.newest_version(TASK)
    assert bench.manifests() == [Manifest(1, bundle.hash, newest.weights_hash)]
    assert np.abs(newest.state(parameters, {}).moments).sum() > 0


def test_reader_sees_a_running_coordinators_database(bench, kitchen) -> None:
    reader = JournalReader.open(bench.database)
    assert list(reader.updates()) == []
    bench.handle(kitchen, kitchen.update(1), kitchen.update(2, base_version=9), b"garbage")
    (row,) = reader.updates()
    assert (row.device, row.sequence, row.aggregate, row.staleness, row.read_facts().samples) == (
        "kitchen-pi",
        1,
        None,
        0,
        8,
    )
    assert reader.overview.rejections_of("kitchen-pi") == {Reason.UNKNOWN_VERSION: 1}
    assert reader.overview.rejections_of("") == {Reason.MALFORMED: 1}


def test_reader_of_nothing_says_so(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        JournalReader.open(tmp_path / "none.db")


def test_whoever_came_first_under_a_name_is_not_let_in_by_the_name(database, bundle, caplog) -> None:
    closed = AdmissionSettings(FLEET, SHARD, open_enrolment=False, maximum_devices=100)
    bench, squatter, device = Bench(database, bundle, closed), SigningDevice("kitchen-pi"), SigningDevice("kitchen-pi")
    bench.handle(squatter, squatter.enrolment(), squatter.enrolment())
    bench.handle(device, device.enrolment())
    assert caplog.text.count("event=device_awaits_approval") == 1
    assert f"devices approve kitchen-pi {key_id(squatter.key.verify_key).hex()}" in caplog.text
    operator = DeviceRegistry(bench.journal.engine)
    theirs = key_id(device.key.verify_key)
    with pytest.raises(ConfigurationError, match=f"pending with key {key_id(squatter.key.verify_key).hex()}"):
        operator.approve_named("kitchen-pi", theirs)
    operator.approve("kitchen-pi", device.key.verify_key)
    bench.said()
    bench.handle(squatter, squatter.enrolment(), squatter.update(1))
    bench.handle(device, device.enrolment(), device.update(1))
    assert [receipt.outcome for receipt in bench.receipts()][-2:] == [Outcome.ACCEPTED] * 2
    assert bench.journal.overview.rejections_of("") == {Reason.UNKNOWN_KEY: 1, Reason.REVOKED_KEY: 2}


def test_running_coordinator_notices_what_operators_do_to_devices(database, bundle) -> None:
    closed = AdmissionSettings(FLEET, SHARD, open_enrolment=False, maximum_devices=100)
    bench, device = Bench(database, bundle, closed), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.UNKNOWN_KEY.value]
    operator = DeviceRegistry(Journal.open(bench.database).engine)
    assert operator.approve_named("kitchen-pi", key_id(device.key.verify_key)).state is DeviceState.APPROVED
    bench.handle(device, device.enrolment(), device.update(1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED] * 2
    operator.revoke("kitchen-pi")
    bench.handle(device, device.update(2))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.REVOKED_KEY.value]
    newcomer = SigningDevice("kitchen-pi")
    operator.approve("kitchen-pi", newcomer.key.verify_key)
    bench.handle(newcomer, newcomer.update(2))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    with pytest.raises(ConfigurationError, match="another key"):
        operator.approve("kitchen-pi", device.key.verify_key)


def test_forger_gets_few_receipts(bench, kitchen) -> None:
    forger = SigningDevice("kitchen-pi")
    bench.handle(kitchen, *(forger.update(sequence) for sequence in range(1, 50)))
    assert len(bench.receipts()) == 1
    assert bench.journal.overview.rejections_of("") == {Reason.UNKNOWN_KEY: 49}


def test_other_bundle_in_the_configuration_is_not_published_and_the_log_says_how(tmp_path, bench, caplog) -> None:
    other = write_bundle(tmp_path / "other", aggregation=AggregationPlan(buffer_size=4))
    Coordinator(bench.journal, [other], MessageSigner(KEY, FLEET, SHARD), OPEN)
    assert caplog.text.count("event=bundle_not_published") == 1
    assert "tasks publish FOLDER" in caplog.text
    assert TaskRegistry(bench.journal.engine).task(TASK).bundle != other.hash


def test_message_that_the_journal_rejects_does_not_hold_up_the_others(database, bundle, caplog) -> None:
    bench, kitchen, garden = Bench(database, bundle), SigningDevice("kitchen-pi"), SigningDevice("garden-pi")
    for device in (kitchen, garden):
        bench.handle(device, device.enrolment())
    bench.said()
    # The journal has an update where no coordinator would look for it.
    stolen = garden.update(1)
    other = Bench(database, bundle)
    other.handle(garden, stolen)
    with bench.journal.engine.begin() as connection:
        connection.execute(payloads.update().values(position=-1))
    bench.handle(kitchen, kitchen.update(1), kitchen.update(2))
    bench.handle(garden, stolen)
    assert "batch_failed" in caplog.text
    assert sorted((row.device, row.sequence) for row in bench.journal.updates()) == [
        ("garden-pi", 1),
        ("kitchen-pi", 1),
        ("kitchen-pi", 2),
    ]
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED] * 2
