"""A failing card damages one row, or one file: the agent says so once, and goes on."""

import asyncio
import logging
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.damaged_files import damage
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.storage.device_schema import COLUMNS_OF_VERSION_3
from edge_agent.shell.storage.row_seals import LOST
from edge_agent.worker.contract import TrainingFailure
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Outcome
from tests.integration.test_device_database import BUNDLE, OTHER_BUNDLE, ROUND, sign
from tests.integration.test_receipt_numbers import StartedAgent, configuration
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

FLIPS = {
    "residual": "UPDATE tasks SET residual = x'7265736964756100'",
    "bundle": "UPDATE tasks SET bundle = 'x' || substr(bundle, 2)",
    "rounds": "UPDATE tasks SET rounds = rounds + 1024",
    "trained_through": "UPDATE tasks SET trained_through = 1 << 40",
    "payload": "UPDATE outbox SET payload = x'00' || substr(payload, 2) WHERE sequence = 2",
    "digest": "UPDATE outbox SET digest = x'00' || substr(digest, 2) WHERE sequence = 2",
    "kind": "UPDATE outbox SET kind = 77 WHERE sequence = 2",
    "task of a row": "UPDATE outbox SET task = 'digitt' WHERE sequence = 2",
    "returned": "UPDATE outbox SET payload = x'00' || substr(payload, 2) WHERE sequence = 1",
    "version": "UPDATE manifests SET version = version + (1 << 40)",
    "weights": "UPDATE manifests SET weights = 'z' || substr(weights, 2)",
    "held": "UPDATE held_versions SET version = version + 1",
    "sequence": "UPDATE counters SET value = 0 WHERE name = 'update_sequence'",
    "sequence at its end": "UPDATE counters SET value = 9223372036854775807 WHERE name = 'update_sequence'",
    "boot": "UPDATE counters SET value = 2147483647 WHERE name = 'boot'",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """One update was rejected, two wait; a version is known, and held."""
    path = tmp_path / "agent.db"
    database = DeviceDatabase(path)
    for number in (1, 2, 3):
        finished = replace(ROUND, trained_through=40 * number, residual=b"residual")
        (row,) = database.spool(finished, sign)
        if number == 1:
            database.settle(row, Outcome.REJECTED, "too_stale", returned=True)
    for put in (database.set_known_version, database.set_held_version):
        put("digits", KnownVersion(7, BUNDLE, OTHER_BUNDLE))
    database.close()
    return path


def flip(path: Path, statement: str) -> None:
    """As a card does: past the triggers of the agent's own connection."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize("what", FLIPS)
def test_damaged_row_is_set_aside_and_said_once_and_everything_else_goes_on(path, what, caplog):
    flip(path, FLIPS[what])
    database = DeviceDatabase(path)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1
    assert "event=row_set_aside" in said[0]
    (row,) = database.spool(replace(ROUND, payloads=ROUND.payloads, base_version=8), sign)
    assert row.sequence == 4
    assert database.read(row.sequence) == row
    database.set_known_version("digits", KnownVersion(8, BUNDLE, BUNDLE))
    database.close()
    caplog.clear()
    again = DeviceDatabase(path)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert again.known_version("digits") == KnownVersion(8, BUNDLE, BUNDLE)
    lost = {"payload", "digest", "kind", "task of a row"}
    assert again.waiting_numbers() == ([3, 4] if what in lost else [2, 3, 4])
    assert again.boot < 100
    again.close()


def test_damage_while_the_agent_runs_is_found_when_the_row_is_read(path):
    database = DeviceDatabase(path)
    for table in ("tasks", "outbox"):
        database._connection.execute(f"DROP TRIGGER seal_{table}_update")
    database._connection.execute(FLIPS["residual"])
    database._connection.execute(FLIPS["payload"])
    database._connection.execute(FLIPS["returned"])
    memory = database.memory("digits", BUNDLE)
    assert (memory.rounds, memory.residual, memory.returned) == (0, b"", ())
    assert database.read(2) is None
    assert database.waiting_numbers() == [3]
    database.close()


def test_rejected_updates_outlive_a_damaged_residual(path):
    flip(path, FLIPS["residual"])
    database = DeviceDatabase(path)
    memory = database.memory("digits", BUNDLE)
    assert (memory.residual, [row.sequence for row in memory.returned]) == (b"", [1])
    database.close()


def test_file_from_before_there_were_seals_is_sealed_as_it_is(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE seals")
        for table, column in COLUMNS_OF_VERSION_3:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 2")
    for _ in range(2):
        database = DeviceDatabase(path)
        assert database.waiting_numbers() == [2, 3]
        database.close()


def test_every_table_whose_damage_could_end_something_is_sealed(path):
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables - {"seals", "settled"} == LOST.keys()


@pytest.mark.parametrize("damage", ["zeroed", "cut", "hole", "text"])
def test_damaged_database_of_the_agent_is_said_with_what_is_lost_and_what_to_do(path, damage):
    harm(path, damage)
    with pytest.raises(ConfigurationError) as caught:
        DeviceDatabase(path)
    for words in ("it is damaged", "mv agent.db agent.db.damaged", "Lost are the updates that waited", "The key"):
        assert words in str(caught.value)
    assert "may write" not in str(caught.value)
    path.rename(path.with_name("agent.db.damaged"))
    DeviceDatabase(path).close()


def harm(path: Path, damage: str) -> None:
    """Damage a closed database's file."""
    content = path.read_bytes()
    half = len(content) // 2 // 4096 * 4096
    path.write_bytes(
        {
            "zeroed": bytes(len(content)),
            "cut": content[: half + 1000],
            "hole": content[:4096] + bytes(len(content) - 8192) + content[-4096:],
            "text": b"no database" * 1000,
        }[damage]
    )


@pytest.mark.parametrize("damage", ["zeroed", "cut", "hole", "text"])
def test_damaged_sample_store_makes_room_for_a_new_one(tmp_path, damage, caplog):
    path = tmp_path / "samples.db"
    for _ in range(2):  # also a second time
        store = SampleStore(path, 1000)
        for number in range(200):
            store.add("digits", bytes(256), number % 10)
        store.close()
        harm(path, damage)
        store = SampleStore(path, 1000)
        assert store.count("digits") == 0
        store.continue_after(200)
        assert store.add("digits", bytes(256), 3) == 201, "a round has seen the numbers before"
        assert store.count_after("digits", 200) == 1
        store.close()
    assert sum("event=file_set_aside" in record.getMessage() for record in caplog.records) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["samples.db", "samples.db.damaged"]


async def test_worker_that_finds_the_store_damaged_says_so_and_a_new_one_is_begun(tmp_path, caplog):
    random = np.random.default_rng(0)
    path = store_samples(
        tmp_path / "samples.db", "digits", random.random((400, 64), np.float32), random.integers(0, 10, 400)
    )
    store = SampleStore(path, 1000)
    harm(path, "hole")
    failure = await train_in_child(make_job(find_recipe("digits") / "bundle", path), WorkerSettings(nice=0))
    assert isinstance(failure, TrainingFailure)
    assert failure.store_damaged
    assert failure.error == "the sample store can't be read: database disk image is malformed"
    store.start_anew(failure.error)
    assert store.count("digits") == 0
    assert store.add("digits", bytes(256), 3) == 401
    store.close()
    assert "event=file_set_aside" in caplog.text


SCHEMA_FLIPS = {
    "the counters' column": (b"sqlite_sequence(name,seq)", b"sqlite_sequence(name,sep)"),
    "a word that is no text": (b"label INTEGER NOT NULL", b"label INTEGER N\xd5T NULL"),
    "a column": (b"inputs BLOB", b"inpuus BLOB"),
    "a trigger's table": (b"DELETE FROM features WHERE", b"DELETE FROM featurds WHERE"),
}


@pytest.mark.parametrize("what", SCHEMA_FLIPS)
def test_sample_store_whose_schema_is_damaged_makes_room_for_a_new_one(tmp_path, what, caplog):
    path = tmp_path / "samples.db"
    store = SampleStore(path, 3)
    for number in range(3):
        store.add("digits", bytes(256), number)
    store.close()
    before, after = SCHEMA_FLIPS[what]
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))
    store = SampleStore(path, 3)
    store.continue_after(3)
    assert store.add("digits", bytes(256), 3) == 4, "the damage may be met only now: the sample is stored all the same"
    assert "event=file_set_aside" in caplog.text
    store.close()


def test_sample_number_that_a_card_has_flipped_does_not_end_the_numbering(tmp_path):
    path = tmp_path / "samples.db"
    store = SampleStore(path, 3)
    store.add("digits", bytes(256), 1)
    store.close()
    flip(path, "UPDATE sqlite_sequence SET seq = 9223372036854775807")
    store = SampleStore(path, 3)
    assert store.add("digits", bytes(256), 3) == 1
    store.close()


@pytest.mark.parametrize("seed", range(40))
def test_no_flipped_bits_of_the_sample_store_end_the_agent(tmp_path, seed):
    path = tmp_path / "samples.db"
    store = SampleStore(path, 100)
    for number in range(60):
        store.add("digits", bytes(256), number % 10)
    store.close()
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    for place in random.integers(0, len(content), 1 + seed % 20):
        content[place] ^= 1 << int(random.integers(8))
    path.write_bytes(content)
    store = SampleStore(path, 100)
    store.continue_after(60)
    for number in range(120):
        assert store.add("digits", bytes(256), number % 10) > 60
    store.close()


def test_row_whose_number_has_flipped_takes_its_place_in_the_index_along(path, caplog):
    """As agent.db.1.55 was: the index named a row that was no longer there, and every later version met it."""
    content = bytearray(path.read_bytes())
    (root,) = one(path, "SELECT rootpage FROM sqlite_master WHERE name = 'held_versions'")
    cell = int.from_bytes(content[(root - 1) * 4096 + 8 : (root - 1) * 4096 + 10], "big") + (root - 1) * 4096
    assert content[cell + 2] == 1, "the row's number follows the two bytes of its length"
    content[cell + 2] ^= 1 << 6
    path.write_bytes(content)
    database = DeviceDatabase(path)
    assert database.held_version("digits") is None
    database.set_held_version("digits", KnownVersion(8, BUNDLE, OTHER_BUNDLE))
    assert database.held_version("digits") == KnownVersion(8, BUNDLE, OTHER_BUNDLE)
    assert database.damage is None
    database.close()
    assert one(path, "PRAGMA integrity_check") == ("ok",)
    assert caplog.text.count("event=row_set_aside") == 1


def one(path: Path, query: str) -> tuple[object, ...]:
    with closing(sqlite3.connect(path)) as connection:
        return tuple(connection.execute(query).fetchone())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"payload BLOB NOT NULL, envelope", b"payload BLOB NOT NULL, eovelope"),
        (b"sqlite_autoindex_tasks", b"\xf3qlite_autoindex_tasks"),
        (
            b"task TEXT PRIMARY KEY, bundle TEXT NOT NULL, rounds",
            b"task TEXT PRIMARY KEY, bundle TEXT NOT NUML, rounds",
        ),
    ],
)
def test_damaged_schema_of_the_agents_database_is_said_as_any_damage(path, before, after):
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))
    with pytest.raises(ConfigurationError, match=r"it is damaged\. Move it away"):
        DeviceDatabase(path)


def test_damage_that_a_running_agent_meets_is_told_whoever_handles_the_error(path):
    database = DeviceDatabase(path)
    told: list[str | None] = []
    database.call_at_damage(lambda: told.append(database.damage))
    assert database.damage is None
    (root,) = database._connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'manifests'").fetchone()
    database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database._connection.execute("PRAGMA shrink_memory")
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(sqlite3.DatabaseError):
        database.known_version("digits")
    said = told[0]
    assert said is not None
    assert "it is damaged. Move it away" in said
    database.close()


async def test_running_agent_ends_with_one_line_where_its_database_is_damaged(request):
    agent = StartedAgent(request.getfixturevalue(configuration.__name__))
    running = asyncio.ensure_future(agent.run())
    await asyncio.sleep(0)
    agent._database._connection.met_damage(damage("database disk image is malformed"))
    with pytest.raises(ConfigurationError, match=r"malformed; it is damaged\. Move it away"):
        await running
