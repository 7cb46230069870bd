"""What a device keeps of a model to itself: committed with its round or not at all, through kills and damage."""

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
ROUNDS = 40


def own(number: int) -> bytes:
    """What the round of this number keeps."""
    return np.full(50, number, np.float32).tobytes()


def play(database: DeviceDatabase, number: int) -> None:
    payload = SpooledPayload(UPDATE.number, b"", b"update %d" % number)
    spooled = SpooledRound("digits", BUNDLE, 7, number, (payload,), b"residual %d" % number, own=own(number))
    database.spool(spooled, lambda row: row.payload)


def opened(path: Path) -> DeviceDatabase:
    return DeviceDatabase(path / "agent.db")


def live(path: Path, seed: int) -> None:
    """One life of the device, up to the statement at which it is killed or to the last round."""
    left = random.Random(seed).randrange(1, 120)

    def count_down(_: str) -> None:
        nonlocal left
        left -= 1
        if not left:
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
    for seed in range(200):
        end = end_of_a_life(tmp_path, seed)
        database = opened(tmp_path)
        memory = database.memory("digits", BUNDLE)
        rows = [database.read(number).payload for number in database.waiting_numbers()]
        assert rows == [b"update %d" % number for number in range(1, memory.rounds + 1)]
        assert database.own_model("digits", BUNDLE) == (own(memory.rounds) if memory.rounds else b"")
        database.close()
        if end == 0:
            break
        assert end == -signal.SIGKILL
        kills += 1
    assert memory.rounds == ROUNDS
    assert kills > 3


def test_a_round_that_keeps_nothing_leaves_what_is_kept(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    database.withhold("digits", BUNDLE, 41, 2.0)
    database.spool(SpooledRound("digits", BUNDLE, 7, 42, (), b""), lambda row: row.payload)
    assert database.own_model("digits", BUNDLE) == own(1)
    database.withhold("digits", BUNDLE, 43, 2.0, own(2))
    assert database.own_model("digits", BUNDLE) == own(2)
    database.close()


def test_another_bundle_of_the_task_begins_with_nothing(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    assert database.own_model("digits", OTHER) == b""
    assert database.own_model("other", BUNDLE) == b""
    database.close()


def test_a_flipped_bit_costs_what_is_kept_and_nothing_else(tmp_path, caplog):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("UPDATE own_models SET kept = ?", (own(9),))
        connection.commit()
    database = opened(tmp_path)
    assert database.own_model("digits", BUNDLE) == b""
    assert "what this device keeps of the task's model to itself" in caplog.text
    assert database.memory("digits", BUNDLE).residual == b"residual 1"
    play(database, 2)
    assert database.own_model("digits", BUNDLE) == own(2)
    database.close()


def test_file_of_the_layout_before_gets_the_table(tmp_path):
    database = opened(tmp_path)
    play(database, 1)
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("DROP TABLE own_models")
        connection.execute("PRAGMA user_version = 12")
        connection.commit()
    database = opened(tmp_path)
    assert database.own_model("digits", BUNDLE) == b""
    assert database.memory("digits", BUNDLE).residual == b"residual 1"
    assert [database.read(number).payload for number in database.waiting_numbers()] == [b"update 1"]
    database.close()


def test_a_power_cut_while_the_round_is_committed_leaves_the_round_before(tmp_path):
    def power_cut(_row):
        raise KeyboardInterrupt

    database = opened(tmp_path)
    play(database, 1)
    payload = SpooledPayload(UPDATE.number, b"", b"update 2")
    with pytest.raises(KeyboardInterrupt):
        database.spool(SpooledRound("digits", BUNDLE, 7, 2, (payload,), b"new", own=own(2)), power_cut)
    assert database.own_model("digits", BUNDLE) == own(1)
    assert database.memory("digits", BUNDLE).residual == b"residual 1"
    database.close()
