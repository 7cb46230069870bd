"""The sample store keeps the newest of each task, and its counts are true after whatever happened."""

import random
import sqlite3
from array import array
from functools import partial
from pathlib import Path

import msgspec
import pytest

from edge_agent.shell.samples.sample_retention import TURN_BITS
from edge_agent.shell.samples.sample_store import Judgement, SampleStore
from edge_agent.shell.samples.unjudged_samples import MAX_UNJUDGED_BYTES
from edge_agent.sources.intake import SampleIntake
from edge_agent.training.worker import read_samples
from fleet_protocol.bundle import parse_description
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription

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


def test_samples_keep_their_order_when_the_schema_comes_between_them(path):
    store, known = SampleStore(path, maximum_samples=2), {}
    intake = SampleIntake(
        frozenset({"digits"}), store.add, store.add_unjudged, known.get, lambda _: None, judge=store.judge
    )
    intake.take(Sample("digits", [0.5, 0.5], 0))
    known["digits"] = SMALL
    for label in (1, 2):
        intake.take(Sample("digits", [0.5, 0.5], label))
    store.judge(SMALL)
    assert [label for _, label in stored(path, "digits")] == [1, 2], "the oldest has made room"


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


def test_store_is_held_to_its_bytes_features_included(path):
    store = SampleStore(path, maximum_samples=100, maximum_bytes=10 * len(VALUES))
    for label in range(10):
        store.add("digits", VALUES, label)
    with sqlite3.connect(path) as connection:  # as the training worker does
        connection.executemany(
            "INSERT INTO features VALUES (?, 'backbone', ?)", [(each, VALUES) for each in (3, 9, 10)]
        )
    store.add("digits", VALUES, 10)
    assert [label for _, label in stored(path, "digits")] == [3, 4, 5, 6, 7, 8, 9, 10], "two of them have features"
    assert store.count("digits") == 8
    store.add("other", VALUES, 1)
    assert store.count("digits") == 8, "each task has its own quota"


def test_sample_that_no_quota_holds_is_refused_with_the_remedy(path):
    store = SampleStore(path, maximum_samples=100, maximum_bytes=2**20)
    store.add("digits", VALUES, 1)
    with pytest.raises(ValueError, match=r"of 2\.0 MiB; all of digits may take 1 MiB: raise \[store\] maximum_mib"):
        store.add("digits", bytes(2**21), 1)
    assert store.count("digits") == 1


@pytest.mark.parametrize("limits", [(20, 2**30), (1000, 20 * len(VALUES))])
def test_reservoir_keeps_an_even_draw_of_all_that_came_over_restarts(tmp_path, limits):
    kept = []
    for seed in range(20):
        path, draw = tmp_path / f"{seed}.db", partial(random.Random(seed).getrandbits, TURN_BITS)
        for half in range(2):
            store = SampleStore(path, *limits, "reservoir", draw)
            for place in range(100):
                store.add("digits", VALUES, 100 * half + place)
            store.close()
        kept += [label for _, label in stored(path, "digits")]
    assert len(kept) == 400
    # 400 of 4000 even draws: each tenth of the time has 40 of them, with a standard deviation below 6.
    tenths = [sum(tenth * 20 <= label < (tenth + 1) * 20 for label in kept) for tenth in range(10)]
    assert min(tenths) > 10
    assert max(tenths) < 70


def test_sample_that_a_full_reservoir_does_not_keep_is_not_written(path):
    turns = iter([5, 6, 7, 1, 8])
    store = SampleStore(path, 3, retention="reservoir", draw=lambda: next(turns))
    numbers = [store.add("digits", VALUES, label) for label in range(5)]
    assert numbers == [1, 2, 3, 0, 4]
    assert [label for _, label in stored(path, "digits")] == [1, 2, 4]
    assert store.count_after("digits", 3) == 1


def test_balanced_store_keeps_as_many_of_each_class_as_it_can_and_the_newest_of_each(path):
    store = SampleStore(path, 6, retention="balanced")
    for label in [0] * 10 + [1] + [0] * 10 + [2] * 3 + [0] * 10:
        store.add("digits", VALUES, label)
    assert [label for _, label in stored(path, "digits")] == [1, 2, 2, 2, 0, 0]
    assert [number for number, _ in stored(path, "digits")][-2:] == [33, 34]


def test_balanced_store_of_labels_that_are_no_class_keeps_the_newest(path):
    store = SampleStore(path, 3, retention="balanced")
    labels = [array("f", [value]).tobytes() for value in range(5)]
    for label in labels:
        store.add("digits", VALUES, label)
    assert [label for _, label in stored(path, "digits")] == labels[2:]


@pytest.mark.parametrize("before", ["newest", "reservoir", "balanced"])
@pytest.mark.parametrize("after", ["newest", "reservoir", "balanced"])
def test_another_retention_takes_over_what_is_stored(path, before, after):
    store = SampleStore(path, 8, retention=before)
    for label in range(8):
        store.add("digits", VALUES, label % 2)
    store.close()
    store = SampleStore(path, 4, retention=after)
    for label in range(8):
        store.add("digits", VALUES, label % 2)
    assert store.count("digits") == len(stored(path, "digits")) == 4
    if after != "reservoir":
        assert [number for number, _ in stored(path, "digits")] == [13, 14, 15, 16]


def test_store_of_an_earlier_release_is_kept_and_gains_its_retention(path):
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, inputs BLOB NOT NULL,"
            " label INTEGER NOT NULL)"
        )
        connection.executemany("INSERT INTO samples (task, inputs, label) VALUES ('digits', ?, ?)", [(VALUES, 1)] * 5)
    connection.close()
    store = SampleStore(path, 3, retention="balanced")
    store.add("digits", VALUES, 2)
    assert stored(path, "digits") == [(4, 1), (5, 1), (6, 2)]


def test_corrected_sample_is_new_keeps_its_features_and_no_other_changes(path):
    store = SampleStore(path, 5)
    for label in range(3):
        store.add("digits", array("f", [label, 0]).tobytes(), label)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO features VALUES (2, 'backbone', x'00000000')")
    assert store.correct("digits", 2, 7) == 4
    assert stored(path, "digits") == [(1, 0), (3, 2), (4, 7)]
    assert (store.count("digits"), store.newest("digits"), store.count_after("digits", 3)) == (3, 4, 1)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT sample FROM features").fetchall() == [(4,)]
    assert store.correct("digits", 2, 7) == 0
    assert store.correct("other", 4, 7) == 0
    assert store.find("digits", array("f", [1, 0]).tobytes()) == 4


def test_correction_keeps_a_balanced_store_balanced(path):
    store = SampleStore(path, 4, retention="balanced")
    for label in (0, 0, 1, 1):
        store.add("digits", VALUES, label)
    store.correct("digits", 1, 1)
    store.add("digits", VALUES, 2)
    assert [label for _, label in stored(path, "digits")] == [0, 1, 1, 2]


def test_forgotten_samples_are_in_no_file_any_more(path):
    secret = bytes(range(1, 251)) * 40
    store = SampleStore(path, 100)
    path.with_name("samples.db.damaged").write_bytes(secret)
    for number in range(4):
        store.add("digits", secret, number)
        store.add("other", VALUES, number)
    store.add_unjudged(Sample("digits", [0.123456789], 1))
    assert store.forget("digits") == 5
    assert (store.count("digits"), store.count("other")) == (0, 4)
    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret[1000:1100] not in content
    assert b"0.123456789" not in content
    assert store.add("digits", VALUES, 1) > 8, "numbers are never given again"


def test_what_another_process_deletes_is_counted_no_longer(path):
    store = SampleStore(path, 100)
    for label in range(4):
        store.add("digits", VALUES, label)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM samples WHERE id < 3")
    assert (store.count("digits"), store.newest("digits")) == (2, 4)
