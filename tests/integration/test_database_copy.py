"""A coordinator's database, copied from one kind to the other: the same to the last bit, and served on."""

import contextlib
import json
import secrets
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select

from broker_coordinator.cli import main
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.storage.database import Database, reading
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.lease import VERSIONS, Lease
from broker_coordinator.storage.schema import leases, metadata
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.kinds import Outcome
from tests.support.bench import Bench
from tests.support.bundles import TASK
from tests.support.device import SigningDevice

BUFFER = 3


@pytest.fixture
def other(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Database:
    """An empty database of the other kind."""
    if not isinstance(database, Path):
        return tmp_path / "other.db"
    return request.getfixturevalue("postgresql").database(secrets.token_hex(8))


@pytest.fixture
def bench(database: Database, bundle) -> Bench:
    bench = Bench(database, bundle)
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(number, loss=1 / number) for number in range(1, 6)))
    bench.handle(device, device.update(6, base_version=99))
    bench.make_versions()
    VersionRegistry(bench.journal.engine).roll_back(TASK, 0)
    return bench


def told(database: Database) -> str:
    return str(database) if isinstance(database, Path) else database.render_as_string(hide_password=False)


def rows_of(bench: Bench) -> dict[str, list[tuple]]:
    with reading(bench.journal.engine) as connection:
        tables = [table for table in metadata.sorted_tables if table is not leases]
        return {table.name: sorted(map(tuple, connection.execute(select(table))), key=repr) for table in tables}


def test_copy_is_the_same_and_goes_on(bench, database, other, capsys) -> None:
    before = rows_of(bench)
    facts = bench.journal.last_facts(TASK, 6, 100)
    bench.journal.close()
    assert main(["database", "copy", told(database), told(other), "--json"]) == 0
    copied = json.loads(capsys.readouterr().out)
    assert (copied["payloads"], copied["versions"], copied["refused_payloads"]) == (5, 3, 1)
    moved = Bench(other, None)
    assert rows_of(moved) == before
    assert moved.journal.last_facts(TASK, 6, 100) == facts, "losses are copied as they were written"
    assert verify_versions(moved.journal, TASK).difference is None
    device = SigningDevice("garden-pi")
    moved.handle(device, device.enrolment(), device.update(1, base_version=2))
    assert moved.receipts()[-1].outcome is Outcome.ACCEPTED
    moved.make_versions()
    assert moved.journal.newest_number(TASK) == 3, "what waited was copied too"
    moved.journal.close()
    assert main(["database", "copy", told(database), told(other)]) == 2
    assert "name an empty one as TO" in capsys.readouterr().err


@pytest.mark.parametrize("busy", ["FROM", "TO"])
def test_nothing_is_copied_while_a_coordinator_works_on_either(bench, database, other, busy, capsys) -> None:
    with Journal.open(database if busy == "FROM" else other) as journal:
        lease = Lease(journal.engine, [VERSIONS])
        assert lease.take() is None
        assert main(["database", "copy", told(database), told(other)]) == 2
        assert "stop that coordinator first" in capsys.readouterr().err
        lease.release()
    bench.journal.close()
    assert main(["database", "copy", told(database), told(other)]) == 0


def test_source_that_is_not_there_is_not_made(tmp_path, capsys) -> None:
    assert main(["database", "copy", str(tmp_path / "missing.db"), str(tmp_path / "new.db")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["database", "copy", str(tmp_path / "new.db"), str(tmp_path / "new.db")]) == 2
    assert "is both FROM and TO" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_file_by_another_of_its_names_is_both_from_and_to(tmp_path, capsys) -> None:
    file, link = tmp_path / "coordinator.db", tmp_path / "link.db"
    Journal.open(file).close()
    link.symlink_to(file)
    for name in (link, tmp_path / ".." / tmp_path.name / file.name):
        assert main(["database", "copy", str(file), str(name)]) == 2
        assert "is both FROM and TO" in capsys.readouterr().err


def test_nothing_is_written_into_another_programs_database(bench, database, tmp_path, capsys) -> None:
    bench.journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "photos.db")) as connection:
        connection.execute("CREATE TABLE photos (name TEXT)")
    assert main(["database", "copy", told(database), str(tmp_path / "photos.db")]) == 2
    assert "it belongs to another program, whose tables are photos; name an empty database" in capsys.readouterr().err
    with contextlib.closing(sqlite3.connect(tmp_path / "photos.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]
