"""Every step of a wake on a device's databases, each with the power cut in it, and what has to hold then."""

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound, TaskMemory
from fleet_protocol.kinds import UPDATE, Outcome
from fleet_protocol.sample_line import Sample
from tests.support.power_cuts import Step, cuts, recorded

TASK = "digits"
BUNDLE = "0f" * 32
MAXIMUM_SAMPLES = 6
ROOM_BYTES = 10_000
"""In the outbox: three updates of these."""

Lengths = Callable[[int, int], Iterable[int]]
DeviceState = tuple[TaskMemory, list[OutboxRow], int, KnownVersion | None]
StoredSamples = list[tuple[int, bytes, int]]


def sign(row: OutboxRow) -> bytes:
    return f"{row.sequence} {row.kind} {row.task} {row.base_version} ".encode() + row.payload


def round_with(payload: bytes, residual: bytes, trained_through: int, returned: tuple[int, ...] = ()) -> SpooledRound:
    return SpooledRound(
        TASK, BUNDLE, 7, trained_through, (SpooledPayload(UPDATE.number, b"", payload),), residual, returned
    )


def device_state(database: DeviceDatabase) -> DeviceState:
    """All that a round and the outbox go on from."""
    waiting = [database.read(number) for number in database.waiting_numbers()]
    rows = [row for row in waiting if row is not None]
    return database.memory(TASK, BUNDLE), rows, database.trained_through(TASK), database.known_version(TASK)


def steps_of_a_wake(path: Path) -> list[Step[DeviceState]]:
    """What an agent writes to `agent.db` from a manifest to the receipts of several rounds."""
    database = DeviceDatabase(path, maximum_waiting_bytes=ROOM_BYTES)

    def settle(number: int, outcome: Outcome, *, returned: bool = False) -> None:
        row = database.read(number)
        assert row is not None
        database.settle(row, outcome, "too_stale" if returned else "", returned=returned)

    def renumber(number: int) -> None:
        row = database.read(number)
        assert row is not None
        database.renumber(row, 40, sign)

    def spool(fill: bytes, trained_through: int, *returned: int) -> None:
        database.spool(round_with(fill * 3000, fill * 6000, trained_through, returned), sign)

    changes: list[tuple[str, Callable[[], object]]] = [
        ("a manifest", lambda: database.set_known_version(TASK, KnownVersion(7, BUNDLE, BUNDLE))),
        ("a round", lambda: spool(b"1", 32)),
        ("before it is sent", lambda: database.note_sent(1)),
        ("a second round", lambda: spool(b"2", 64)),
        ("a receipt", lambda: settle(1, Outcome.ACCEPTED)),
        ("a rejection", lambda: settle(2, Outcome.REJECTED, returned=True)),
        ("a round that takes it back", lambda: spool(b"3", 96, 2)),
        ("a new number", lambda: renumber(3)),
        ("a round that sends nothing", lambda: database.withhold(TASK, BUNDLE, 128, 2.0)),
        ("a round", lambda: spool(b"4", 160)),
        ("a round", lambda: spool(b"5", 192)),
        ("a round for which the outbox has no room", lambda: spool(b"6", 224)),
    ]
    with closing(database):
        return list(recorded(path, changes, lambda: device_state(database)))


def check_cuts_of_agent_db(step: Step[DeviceState], folder: Path, lengths: Lengths) -> int:
    """Cut the power in a step, at each length: the step has happened whole or not at all. Returns how many cuts."""
    done = 0
    for length, path in cuts(step, folder, lengths):
        with closing(DeviceDatabase(path, maximum_waiting_bytes=ROOM_BYTES)) as database:
            found = device_state(database)
            assert found in step.states, f"{step.name}, log cut to {length} bytes"
            used = [row.sequence for row in (*found[1], *found[0].returned)]
            (row,) = database.spool(round_with(b"next", b"residual", 999), sign)
            assert row.sequence > max(used, default=0), "no number is used twice"
        done += 1
    assert done
    return done


def stored(store: SampleStore) -> StoredSamples:
    """What the training worker would read."""
    query = "SELECT id, inputs, label FROM samples WHERE task = ? ORDER BY id"
    return store._connection.execute(query, (TASK,)).fetchall()


def steps_of_samples(path: Path) -> list[Step[StoredSamples]]:
    """What becomes of samples: they come, make room, are corrected and forgotten."""
    store = SampleStore(path, MAXIMUM_SAMPLES, retention="balanced")
    inputs = bytes(range(250)) * 4
    changes: list[tuple[str, Callable[[], object]]] = [
        *((f"sample {number}", lambda number=number: store.add(TASK, inputs, number % 3)) for number in range(8)),
        ("a sample without a schema", lambda: store.add_unjudged(Sample(TASK, [0.5], 1))),
        ("a correction", lambda: store.correct(TASK, store.newest(TASK), 2)),
        ("one forgotten", lambda: store.forget(TASK, [store.newest(TASK)])),
        ("a sample", lambda: store.add(TASK, inputs, 1)),
    ]
    with closing(store):
        return list(recorded(path, changes, lambda: stored(store)))


def check_cuts_of_samples(
    step: Step[StoredSamples], history: list[StoredSamples], folder: Path, lengths: Lengths, *, lost: int = 0
) -> int:
    """Cut the power from a byte of the log on, as its commits are not forced to the disk: what is stored is what was,
    once. Returns how many cuts.
    """
    done = 0
    for length, path in cuts(step, folder, lengths, lost=lost):
        with closing(SampleStore(path, MAXIMUM_SAMPLES, retention="balanced")) as store:
            found = stored(store)
            assert found in history, f"{step.name}, log cut to {length} bytes"
            assert not list(path.parent.glob("*.damaged"))
            assert store.count(TASK) >= len(found)
            store.continue_after(999)  # which a round has seen, before the power was cut
            assert store.add(TASK, b"1234", 1) == 1000
        done += 1
    assert done
    return done
