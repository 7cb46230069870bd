"""What a round leaves against drift: committed with its update or not at all, and of one generation alone."""

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_agent.core.outbox import SpooledPayload
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from fleet_protocol.kinds import UPDATE

BUNDLE, OTHER = "0f" * 32, "f0" * 32
ROUNDS = 12


def left(number: int) -> bytes:
    """What the round of this number leaves."""
    return np.full(50, number, np.float32).tobytes()


def play(database: DeviceDatabase, number: int, generation: int = 0) -> None:
    payload = SpooledPayload(UPDATE.number, b"", b"update %d" % number)
    spooled = SpooledRound(
        "digits", BUNDLE, 7, number, (payload,), b"residual", generation=generation, drift=left(number)
    )
    database.spool(spooled, lambda row: row.payload)


def opened(path: Path) -> DeviceDatabase:
    return DeviceDatabase(path / "agent.db")


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
        assert database.drift_memory("digits", BUNDLE, 0) == (left(rounds) if rounds else b"")
        database.close()
        if end == 0:
            break
        assert end == -signal.SIGKILL
        kills += 1
    assert rounds == ROUNDS
    assert kills > 1


def test_a_round_that_sends_nothing_leaves_it_as_it_was(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    database.withhold("digits", BUNDLE, 41, 2.0)
    database.spool(SpooledRound("digits", BUNDLE, 7, 42, (), b""), lambda row: row.payload)
    assert database.drift_memory("digits", BUNDLE, 0) == left(1)
    database.close()


def test_a_power_cut_while_the_round_is_committed_leaves_that_of_the_round_before(tmp_path):
    def power_cut(_row):
        raise KeyboardInterrupt

    database = opened(tmp_path)
    play(database, 1)
    payload = SpooledPayload(UPDATE.number, b"", b"update 2")
    with pytest.raises(KeyboardInterrupt):
        database.spool(SpooledRound("digits", BUNDLE, 7, 2, (payload,), b"new", drift=left(2)), power_cut)
    assert database.drift_memory("digits", BUNDLE, 0) == left(1)
    database.close()


def test_another_generation_or_bundle_begins_anew(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    assert database.drift_memory("digits", BUNDLE, 1) == b""
    assert database.drift_memory("digits", OTHER, 0) == b""
    assert database.drift_memory("other", BUNDLE, 0) == b""
    play(database, 2, generation=1)
    assert database.drift_memory("digits", BUNDLE, 1) == left(2)
    assert database.drift_memory("digits", BUNDLE, 0) == b""
    database.close()


def test_a_flipped_bit_costs_it_and_nothing_else(tmp_path, caplog):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("UPDATE drift_memories SET kept = ?", (left(9),))
        connection.commit()
    database = opened(tmp_path)
    assert database.drift_memory("digits", BUNDLE, 0) == b""
    assert "left against drift" in caplog.text
    assert database.memory("digits", BUNDLE).residual == b"residual"
    database.close()


def test_file_of_the_layout_before_gets_the_table(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("DROP TABLE drift_memories")
        connection.execute("PRAGMA user_version = 14")
        connection.commit()
    database = opened(tmp_path)
    assert database.drift_memory("digits", BUNDLE, 0) == b""
    assert [database.read(number).payload for number in database.waiting_numbers()] == [b"update 1"]
    database.close()
