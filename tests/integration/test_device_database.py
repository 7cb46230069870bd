"""The device's memory: a round, a receipt, a new number each happen whole or not at all."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.device_writes import written
from edge_agent.core.delivery import Delivery, NotSendableError
from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound, TaskMemory
from fleet_protocol.envelope import digest
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import STATISTICS, UPDATE, Outcome, Receipt
from fleet_protocol.limits import MAX_BOOT, MAX_SEQUENCE

BUNDLE = "0f" * 32
KEY = SigningKey(bytes(range(32)))
OTHER_BUNDLE = "f0" * 32
ROUND = SpooledRound(
    task="digits",
    bundle=BUNDLE,
    base_version=7,
    trained_through=40,
    payloads=(SpooledPayload(UPDATE.number, b"", b"payload"),),
    residual=b"residual",
)


class PowerCutError(Exception):
    """The end of the world in the middle of a transaction."""


def sign(row: OutboxRow) -> bytes:
    return f"{row.sequence} {row.kind} {row.task} {row.base_version} ".encode() + row.payload


def break_down(_: OutboxRow) -> bytes:
    raise PowerCutError


def carrying(payload: bytes) -> tuple[SpooledPayload, ...]:
    return (SpooledPayload(UPDATE.number, b"", payload),)


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
    return database.memory("digits", BUNDLE), waiting(database)


def waiting(database: DeviceDatabase) -> list[OutboxRow]:
    return [database.read(number) for number in database.waiting_numbers()]


def spool(database: DeviceDatabase, finished: SpooledRound = ROUND) -> OutboxRow:
    (row,) = database.spool(finished, sign)
    return row


def returned(row: OutboxRow) -> OutboxRow:
    return replace(row, reason="too_stale")


def reject(database: DeviceDatabase, row: OutboxRow) -> None:
    database.settle(row, Outcome.REJECTED, "too_stale", returned=True)


def test_round_is_remembered_whole_after_a_restart(database, path):
    row = spool(database)
    assert row == OutboxRow(1, 6, "digits", BUNDLE, 7, b"", b"payload", digest(b"1 6 digits 7 payload"))
    before = everything(database)
    database.close()
    database = DeviceDatabase(path)
    assert everything(database) == before == (TaskMemory(BUNDLE, 1, 40, b"residual", ()), [row])
    assert database.trained_through("digits") == 40


def test_when_signing_fails_residual_outbox_and_number_stay_as_they_were(database):
    reject(database, spool(database))
    before = everything(database)
    failed = replace(ROUND, residual=b"newer", trained_through=80, returned=(1,))
    with pytest.raises(PowerCutError):
        database.spool(failed, break_down)
    assert everything(database) == before
    assert spool(database, failed).sequence == 2


def test_a_round_writes_its_residual_to_the_card_once(database):
    size = 400_000
    for content in (b"1", b"2", b"3"):
        spool(database, replace(ROUND, residual=content * size))
    before = written()
    spool(database, replace(ROUND, residual=b"4" * size))
    assert size < written() - before < 1.2 * size


def test_full_disk_loses_neither_the_old_residual_nor_the_old_rows(database):
    row = spool(database)
    before = everything(database)
    (pages,) = database._connection.execute("PRAGMA page_count").fetchone()
    database._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.spool(replace(ROUND, residual=bytes(1_000_000), payloads=carrying(bytes(1_000_000))), sign)
    assert everything(database) == before

    database._connection.execute("PRAGMA max_page_count=100000")
    assert spool(database, replace(ROUND, residual=bytes(1_000_000))).sequence == row.sequence + 1
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
    assert database.waiting_numbers() == [1]


def test_killed_inside_the_transaction_leaves_nothing_of_the_round(path):
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.integration.test_device_database import ROUND, DeviceDatabase, sign\n"
        f"database = DeviceDatabase(Path({str(path)!r}))\n"
        "database.spool(ROUND, lambda _: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert run_python(program).returncode == -signal.SIGKILL
    assert everything(DeviceDatabase(path)) == (TaskMemory(BUNDLE, 0, 0, b"", ()), [])


def test_second_process_is_refused_and_the_first_goes_on(database, path):
    program = (
        "from pathlib import Path\n"
        "from edge_agent.shell.storage.device_database import DeviceDatabase\n"
        "from fleet_protocol.errors import ConfigurationError\n"
        f"try: DeviceDatabase(Path({str(path)!r}))\n"
        "except ConfigurationError as error: print(error)\n"
    )
    answer = run_python(program).stdout
    assert str(path) in answer
    assert "locked" in answer
    assert spool(database).sequence == 1


def test_file_that_is_no_database_is_a_configuration_error(path, tmp_path):
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(
        ConfigurationError, match=r"agent\.db: file is not a database; it is damaged\. Move it away.*key"
    ):
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


@pytest.mark.parametrize("stored", [MAX_BOOT - 1, MAX_BOOT, MAX_SEQUENCE])
def test_last_boot_number_is_kept(path, database, stored):
    """Also one that an earlier release took from a receipt."""
    database.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE counters SET value = ? WHERE name = 'boot'", (stored,))
        connection.execute("DELETE FROM seals")
    connection.close()
    for _ in range(2):
        started = DeviceDatabase(path)
        assert started.boot == MAX_BOOT
        assert started.continue_boots(MAX_BOOT) == MAX_BOOT
        started.close()


def test_boots_continue_behind_what_a_receipt_names(path, database):
    assert database.continue_boots(MAX_BOOT - 2) == MAX_BOOT - 1
    database.close()
    started = DeviceDatabase(path)
    assert started.boot == MAX_BOOT
    started.close()


def test_accepted_update_leaves_and_nothing_comes_back(database):
    row = spool(database)
    database.settle(row, Outcome.ACCEPTED, "")
    assert everything(database) == (TaskMemory(BUNDLE, 1, 40, b"residual", ()), [])
    assert database.find(row.digest) is None


def test_rejected_update_comes_back_exactly_once(database):
    row = spool(database)
    reject(database, row)
    memory = database.memory("digits", BUNDLE)
    assert memory.returned == (returned(row),)

    late = spool(database, replace(ROUND, payloads=carrying(b"late")))
    reject(database, late)  # arrives while the round that holds the first one is training
    spool(database, replace(ROUND, returned=tuple(each.sequence for each in memory.returned)))
    assert database.memory("digits", BUNDLE).returned == (returned(late),)


def test_receipt_that_fails_halfway_changes_nothing(database):
    row = spool(database)
    before = everything(database)
    database._connection.execute(
        "CREATE TEMP TRIGGER cut BEFORE INSERT ON settled BEGIN SELECT RAISE(ABORT, 'cut'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="cut"):
        reject(database, row)
    assert everything(database) == before
    database._connection.execute("DROP TRIGGER cut")
    reject(database, row)
    assert database.memory("digits", BUNDLE).returned == (returned(row),)


def test_new_bundle_starts_without_the_old_ones_residual_and_returns(database):
    reject(database, spool(database))
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 0, 0, b"", ())
    spool(database, replace(ROUND, bundle=OTHER_BUNDLE, residual=b"new"))
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 1, 40, b"new", ())
    assert database.memory("digits", BUNDLE).residual == b""


def test_tasks_keep_their_residuals_and_returns_apart(database):
    row = spool(database)
    reject(database, row)
    spool(database, replace(ROUND, task="gestures", residual=b"other"))
    assert database.memory("digits", BUNDLE) == TaskMemory(BUNDLE, 1, 40, b"residual", (returned(row),))
    assert database.memory("gestures", BUNDLE) == TaskMemory(BUNDLE, 1, 40, b"other", ())
    assert (database.waiting(), database.waiting("digits"), database.waiting("gestures")) == (1, 0, 1)


@pytest.mark.parametrize(("highest_seen", "expected"), [(100, 101), (2, 3), (0, 3)])
def test_new_number_is_above_what_either_side_has_seen(database, highest_seen, expected):
    first, second = spool(database), spool(database)
    renumbered = database.renumber(first, highest_seen, sign)
    assert renumbered.sequence == expected
    assert (renumbered.payload, renumbered.base_version) == (first.payload, first.base_version)
    assert renumbered.digest == digest(sign(renumbered))
    assert waiting(database) == [second, renumbered]
    assert database.find(first.digest) is None
    assert spool(database).sequence == expected + 1


def test_renumbering_that_fails_halfway_changes_nothing(database):
    row = spool(database)
    with pytest.raises(PowerCutError):
        database.renumber(row, 100, break_down)
    assert waiting(database) == [row]
    assert spool(database).sequence == 2


def test_renumbered_update_is_returned_under_its_new_number(database):
    row = database.renumber(spool(database), 100, sign)
    reject(database, row)
    assert database.memory("digits", BUNDLE).returned == (returned(row),)


def test_manifest_and_enrolment_survive_a_restart(database, path):
    assert database.known_version("digits") is None
    assert not database.is_enrolled()
    database.set_known_version("digits", KnownVersion(1, BUNDLE, BUNDLE))
    database.set_known_version("digits", KnownVersion(2, BUNDLE, OTHER_BUNDLE))
    database.set_enrolled(True)
    database.close()
    database = DeviceDatabase(path)
    assert database.known_version("digits") == KnownVersion(2, BUNDLE, OTHER_BUNDLE)
    assert database.is_enrolled()


def test_payload_is_in_the_file_once_while_it_waits_and_when_it_is_returned(database, path):
    payload = np.random.default_rng(1).bytes(40_000)
    row = spool(database, replace(ROUND, payloads=carrying(payload)))

    def copies() -> int:
        database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes().count(payload[20_000:20_100])

    assert copies() == 1
    reject(database, row)
    assert copies() == 1


@pytest.mark.parametrize("damage", ["recipient = x'07'", "payload = 'text'", "kind = 77"])
def test_damaged_row_stays_and_holds_up_no_other(database, damage):
    identity = Identity("home", "0", "pi", KEY, write_verify_key(KEY.verify_key), encrypt_updates=True)
    kind, recipient = identity.address(UPDATE)
    rows = [
        SpooledRound("digits", BUNDLE, 0, number, (SpooledPayload(kind, recipient, b"payload"),), b"")
        for number in (1, 2)
    ]
    damaged, sound = (database.spool(row, identity.sign_row)[0] for row in rows)
    database._connection.execute(f"UPDATE outbox SET {damage} WHERE sequence = ?", (damaged.sequence,))
    delivery = Delivery(database, identity.sign_row, lambda _: True)
    assert delivery.due(0.0) == [damaged.sequence, sound.sequence]
    with pytest.raises(NotSendableError):
        delivery.envelope(damaged.sequence)
    assert digest(delivery.envelope(sound.sequence)) == sound.digest
    reused = Receipt(damaged.digest, Outcome.REJECTED, Reason.SEQUENCE_REUSED.value, "", 9, 0)
    if damage == "kind = 77":
        delivery.receive(reused)
    assert database.waiting() == 2


def test_round_that_sends_nothing_leaves_residual_and_rejected_updates_and_counts_over_restarts(path):
    database = DeviceDatabase(path)
    (row,) = database.spool(replace(ROUND, epochs=2.5), sign)
    database.settle(row, Outcome.REJECTED, Reason.TOO_STALE.value, returned=True)
    before = database.memory("digits", BUNDLE)
    assert (before.rounds, before.epochs) == (1, 2.5)
    for number in (1, 2):
        database.withhold("digits", BUNDLE, 40 + number, 2.5 + number)
        database.close()
        database = DeviceDatabase(path)
        expected = replace(before, rounds=1 + number, trained_through=40 + number, epochs=2.5 + number)
        assert database.memory("digits", BUNDLE) == expected
        assert database.trained_through("digits") == 40 + number
        assert database.waiting() == 0
    database.spool(replace(ROUND, trained_through=50, epochs=6.0), sign)
    after = database.memory("digits", BUNDLE)
    assert (after.rounds, after.trained_through, after.epochs) == (4, 50, 6.0)
    database.close()


def test_first_round_may_send_nothing(database):
    database.withhold("digits", BUNDLE, 40, 2.0)
    assert database.memory("digits", BUNDLE) == TaskMemory(BUNDLE, 1, 40, b"", (), epochs=2.0)
    assert database.trained_through("digits") == 40


def test_epochs_count_over_generations_of_a_bundle_and_begin_anew_with_another(database):
    database.spool(replace(ROUND, epochs=3.0), sign)
    database.withhold("digits", BUNDLE, 41, 4.0)
    database.set_known_version("digits", KnownVersion(0, BUNDLE, "aa" * 32, generation=1))
    assert (database.memory("digits", BUNDLE).epochs, database.trained_through("digits")) == (4.0, 41)
    database.set_known_version("digits", KnownVersion(0, OTHER_BUNDLE, "aa" * 32, generation=2))
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 0, 0, b"", ())
    assert database.trained_through("digits") == 0
    database.withhold("digits", OTHER_BUNDLE, 41, 1.0)
    assert database.memory("digits", OTHER_BUNDLE) == TaskMemory(OTHER_BUNDLE, 1, 41, b"", (), epochs=1.0)


def test_damaged_count_of_epochs_costs_nothing_else(path):
    database = DeviceDatabase(path)
    database.spool(replace(ROUND, epochs=3.0), sign)
    database._connection.execute("DROP TRIGGER seal_sample_use_update")
    database._connection.execute("UPDATE sample_use SET epochs = 1e300")
    memory = database.memory("digits", BUNDLE)
    assert (memory.rounds, memory.trained_through, memory.residual, memory.epochs) == (1, 40, b"residual", 0.0)
    database.close()


def bounded(path: Path, payloads: int) -> DeviceDatabase:
    """A database whose outbox has room for so many payloads of a thousand bytes."""
    return DeviceDatabase(path, maximum_waiting_bytes=1000 * payloads)


def test_cluster_that_a_receipt_said_is_kept_by_task_and_a_damaged_one_is_none_until_the_next(path, caplog):
    with closing(DeviceDatabase(path)) as database:
        assert database.cluster("digits") == 0
        database.set_cluster("digits", 2)
        database.set_cluster("words", 1)
    with closing(DeviceDatabase(path)) as database:
        assert (database.cluster("digits"), database.cluster("words")) == (2, 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE clusters SET cluster = 7 WHERE task = 'digits'")
    with closing(DeviceDatabase(path)) as database:
        assert (database.cluster("digits"), database.cluster("words")) == (0, 1)
        assert "which cluster of the task's devices" in caplog.text
        database.set_cluster("digits", 3)
        assert database.cluster("digits") == 3


def test_what_finds_no_room_is_learned_again_stalest_first_then_oldest(path):
    database = bounded(path, 3)
    database.set_known_version("digits", KnownVersion(9, BUNDLE, BUNDLE))
    for base_version in (8, 7, 7, 8, 8):
        spool(database, replace(ROUND, base_version=base_version, payloads=carrying(bytes(1000))))
    assert database.waiting_numbers() == [1, 4, 5]
    assert database.merged_back == 2
    memory = database.memory("digits", BUNDLE)
    assert [(row.sequence, row.reason) for row in memory.returned] == [(2, "outbox_full"), (3, "outbox_full")]
    spool(database, replace(ROUND, base_version=9, payloads=carrying(bytes(1000)), returned=(2, 3)))
    assert database.waiting_numbers() == [4, 5, 6]
    assert [row.sequence for row in database.memory("digits", BUNDLE).returned] == [1]


def test_what_may_have_been_sent_waits_for_its_receipt_however_little_room_there_is(path):
    database = bounded(path, 2)
    for _ in range(2):
        spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    database.note_sent(1)
    assert database.sent_bytes() == database.waiting_bytes() == 2000
    for _ in range(2):
        spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    assert database.waiting_numbers() == [1, 2, 4], "the last round's own stays too"
    assert database.sent_bytes() == 2000
    database.close()
    database = bounded(path, 2)
    assert database.sent_bytes() == 2000, "also after a restart"


def test_renumbered_update_was_not_sent_under_its_new_number(path):
    database = bounded(path, 1)
    row = spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    database.note_sent(1)
    database.renumber(row, 7, sign)
    spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    assert database.waiting_numbers() == [9]


def test_what_no_round_takes_back_is_never_taken_out(path):
    database = bounded(path, 1)
    for kind in (STATISTICS.number, 77, UPDATE.number, UPDATE.number):
        spool(database, replace(ROUND, payloads=(SpooledPayload(kind, b"", bytes(1000)),)))
    assert database.waiting_numbers() == [1, 2, 4]


def test_merging_back_is_one_transaction_with_its_round(path):
    database = bounded(path, 1)
    spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    before = everything(database)
    database._connection.execute(
        "CREATE TEMP TRIGGER cut BEFORE INSERT ON settled BEGIN SELECT RAISE(ABORT, 'cut'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="cut"):
        spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    assert everything(database) == before
    assert database.merged_back == 0


def test_file_that_does_not_say_what_was_sent_counts_all_as_sent(path):
    database = bounded(path, 1)
    spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    database._connection.execute("DELETE FROM counters WHERE name = 'sent_through'")
    database.close()
    database = bounded(path, 1)
    spool(database, replace(ROUND, payloads=carrying(bytes(1000))))
    assert database.waiting_numbers() == [1, 2]
