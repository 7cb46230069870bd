"""The shipped coordinator with its journal on a PostgreSQL server that comes and goes."""

import time

import pytest
from sqlalchemy import Engine, create_engine, text

from broker_coordinator.storage.database import JournalUnavailableError, open_database, reading
from broker_coordinator.storage.lease import VERSIONS, Lease, LeaseLostError
from fleet_protocol.kinds import Outcome
from tests.support.bundles import TASK
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until


def test_updates_wait_at_the_broker_while_the_server_is_away(tmp_path, broker, bundle, postgresql) -> None:
    database = postgresql.database("fleet")
    coordinator = CoordinatorProcess(tmp_path / "c", broker, [tmp_path / "bundle"], database=database)
    coordinator.start()
    device = ConnectedDevice("kitchen-pi", broker, coordinator.public_key)
    try:
        device.enrol()
        device.tell(device.update(1))
        postgresql.stop()
        waiting = [device.update(sequence) for sequence in (2, 3)]
        for data in waiting:
            device.publish(data)
        until(lambda: "journal_unavailable" in coordinator.log(), "it says that the server is away")
        postgresql.start()
        assert [device.receipt(data).outcome for data in waiting] == [Outcome.ACCEPTED] * 2
        until(lambda: "journal_recovered" in coordinator.log(), "it says that all is well again")
        assert coordinator.log().count("journal_unavailable") == 1
        with coordinator.journal() as journal:
            assert [row.sequence for row in journal.updates()] == [1, 2, 3]
            until(lambda: journal.newest_number(bundle.description.task) == 1, "the version is made")
    finally:
        postgresql.start()
        device.close()
        coordinator.kill()


def test_coordinator_ends_when_an_older_database_takes_the_place_of_its_own_and_devices_follow_the_next_start(
    tmp_path, broker, bundle, postgresql
) -> None:
    database = postgresql.database("replica")
    coordinator = CoordinatorProcess(tmp_path / "c", broker, [tmp_path / "bundle"], database=database)
    coordinator.start()
    device = ConnectedDevice("kitchen-pi", broker, coordinator.public_key)
    try:
        device.enrol()
        for sequence in (1, 2, 3):
            device.tell(device.update(sequence))
        until(lambda: device.received.manifests[TASK].version == 1, "the version is announced")
        engine = create_engine(database)
        with engine.begin() as connection:  # as in a replica that lagged
            for table in ("payloads", "versions WHERE number > 0"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        engine.dispose()
        until(lambda: coordinator.exit_status() == 1, "it ends")
        assert coordinator.log().count("event=database_set_back") == 1
        coordinator.start_serving()
        until(lambda: device.received.manifests[TASK].generation == 1, "devices are told of a new generation")
        assert "event=generation_begun" in coordinator.log()
    finally:
        device.close()
        coordinator.kill()


def test_lease_on_a_server_that_is_away_is_an_unavailable_journal_and_is_taken_when_it_is_back(postgresql) -> None:
    engine = open_database(postgresql.database("lease"))
    lease = Lease(engine, [VERSIONS])
    try:
        postgresql.stop()
        engine.dispose()
        with pytest.raises(JournalUnavailableError, match="connection"):
            lease.take()
    finally:
        postgresql.start()
    assert lease.take() is None
    lease.release()
    engine.dispose()


def test_lease_of_a_holder_that_hangs_is_taken_by_another_and_one_that_is_kept_is_not(postgresql) -> None:
    engine = open_database(postgresql.database("hanging"))
    kept, hanging, other = Lease(engine, ["kept"]), Lease(engine, ["hanging"], 1.0), Lease(engine, ["hanging"], 1.0)
    assert kept.take() is None
    assert hanging.take() is None
    assert "hanging: process" in (other.take() or "")
    until(lambda: other.take() is None, "the session of whoever has not looked for a second is ended")
    with pytest.raises(LeaseLostError, match="has taken over"):
        hanging.keep(time.monotonic())
    assert Lease(engine, ["kept"]).take(), "a lease without an end of silence is one for ever"
    other.release()
    kept.release()
    engine.dispose()


def test_holder_that_hung_takes_its_lease_again_where_nobody_else_did(postgresql) -> None:
    engine = open_database(postgresql.database("hung"))
    lease = Lease(engine, [VERSIONS], 1.0)
    assert lease.take() is None
    until(lambda: not sessions_with_locks(engine), "its session is ended")
    lease.keep(time.monotonic())
    assert sessions_with_locks(engine) == 1
    lease.release()
    engine.dispose()


def sessions_with_locks(engine: Engine) -> int:
    """How many advisory locks are held in the database."""
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with reading(engine) as connection:
        return connection.scalar(text(query)) or 0
