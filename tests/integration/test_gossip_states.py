"""The state of a task among neighbours in agent.db: of one round, whole, through kills, damage and earlier layouts."""

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.gossip.state import (
    CHANGE,
    HEAD,
    LAYOUT,
    MODEL,
    WHOLE,
    CopyHead,
    CopyState,
    PeerHead,
    PeerState,
    change_part,
    values_part,
)
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.storage.device_database import DeviceDatabase, KeptOfRound
from edge_agent.shell.storage.gossip_states import FIRST_SCHEMA

BUNDLE, OTHER = "0f" * 32, "f0" * 32
ROUNDS = 8


def opened(path: Path) -> DeviceDatabase:
    return DeviceDatabase(path / "agent.db")


def state(rounds: int) -> PeerState:
    """Behind so many rounds, in which the neighbours have told as many changes."""
    heads = {name: CopyHead(3, rounds, rounds, (), rounds - 1, 0.5) for name in ("barn", "cellar")}
    changes = tuple(b"change %d" % number for number in range(2, rounds + 1))
    copies = {name: CopyState(head, b"1234", changes) for name, head in heads.items()}
    head = PeerHead(LAYOUT, 5, rounds, rounds, rounds, 1.0, heads)
    return PeerState(head, b"%04d" % rounds, b"whole %d" % rounds, b"last %d" % rounds, copies)


def play(database: DeviceDatabase, rounds: int) -> None:
    before = database.gossip_states.read("digits", BUNDLE)
    changed = {name: part for name, part in state(rounds).parts.items() if before.get(name) != part}
    database.withhold("digits", BUNDLE, rounds, 1.0, KeptOfRound(gossip=changed))


@pytest.fixture
def database(tmp_path):
    """Behind two rounds."""
    found = opened(tmp_path)
    play(found, 1)
    play(found, 2)
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


def test_killed_between_any_two_statements_all_parts_are_of_the_last_round_that_counts(tmp_path):
    kills = 0
    for seed in range(100):
        end = end_of_a_life(tmp_path, seed)
        with closing(opened(tmp_path)) as database:
            rounds = database.memory("digits", BUNDLE).rounds
            assert database.gossip_states.read("digits", BUNDLE) == (state(rounds).parts if rounds else {})
        if end == 0:
            break
        assert end == -signal.SIGKILL
        kills += 1
    assert rounds == ROUNDS
    assert kills > 1


@pytest.mark.parametrize(
    ("part", "known"),
    [
        (values_part("barn"), {"cellar"}),
        (change_part("barn", 2), {"cellar"}),
        (CHANGE, {"barn", "cellar"}),
        (MODEL, None),
        (WHOLE, None),
        (HEAD, None),
    ],
)
def test_a_damaged_row_costs_what_it_holds(tmp_path, database, part, known, caplog):
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("UPDATE gossip_states SET kept = x'00' WHERE part = ?", (part,))
        connection.commit()
    with closing(opened(tmp_path)) as found:
        head = found.gossip_states.head("digits", BUNDLE)
        assert (head and head.copies.keys()) == known
        assert (found.gossip_states.model("digits", BUNDLE, 1) == b"0002") is (known is not None)
    assert "a part of what this device knows among neighbours" in caplog.text


def test_the_agent_reads_no_vectors_for_what_is_no_matter_of_numbers(database):
    read = []
    database._connection.set_trace_callback(read.append)
    assert database.gossip_states.head("digits", BUNDLE) == state(2).head
    assert database.gossip_states.read("digits", BUNDLE, CHANGE) == {CHANGE: b"last 2"}
    assert sum(statement.startswith("SELECT kept") for statement in read) == 2


def test_a_state_goes_with_its_bundle(database):
    assert database.gossip_states.read("digits", OTHER) == {}
    database.set_known_version("digits", KnownVersion(0, OTHER, "00", 1))
    assert database.gossip_states.read("digits", BUNDLE) == {}


def test_a_state_of_the_layout_before_goes_on_and_a_model_of_the_devices_own_stays(tmp_path, database):
    expected = msgspec.structs.replace(state(2), copies={}, head=msgspec.structs.replace(state(2).head, copies={}))
    copies = {"barn": (3, 2, 2, (), b"1234", 0.5)}
    earlier = (1, 5, 2, 2, 2, 1.0, expected.model, expected.whole, expected.change, copies)
    own = b"\x9a\x01" + bytes(6)
    database.withhold("digits", BUNDLE, 2, 1.0, KeptOfRound(own=msgspec.msgpack.encode(earlier)))
    database.withhold("rooms", BUNDLE, 2, 1.0, KeptOfRound(own=own))
    database.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection:
        connection.execute("DROP TABLE gossip_states")
        connection.execute(f"PRAGMA user_version = {FIRST_SCHEMA - 1}")
        connection.commit()
    for _start in range(2):
        with closing(opened(tmp_path)) as found:
            kept = found.gossip_states.read("digits", BUNDLE)
            copy = CopyState(CopyHead(3, 2, 2, (), 0, 0.5), b"1234")
            head = msgspec.structs.replace(expected.head, copies={"barn": copy.head})
            assert kept == msgspec.structs.replace(expected, head=head, copies={"barn": copy}).parts
            assert found.own_model("digits", BUNDLE) == b""
            assert found.own_model("rooms", BUNDLE) == own
