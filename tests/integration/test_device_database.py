"""The device's memory: a round, a receipt, a new number each happen whole or not at all."""

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.shell.device_database import DeviceDatabase, KnownVersion, OutboxRow, SpooledRound, TaskMemory
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Outcome

BUNDLE = "0f" * 32
OTHER_BUNDLE = "f0" * 32
ROUND = SpooledRound(
    task="digits",
    bundle=BUNDLE,
    base_version=7,
    trained_through=40,
    packed=b"packed",
    payload=b"payload",
    residual=b"residual",
    returned=(),
)


class PowerCutError(Exception):
    """The end of the world in the middle of a transaction."""


def sign(sequence: int, task: str, base_version: int, payload: bytes) -> tuple[bytes, bytes]:
    envelope = f"{sequence} {task} {base_version} ".encode() + payload
    return envelope, b"digest of " + envelope


def break_down(*_: object) -> tuple[bytes, bytes]:
    raise PowerCutError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.db"


@pytest.fixture
def database(path):
    database = DeviceDatabase(path)
    yield database
    database.close()


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, with this tree importable."""
    tree = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", program], cwd=tree, check=False, capture_output=True, text=True)


def everything(database: DeviceDatabase) -> tuple[TaskMemory, list[OutboxRow]]:
    return database.memory("digits", BUNDLE), database.outbox()


def reject(database: DeviceDatabase, row: OutboxRow) -> None:
    database.settle(row, Outcome.REJECTED, "too_stale")


def test_round_is_remembered_whole_after_a_restart(database, path):
    row = database.spool(ROUND, sign)
    assert row == OutboxRow(1, "digits", 7, b"payload", b"1 digits 7 payload", b"digest of 1 digits 7 payload")
    before = everything(database)
    database.close()
    database = DeviceDatabase(path)
    assert everything(database) == before == (TaskMemory(BUNDLE, 1, 40, b"residual", ()), [row])
    assert database.trained_through("digits") == 40


def test_when_signing_fails_residual_outbox_and_number_stay_as_they_were(database):
    reject(database, database.spool(ROUND, sign))
    before = everything(database)
    failed = replace(ROUND, residual=b"newer", trained_through=80, returned=(1,))
    with pytest.raises(PowerCutError):
        database.spool(failed, break_down)
    assert everything(database) == before
    assert database.spool(failed, sign).sequence == 2


def test_full_disk_loses_neither_the_old_residual_nor_the_old_rows(database):
    row = database.spool(ROUND, sign)
    before = everything(database)
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.spool(replace(ROUND, residual=bytes(1_000_000), packed=bytes(1_000_000)), sign)
    assert everything(database) == before

    database._connection.execute("PRAGMA max_page_count=100000")
    assert database.spool(replace(ROUND, residual=bytes(1_000_000)), sign).sequence == row.sequence + 1
    assert database.memory("digits", BUNDLE).residual == bytes(1_000_000)


def test_killed_right_after_spooling_keeps_residual_and_row_together(path):
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.integration.test_device_database import ROUND, DeviceDatabase, sign\n"
        f"database = DeviceDatabase(Path({str(path)!r}))\n"
        "database.spool(ROUND, sign)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(program).returncode == -signal.SIGKILL
    database = DeviceDatabase(path)
    assert database.memory("digits", BUNDLE).residual == b"residual"
    assert [row.sequence for row in database.outbox()] == [1]


def test_killed_inside_the_transaction_leaves_nothing_of_the_round(path):
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.integration.test_device_database import ROUND, DeviceDatabase, sign\n"
        f"database = DeviceDatabase(Path({str(path)!r}))\n"
        "database.spool(ROUND, lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert run_python(program).returncode == -signal.SIGKILL
    assert everything(DeviceDatabase(path)) == (TaskMemory(BUNDLE, 0, 0, b"", ()), [])


def test_second_process_is_refused_and_the_first_goes_on(database, path):
    program = (
        "from pathlib import Path\n"
        "from edge_agent.shell.device_database import DeviceDatabase\n"
        "from fleet_protocol.errors import ConfigurationError\n"
        f"try: DeviceDatabase(Path({str(path)!r}))\n"
        "except ConfigurationError as error: print(error)\n"
    )
    answer = run_python(program).stdout
    assert str(path) in answer
    assert "locked" in answer
    assert database.spool(ROUND, sign).sequence == 1


def test_file_that_is_no_database_is_a_configuration_error(path, tmp_path):
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigurationError, match=r"agent\.db: file is not a database"):
        DeviceDatabase(path)
    with pytest.raises(ConfigurationError, match="unable to open"):
        DeviceDatabase(tmp_path / "missing" / "agent.db")


def test_every_start_has_a_higher_boot_number(path):
    boots = []
    for _ in range(4):
        database = DeviceDatabase(path)
        boots.append(database.boot)
        database.close()
    assert boots == [1, 2, 3, 4]


def test_accepted_update_leaves_and_nothing_comes_back(database):
    row = database.spool(ROUND, sign)
    database.settle(row, Outcome.ACCEPTED, "")
    assert everything(database) == (TaskMemory(BUNDLE, 1, 40, b"residual", ()), [])
    assert database.find(row.digest) is None


def test_rejected_update_comes_back_exactly_once(database):
    row = database.spool(ROUND, sign)
    reject(database, row)
    memory = database.memory("digits", BUNDLE)
    assert memory.returned == ((1, b"packed"),)

    late = database.spool(replace(ROUND, packed=b"late"), sign)
    reject(database, late)  # arrives while the round that holds the first one is training
    database.spool(replace(ROUND, returned=tuple(sequence for sequence, _ in memory.returned)), sign)
    assert database.memory("digits", BUNDLE).returned == ((late.sequence, b"late"),)


def test_receipt_that_fails_halfway_changes_nothing(database):
    row = database.spool(ROUND, sign)
    before = everything(database)
    database._connection.execute(
        "CREATE TEMP TRIGGER cut BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'cut'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="cut"):
        reject(database, row)
    assert everything(database) == before
    database._connection.execute("DROP TRIGGER cut")
    reject(database, row)
    assert database.memory("digits", BUNDLE).returned == ((1, b"packed"),)


def test_new_bundle_starts_without_the_old_ones_residual_and_returns(database):
    reject(database, database.spool(ROUND, sign))
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 0, 0, b"", ())
    database.spool(replace(ROUND, bundle=OTHER_BUNDLE, residual=b"new"), sign)
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 1, 40, b"new", ())
    assert database.memory("digits", BUNDLE).residual == b""


def test_tasks_keep_their_residuals_and_returns_apart(database):
    reject(database, database.spool(ROUND, sign))
    database.spool(replace(ROUND, task="gestures", residual=b"other"), sign)
    assert database.memory("digits", BUNDLE) == TaskMemory(BUNDLE, 1, 40, b"residual", ((1, b"packed"),))
    assert database.memory("gestures", BUNDLE) == TaskMemory(BUNDLE, 1, 40, b"other", ())
    assert (database.waiting(), database.waiting("digits"), database.waiting("gestures")) == (1, 0, 1)


@pytest.mark.parametrize(("highest_seen", "expected"), [(100, 101), (2, 3), (0, 3)])
def test_new_number_is_above_what_either_side_has_seen(database, highest_seen, expected):
    first, second = database.spool(ROUND, sign), database.spool(ROUND, sign)
    renumbered = database.renumber(first, highest_seen, sign)
    assert renumbered.sequence == expected
    assert (renumbered.payload, renumbered.base_version) == (first.payload, first.base_version)
    assert renumbered.envelope == sign(expected, "digits", 7, b"payload")[0]
    assert database.outbox() == [second, renumbered]
    assert database.find(first.digest) is None
    assert database.spool(ROUND, sign).sequence == expected + 1


def test_renumbering_that_fails_halfway_changes_nothing(database):
    row = database.spool(ROUND, sign)
    with pytest.raises(PowerCutError):
        database.renumber(row, 100, break_down)
    assert database.outbox() == [row]
    assert database.spool(ROUND, sign).sequence == 2


def test_renumbered_update_is_returned_under_its_new_number(database):
    row = database.renumber(database.spool(ROUND, sign), 100, sign)
    reject(database, row)
    assert database.memory("digits", BUNDLE).returned == ((101, b"packed"),)


def test_manifest_and_enrolment_survive_a_restart(database, path):
    assert database.known_version("digits") is None
    assert not database.is_enrolled()
    database.know_version("digits", KnownVersion(1, BUNDLE, BUNDLE))
    database.know_version("digits", KnownVersion(2, BUNDLE, OTHER_BUNDLE))
    database.set_enrolled(True)
    database.close()
    database = DeviceDatabase(path)
    assert database.known_version("digits") == KnownVersion(2, BUNDLE, OTHER_BUNDLE)
    assert database.is_enrolled()
