"""Two shipped coordinators with one database, on a real Mosquitto: one works, the other waits and takes over."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text

from broker_coordinator.storage.database import Database
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from tests.support.bundles import TASK
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.postgresql import PostgresqlServer
from tests.support.waiting import until

BUFFER = 3
"""Updates in each version of the tiny task."""


@pytest.fixture
def pair(tmp_path, broker, bundle, database: Database) -> Iterator[list[CoordinatorProcess]]:
    """Two coordinators that were never told of each other: one key, one database."""
    folders = [tmp_path / "first", tmp_path / "second"]
    made = [CoordinatorProcess(folder, broker, [tmp_path / "bundle"], database=database) for folder in folders]
    shutil.copy(folders[0] / "coordinator.key", folders[1] / "coordinator.key")
    yield made
    for coordinator in made:
        coordinator.kill()


def test_second_coordinator_waits_and_takes_over_and_no_update_is_applied_twice(pair, broker) -> None:
    first, second = pair
    first.start_serving()
    device = ConnectedDevice("kitchen-pi", broker, first.public_key)
    try:
        device.enrol()
        second.start()
        until(lambda: "waiting_for_database" in second.log(), "the second one says that it waits")
        assert f"process {first.pid} on" in second.log()
        signed = [device.update(number, base_version=(number - 1) // BUFFER) for number in range(1, 13)]
        for data in signed[:7]:
            assert device.tell(data).outcome is Outcome.ACCEPTED
        assert first.tasks("pause", TASK)[0]["paused"], "commands work beside both"
        assert device.tell(device.update(8, base_version=0)).reason == Reason.TASK_PAUSED
        first.tasks("resume", TASK)
        first.kill()
        until(second.is_serving, "the second one takes over")
        for data in signed:
            assert device.publish_until_receipt(data).outcome is Outcome.ACCEPTED
        with second.journal() as journal:
            until(lambda: journal.newest_number(TASK) == 12 // BUFFER, "four versions of twelve updates")
            assert [row.sequence for row in journal.updates()] == list(range(1, 13))
        assert second.tasks("verify", TASK)["equal"]
        assert second.log().count("waiting_for_database") == 1
    finally:
        device.close()


def test_one_that_waits_ends_at_once_when_asked(pair) -> None:
    first, second = pair
    first.start_serving()
    second.start()
    until(lambda: "waiting_for_database" in second.log(), "it waits")
    assert second.stop() == 0


def test_two_coordinators_that_take_each_others_connection_are_told(tmp_path, broker, bundle) -> None:
    """A copied database beside the one that it was copied from."""
    first, second = (CoordinatorProcess(tmp_path / name, broker, [tmp_path / "bundle"]) for name in ("first", "second"))
    shutil.copy(tmp_path / "first" / "coordinator.key", tmp_path / "second" / "coordinator.key")
    try:
        first.start_serving()
        second.start()
        for coordinator in (first, second):
            until(lambda told=coordinator: "event=connections_end_at_once" in told.log(), "both are told")
    finally:
        first.kill()
        second.kill()


def test_coordinator_that_has_lost_its_lock_commits_nothing_more(pair, broker, database) -> None:
    first, second = pair
    first.start_serving()
    device = ConnectedDevice("kitchen-pi", broker, first.public_key)
    try:
        device.enrol()
        assert device.tell(device.update(1)).outcome is Outcome.ACCEPTED
        second.start()
        until(lambda: "waiting_for_database" in second.log(), "it waits")
        with first.paused():
            data = device.update(2)
            device.hand_over(data)
            lose_locks(database)
            until(second.is_serving, "the second one takes over")
        assert until(first.exit_status, "the first one ends") == 1
        assert first.log().count("database_taken_over") == 1
        assert f"process {second.pid} on" in first.log()
        assert device.publish_until_receipt(data).outcome is Outcome.ACCEPTED
        with second.journal() as journal:
            assert [row.sequence for row in journal.updates()] == [1, 2]
    finally:
        device.close()


def lose_locks(database: Database) -> None:
    """What happens to a lock without its holder's doing: its file is deleted, or its session ends."""
    if isinstance(database, Path):
        for file in database.parent.glob("*.lock"):
            file.unlink()
        return
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        sessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        assert connection.execute(text(sessions)).all()
    engine.dispose()


def test_one_that_waits_outlasts_a_restart_of_the_server(tmp_path, broker, bundle, postgresql) -> None:
    database = postgresql.database(secrets.token_hex(8))
    first, second = (
        CoordinatorProcess(tmp_path / name, broker, [tmp_path / "bundle"], database=database) for name in "ab"
    )
    shutil.copy(tmp_path / "a" / "coordinator.key", tmp_path / "b" / "coordinator.key")
    try:
        first.start_serving()
        second.start()
        until(lambda: "waiting_for_database" in second.log(), "it waits")
        postgresql.stop()
        until(lambda: "event=journal_unavailable" in second.log(), "it says that the server is away")
        first.kill()
        postgresql.start()
        until(second.is_serving, "it takes over when the server is back")
    finally:
        postgresql.start()
        first.kill()
        second.kill()


def test_coordinator_whose_sessions_the_server_ends_goes_on(tmp_path, broker, bundle, postgresql) -> None:
    server: PostgresqlServer = postgresql
    database: URL = server.database(secrets.token_hex(8))
    coordinator = CoordinatorProcess(tmp_path / "first", broker, [tmp_path / "bundle"], database=database)
    coordinator.start_serving()
    device = ConnectedDevice("kitchen-pi", broker, coordinator.public_key)
    try:
        device.enrol()
        lose_locks(database)
        assert device.publish_until_receipt(device.update(1)).outcome is Outcome.ACCEPTED
        assert coordinator.exit_status() is None
    finally:
        device.close()
        coordinator.kill()
