"""What a device's rounds keep for its next ones, a model of its own and what is left against drift: committed with the
round or not at all, through kills and damage, and gone with the bundle that it is of.
"""

import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_agent.core.outbox import SpooledPayload
from edge_agent.core.selection import RoundFigures
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.storage.device_database import DeviceDatabase, KeptOfRound, SpooledRound
from fleet_protocol.kinds import UPDATE

BUNDLE, OTHER = "0f" * 32, "f0" * 32
ROUNDS = 12
FIGURES = RoundFigures(100, 2.0, 60.0, 1, 0.0)


@dataclass(frozen=True, slots=True)
class Kept:
    """One of the two: its `field` of a round, its table, since which layout there is one, what the log says of a row
    that is damaged, and how it is read.
    """

    field: str
    table: str
    layout: int
    words: str
    read: Callable[..., bytes]

    def of(self, database: DeviceDatabase) -> bytes:
        """What the next round of the bundle begins with."""
        return self.read(database, "digits", BUNDLE, 0)


OWN = Kept(
    "own",
    "own_models",
    13,
    "what this device keeps of the task's model to itself",
    lambda database, task, bundle, _: database.own_model(task, bundle),
)
DRIFT = Kept("drift", "drift_memories", 15, "left against drift", DeviceDatabase.drift_memory)
BOTH = pytest.mark.parametrize("kept", [OWN, DRIFT], ids=["own", "drift"])


def left(number: int) -> bytes:
    """What the round of this number keeps."""
    return np.full(50, number, np.float32).tobytes()


def play(database: DeviceDatabase, number: int, generation: int = 0, sign=lambda row: row.payload) -> None:
    """A round that keeps both, each in its own way."""
    payload = SpooledPayload(UPDATE.number, b"", b"update %d" % number)
    spooled = SpooledRound(
        "digits",
        BUNDLE,
        7,
        number,
        (payload,),
        b"residual %d" % number,
        generation=generation,
        own=left(number),
        drift=left(number),
        figures=FIGURES,
    )
    database.spool(spooled, sign)


def opened(path: Path) -> DeviceDatabase:
    return DeviceDatabase(path / "agent.db")


@pytest.fixture
def database(tmp_path):
    """Behind one round."""
    found = opened(tmp_path)
    play(found, 1)
    yield found
    found.close()


def live(path: Path, seed: int) -> None:
    """One life of the device, up to the statement at which it is killed or to the last round."""
    statements = random.Random(seed).randrange(1, 120)

    def count_down(_: str) -> None:
        nonlocal statements
        statements -= 1
        if not statements:
            os.kill(os.getpid(), signal.SIGKILL)

    database = opened(path)
    database._connection.set_trace_callback(count_down)
    while (done := database.memory("digits", BUNDLE).rounds) < ROUNDS:
        play(database, done + 1)


def end_of_a_life(path: Path, seed: int) -> int:
    child = os.fork()
    if not child:
        try:
            live(path, seed)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_between_any_two_statements_it_is_that_of_the_round_whose_update_is_there(tmp_path):
    kills = 0
    for seed in range(100):
        end = end_of_a_life(tmp_path, seed)
        database = opened(tmp_path)
        rounds = database.memory("digits", BUNDLE).rounds
        rows = [database.read(number).payload for number in database.waiting_numbers()]
        assert rows == [b"update %d" % number for number in range(1, rounds + 1)]
        assert {OWN.of(database), DRIFT.of(database)} == {left(rounds) if rounds else b""}
        database.close()
        if end == 0:
            break
        assert end == -signal.SIGKILL
        kills += 1
    assert rounds == ROUNDS
    assert kills > 1


@BOTH
def test_a_round_that_keeps_nothing_leaves_it_as_it_was(database, kept):
    database.withhold("digits", BUNDLE, 41, 2.0)
    database.spool(SpooledRound("digits", BUNDLE, 7, 42, (), b""), lambda row: row.payload)
    assert kept.of(database) == left(1)
    database.withhold("digits", BUNDLE, 43, 2.0, KeptOfRound(**{kept.field: left(2)}))
    assert kept.of(database) == left(2)


def test_a_round_that_has_failed_leaves_what_it_knows_against_drift(database):
    database.set_drift_memory("digits", BUNDLE, 0, None)
    assert DRIFT.of(database) == left(1)
    database.set_drift_memory("digits", BUNDLE, 0, left(2))
    assert DRIFT.of(database) == left(2)


@BOTH
def test_a_power_cut_while_the_round_is_committed_leaves_that_of_the_round_before(database, kept):
    def power_cut(_row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(database, 2, sign=power_cut)
    assert kept.of(database) == left(1)
    assert database.memory("digits", BUNDLE).residual == b"residual 1"


@BOTH
def test_another_bundle_or_task_begins_anew(database, kept):
    assert kept.read(database, "digits", OTHER, 0) == b""
    assert kept.read(database, "other", BUNDLE, 0) == b""


def test_what_is_left_against_drift_is_of_one_generation(database):
    assert database.drift_memory("digits", BUNDLE, 1) == b""
    play(database, 2, generation=1)
    assert database.drift_memory("digits", BUNDLE, 1) == left(2)
    assert DRIFT.of(database) == b""


def rows_of(database: DeviceDatabase) -> dict[str, int]:
    """How many rows each table has of what rounds keep."""
    count = "SELECT COUNT(*) FROM {}"
    tables = ("own_models", "drift_memories", "round_figures")
    return {table: database._connection.execute(count.format(table)).fetchone()[0] for table in tables}


@pytest.mark.parametrize(
    ("known", "stay"),
    [
        (KnownVersion(8, BUNDLE, "aa" * 32), (1, 1, 1)),
        (KnownVersion(8, OTHER, "aa" * 32), (0, 0, 0)),
        (KnownVersion(8, BUNDLE, "aa" * 32, 1), (1, 0, 1)),
        (KnownVersion(8, BUNDLE, "aa" * 32, 1, removed=True), (0, 0, 0)),
    ],
    ids=["its next version", "another bundle", "another generation", "its end"],
)
def test_a_manifest_takes_with_it_what_no_round_will_begin_with(database, known, stay):
    database.set_known_version("other", KnownVersion(1, OTHER, "aa" * 32, 3, removed=True))
    assert tuple(rows_of(database).values()) == (1, 1, 1), "of another task"
    database.set_known_version("digits", known)
    assert tuple(rows_of(database).values()) == stay
    assert database.memory("digits", BUNDLE).residual == b"residual 1"


def test_a_round_that_ends_behind_the_end_of_its_task_keeps_nothing(database):
    database.set_known_version("digits", KnownVersion(8, BUNDLE, "aa" * 32, 1, removed=True))
    play(database, 2)
    database.withhold("digits", BUNDLE, 43, 2.0, KeptOfRound(0, left(3), left(3)))
    database.set_drift_memory("digits", BUNDLE, 0, left(4))
    assert set(rows_of(database).values()) == {0}


@BOTH
def test_a_flipped_bit_costs_it_and_nothing_else(tmp_path, caplog, kept):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute(f"UPDATE {kept.table} SET kept = ?", (left(9),))
        connection.commit()
    database = opened(tmp_path)
    assert kept.of(database) == b""
    assert kept.words in caplog.text
    assert database.memory("digits", BUNDLE).residual == b"residual 1"
    play(database, 2)
    assert kept.of(database) == left(2)
    database.close()


@BOTH
def test_file_of_the_layout_before_gets_the_table(tmp_path, kept):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute(f"DROP TABLE {kept.table}")
        connection.execute(f"PRAGMA user_version = {kept.layout - 1}")
        connection.commit()
    database = opened(tmp_path)
    assert kept.of(database) == b""
    assert database.memory("digits", BUNDLE).residual == b"residual 1"
    assert [database.read(number).payload for number in database.waiting_numbers()] == [b"update 1"]
    database.close()
