"""The sample store keeps the newest of each task, and its counts are true after whatever happened."""

import sqlite3
from array import array
from pathlib import Path

import msgspec
import pytest

from edge_agent.shell.sample_store import MAX_UNJUDGED_BYTES, Judgement, SampleStore
from edge_agent.training.worker import read_samples
from fleet_protocol.bundle import TaskDescription, parse_description
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_schema import InputSchema, LabelSchema

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
SMALL: TaskDescription = msgspec.structs.replace(DIGITS, input=InputSchema([2], 0.0, 1.0), label=LabelSchema(3))
VALUES = bytes(4 * 2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "samples.db"


def stored(path: Path, task: str) -> list[tuple[int, int]]:
    """(id, label) of what is in the file, as the training worker reads it."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT id, label FROM samples WHERE task = ? ORDER BY id", (task,)).fetchall()
    finally:
        connection.close()


def test_oldest_samples_of_the_same_task_make_room(path):
    store = SampleStore(path, maximum_samples=3)
    store.add("other", VALUES, 9)
    identifiers = [store.add("digits", VALUES, label) for label in range(10)]
    assert stored(path, "digits") == list(zip(identifiers, range(10), strict=True))[-3:]
    assert stored(path, "other") == [(1, 9)]
    assert (store.count("digits"), store.count("other"), store.count("unheard")) == (3, 1, 0)


@pytest.mark.parametrize("maximum", [2, 5, 50])
def test_counts_are_the_same_after_a_restart_and_a_changed_limit(path, maximum):
    store = SampleStore(path, maximum_samples=5)
    identifiers = [store.add("digits", VALUES, label) for label in range(8)]
    store.close()
    store = SampleStore(path, maximum)
    assert store.count("digits") == 5
    assert store.count_after("digits", identifiers[5]) == 2
    assert store.add("digits", VALUES, 8) > identifiers[-1]
    assert store.count("digits") == len(stored(path, "digits")) == min(maximum, 6)


def test_number_of_a_deleted_sample_is_never_given_again(path):
    store = SampleStore(path, maximum_samples=5)
    newest = [store.add("digits", VALUES, 99) for _ in range(3)][-1]
    assert store.drop_misfits(SMALL) == 3
    store.close()
    assert SampleStore(path, 5).add("digits", VALUES, 0) > newest


def test_only_samples_that_do_not_fit_the_schema_are_dropped(path):
    store = SampleStore(path, maximum_samples=10)
    store.add("digits", VALUES, 2)
    store.add("digits", VALUES[:-4], 2)
    store.add("digits", VALUES, 3)
    store.add("digits", VALUES, -1)
    store.add("other", VALUES[:-4], 3)
    assert store.drop_misfits(SMALL) == 3
    assert stored(path, "digits") == [(1, 2)]
    assert (store.count("digits"), store.count("other")) == (1, 1)
    assert store.drop_misfits(SMALL) == 0


def test_full_disk_refuses_new_samples_and_keeps_the_old(path):
    store = SampleStore(path, maximum_samples=10_000)
    store.add("digits", bytes(100), 0)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.add("digits", bytes(100_000), 1)
    assert store.count("digits") == len(stored(path, "digits")) == 1
    store._connection.execute("PRAGMA max_page_count=100000")
    store.add("digits", bytes(100_000), 2)
    assert [label for _, label in stored(path, "digits")] == [0, 2]
    assert store.count("digits") == 2


def test_when_the_oldest_cannot_make_room_nothing_is_stored(path):
    store = SampleStore(path, maximum_samples=2)
    for label in range(2):
        store.add("digits", VALUES, label)
    store._connection.execute("CREATE TEMP TRIGGER cut BEFORE DELETE ON samples BEGIN SELECT RAISE(ABORT, 'cut'); END")
    with pytest.raises(sqlite3.IntegrityError, match="cut"):
        store.add("digits", VALUES, 2)
    assert [label for _, label in stored(path, "digits")] == [0, 1]
    assert store.count("digits") == 2


def test_worker_reads_the_store_wherever_it_lies(tmp_path):
    folder = tmp_path / "50% of #3?"
    folder.mkdir()
    store = SampleStore(folder / "samples.db", 10)
    newest = [store.add("digits", array("f", [0.25, label]).tobytes(), label) for label in range(2)][-1]
    samples = read_samples(folder / "samples.db", SMALL).training
    assert samples.inputs.tolist() == [[0.25, 0.0], [0.25, 1.0]]
    assert (samples.labels.tolist(), samples.newest) == ([0, 1], newest)


@pytest.mark.parametrize(
    ("label", "values"),
    [
        (LabelSchema(2, "multi_label"), [1.0, 0.0]),
        (LabelSchema(kind="regression", values=2), [-0.5, 3.25]),
        (LabelSchema(kind="reconstruction"), []),
    ],
)
def test_worker_reads_labels_of_any_kind_and_leaves_misfits(path, label, values):
    task = msgspec.structs.replace(SMALL, label=label)
    store = SampleStore(path, 10)
    store.add("digits", VALUES, 1)
    store.add("digits", VALUES, bytes(4 * 3))
    newest = store.add("digits", VALUES, array("f", values).tobytes())
    samples = read_samples(path, task).training
    assert (samples.labels.tolist(), samples.newest) == ([values], newest)
    assert store.drop_misfits(task) == 2
    assert store.count("digits") == 1


def test_samples_that_wait_for_a_schema_survive_a_restart_and_are_judged_once(path):
    store = SampleStore(path, maximum_samples=10)
    for values, label in (([0.5, 0.5], 1), ([0.5], 1), ([0.5, 0.5], 2.0), ([2.0, 0.5], 0), ([0.5, 0.5], None)):
        store.add_unjudged(Sample("digits", values, label))
    store.add_unjudged(Sample("other", [1.0], 0))
    store.close()
    store = SampleStore(path, maximum_samples=10)
    assert (store.count("digits"), store.count_after("digits", 0), store.count("other")) == (5, 5, 1)
    assert store.judge(SMALL) == Judgement(2, 3, "input has 1 values; digits takes 2")
    assert [label for _, label in stored(path, "digits")] == [1, 2]
    assert (store.count("digits"), store.count_after("digits", 0), store.count("other")) == (2, 2, 1)
    assert store.judge(SMALL) == Judgement(0, 0, "")


def test_judged_samples_are_new_to_the_next_round_and_the_newest_are_kept(path):
    store = SampleStore(path, maximum_samples=3)
    trained_through = [store.add("digits", VALUES, 0) for _ in range(3)][-1]
    for label in range(5):
        store.add_unjudged(Sample("digits", [0.0, label / 10], label % 3))
    assert store.count("digits") == 6  # three of each
    assert store.judge(SMALL).kept == 3
    assert store.count("digits") == store.count_after("digits", trained_through) == 3
    assert [label for _, label in stored(path, "digits")] == [2, 0, 1]


def test_samples_that_wait_for_a_schema_take_bounded_room(path):
    store = SampleStore(path, maximum_samples=1000)
    large = [0.123456789] * 200_000
    for number in range(12):
        store.add_unjudged(Sample("digits", large, number))
    connection = sqlite3.connect(path)
    count, held = connection.execute("SELECT COUNT(*), SUM(length(sample)) FROM unjudged").fetchone()
    connection.close()
    assert store.count("digits") == count < 12
    assert MAX_UNJUDGED_BYTES // 2 < held <= MAX_UNJUDGED_BYTES
