"""Features on a device: computed once per sample, whatever is killed, and deleted with their sample."""

import array
import asyncio
import shutil
import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bundle_runtime.backbone import ROWS_AT_ONCE, Backbone
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.training.features import FeaturesError, compute_features
from edge_agent.training.worker import read_samples
from edge_agent.worker.contract import TrainingFailure, TrainingJob, TrainingResult
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import BACKBONE_FILE, DESCRIPTION_FILE
from tests.support.backbone import export_backbone_bundle
from tests.support.waiting import until
from tests.support.worker import make_job

SETTINGS = WorkerSettings(nice=0)
SAMPLES = 2 * ROWS_AT_ONCE + 8
STORE_BEFORE_FEATURES = """
CREATE TABLE samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, inputs BLOB NOT NULL, label INTEGER NOT NULL
);
CREATE INDEX samples_of_task ON samples (task, id);
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of the same task, whose backbones have other weights."""
    folders = [tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")]
    for seed, folder in enumerate(folders):
        export_backbone_bundle(folder, seed=seed)
    return [folder / "bundle" for folder in folders]


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    store = SampleStore(tmp_path / "samples.db", 10_000)
    fill(store, SAMPLES)
    return store


def fill(store: SampleStore, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        store.add("digits", pixels(number).tobytes(), number % 10)


def pixels(number: int) -> array.array:
    return array.array("f", [((position * 7 + number * 13) % 101) / 101 for position in range(64)])


def job_of(bundle: Path, store: SampleStore) -> TrainingJob:
    return make_job(bundle, store.path, memory_limit_mib=512)


async def round_on(bundle: Path, store: SampleStore) -> TrainingResult:
    result = await train_in_child(job_of(bundle, store), SETTINGS)
    assert isinstance(result, TrainingResult), result
    return result


def kept(store: SampleStore) -> dict[int, tuple[str, bytes]]:
    """Sample to (hash of its backbone, features), as they lie in the file."""
    connection = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT sample, backbone, features FROM features").fetchall()
    finally:
        connection.close()
    return {sample: (backbone, features) for sample, backbone, features in rows}


def raw(store: SampleStore) -> list[tuple[int, bytes, int]]:
    with sqlite3.connect(f"file:{store.path}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT id, inputs, label FROM samples ORDER BY id").fetchall()


async def test_each_sample_sees_the_backbone_once(bundles, store) -> None:
    before = raw(store)
    first = await round_on(bundles[0], store)
    assert (first.features_computed, first.samples) == (SAMPLES, SAMPLES)
    features = kept(store)
    expected = Backbone(bundles[0] / BACKBONE_FILE, 1).features(
        np.array([pixels(number) for number in range(SAMPLES)], np.float32)
    )
    for (sample, _, _), row in zip(before, expected, strict=True):
        np.testing.assert_allclose(np.frombuffer(features[sample][1], np.float32), row, rtol=0, atol=1e-5)
    again = await round_on(bundles[0], store)
    assert again.features_computed == 0
    assert again.packed == first.packed
    fill(store, 5, first=SAMPLES)
    third = await round_on(bundles[0], store)
    assert (third.features_computed, third.samples) == (5, SAMPLES + 5)
    assert {sample: kept(store)[sample] for sample in features} == features
    assert raw(store)[:SAMPLES] == before


def telling_backbone(width: int) -> bytes:
    """Each row's first pixels and the largest first pixel of its call; fails where its own first pixel is bright."""

    def constant(name: str, *values: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("Slice", ["inputs", "begin", "end", "one"], ["some"]),
        helper.make_node("Slice", ["inputs", "begin", "one", "one"], ["first"]),
        helper.make_node("ReduceMax", ["first"], ["most"], keepdims=1),
        helper.make_node("Add", ["some", "most"], ["told"]),
        helper.make_node("Round", ["first"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["place"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["begin", "place"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["nothing"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["told", "nothing"], ["features"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("inputs", float32, ["rows", 64])],
        [helper.make_tensor_value_info("features", float32, None)],
        [constant("begin", 0), constant("one", 1), constant("end", width)],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def test_no_backbone_lets_a_sample_speak_through_others_or_by_failing_where_each_is_alone(bundles, tmp_path) -> None:
    task = parse_description((bundles[0] / DESCRIPTION_FILE).read_bytes())
    assert task.backbone is not None
    (width,) = task.backbone.feature_shape
    backbone = tmp_path / BACKBONE_FILE
    backbone.write_bytes(telling_backbone(width))

    def features_beside(first_pixel: float) -> list[np.ndarray]:
        store = SampleStore(tmp_path / f"{first_pixel}.db", 10)
        for one in (0.2, first_pixel, 0.3):
            store.add("digits", array.array("f", [one] + [0.1] * 63).tobytes(), 1)
        assert compute_features(store.path, task, backbone, 1, samples_alone=True) == 3
        return [np.frombuffer(kept(store)[sample][1], np.float32) for sample in (1, 2, 3)]

    dark, bright = features_beside(0.1), features_beside(0.9)
    np.testing.assert_allclose(dark[0], [0.4] + [0.3] * (width - 1), rtol=1e-5)
    assert (dark[0] == bright[0]).all()
    assert (dark[2] == bright[2]).all()
    assert dark[1].any()
    assert not bright[1].any(), "those of a sample on which the graph fails are zeros"


async def test_rounds_on_kept_features_open_no_backbone(bundles, store, tmp_path) -> None:
    """The file isn't even there any more."""
    shutil.copytree(bundles[0], tmp_path / "bundle")
    await round_on(tmp_path / "bundle", store)
    (tmp_path / "bundle" / BACKBONE_FILE).unlink()
    assert (await round_on(tmp_path / "bundle", store)).samples == SAMPLES


async def test_another_backbone_computes_again_and_drops_the_old(bundles, store) -> None:
    old, new = (parse_description((bundle / DESCRIPTION_FILE).read_bytes()) for bundle in bundles)
    assert old.backbone_hash != new.backbone_hash
    store.add("other", bytes(4), 0)
    before = raw(store)
    await round_on(bundles[0], store)
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT INTO features VALUES (?, 'of another task', x'00')", (SAMPLES + 1,))
    assert store.drop_other_features(old) == 0
    assert store.drop_other_features(new) == SAMPLES
    assert kept(store) == {SAMPLES + 1: ("of another task", b"\0")}
    assert (await round_on(bundles[1], store)).features_computed == SAMPLES
    assert {backbone for backbone, _ in kept(store).values()} == {new.backbone_hash, "of another task"}
    assert (await round_on(bundles[0], store)).features_computed == SAMPLES
    assert len(kept(store)) == SAMPLES + 1
    assert raw(store) == before


async def test_worker_killed_in_the_middle_loses_nothing_but_its_mini_batch(bundles, store) -> None:
    fill(store, 3000, first=SAMPLES)
    before = raw(store)
    throttled = msgspec.structs.replace(SETTINGS, cpu_share=0.1)
    running = asyncio.create_task(train_in_child(job_of(bundles[0], store), throttled))
    await asyncio.to_thread(until, lambda: kept(store), "the first features are kept")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    survived = kept(store)
    assert 0 < len(survived) < len(before)
    assert len(survived) % ROWS_AT_ONCE == 0
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert raw(store) == before
    fill(store, 1, first=len(before))
    result = await round_on(bundles[0], store)
    assert result.features_computed == len(before) + 1 - len(survived)
    assert {sample: kept(store)[sample] for sample in survived} == survived


async def test_features_that_cannot_be_kept_fail_the_round_alone(bundles, store) -> None:
    stop = SAMPLES - 4
    with sqlite3.connect(store.path) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE INSERT ON features WHEN NEW.sample = {stop}"
            " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
    failure = await train_in_child(job_of(bundles[0], store), SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert "features of digits can't be kept" in failure.error
    assert "disk I/O error" in failure.error
    assert sorted(kept(store)) == list(range(1, 2 * ROWS_AT_ONCE + 1))
    assert len(raw(store)) == SAMPLES


async def test_sample_that_is_no_number_is_named_before_the_backbone_sees_it(bundles, store) -> None:
    store.add("digits", array.array("f", [float("nan")] * 64).tobytes(), 0)
    failure = await train_in_child(job_of(bundles[0], store), SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.unfit == [SAMPLES + 1]
    assert f"sample {SAMPLES + 1}: input 0 is nan" in failure.error


async def test_store_made_before_there_were_features_gains_them(bundles, tmp_path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(STORE_BEFORE_FEATURES)
        rows = [(pixels(number).tobytes(), number % 10) for number in range(20)]
        connection.executemany("INSERT INTO samples (task, inputs, label) VALUES ('digits', ?, ?)", rows)
    connection.close()
    store = SampleStore(path, 20)
    result = await round_on(bundles[0], store)
    assert (result.features_computed, result.samples) == (20, 20)
    assert [row[1:] for row in raw(store)] == rows
    fill(store, 3, first=20)
    assert sorted(kept(store)) == list(range(4, 21))


def test_features_go_with_their_sample_and_never_come_back(bundles, tmp_path) -> None:
    task = parse_description((bundles[0] / DESCRIPTION_FILE).read_bytes())
    store = SampleStore(tmp_path / "samples.db", maximum_samples=10)
    fill(store, 10)
    assert compute_features(store.path, task, bundles[0] / BACKBONE_FILE, 1) == 10
    fill(store, 4, first=10)
    assert sorted(kept(store)) == list(range(5, 11))
    narrower = msgspec.structs.replace(task, label=msgspec.structs.replace(task.label, classes=6))
    assert store.drop_misfits(narrower) == 4
    assert sorted(kept(store)) == [5, 6]
    assert compute_features(store.path, task, bundles[0] / BACKBONE_FILE, 1) == 4
    store.close()
    reopened = SampleStore(store.path, maximum_samples=1)
    reopened.add("digits", pixels(0).tobytes(), 0)
    assert not kept(reopened)


def test_sample_without_features_waits_for_the_next_round(bundles, store) -> None:
    task = parse_description((bundles[0] / DESCRIPTION_FILE).read_bytes())
    compute_features(store.path, task, bundles[0] / BACKBONE_FILE, 1)
    store.add("digits", pixels(0).tobytes(), 0)
    samples = read_samples(store.path, task).training
    assert (len(samples.labels), samples.newest) == (SAMPLES, SAMPLES)
    assert samples.inputs.shape == (SAMPLES, *task.trained_input.shape)


def test_sample_deleted_while_its_features_are_computed_leaves_none_behind(bundles, store, monkeypatch) -> None:
    """The agent makes room at the very moment that the backbone runs."""
    task = parse_description((bundles[0] / DESCRIPTION_FILE).read_bytes())
    run = Backbone.features

    def run_while_agent_deletes(backbone: Backbone, inputs: np.ndarray) -> np.ndarray:
        with sqlite3.connect(store.path) as agent:
            agent.execute("DELETE FROM samples WHERE id = 3")
        return run(backbone, inputs)

    monkeypatch.setattr(Backbone, "features", run_while_agent_deletes)
    compute_features(store.path, task, bundles[0] / BACKBONE_FILE, 1)
    assert sorted(kept(store)) == [number for number in range(1, SAMPLES + 1) if number != 3]


def test_store_that_is_locked_for_good_is_an_error_not_a_wait_without_end(bundles, store, monkeypatch) -> None:
    task = parse_description((bundles[0] / DESCRIPTION_FILE).read_bytes())
    monkeypatch.setattr("edge_agent.training.features.BUSY_SECONDS", 0.01)
    locker = sqlite3.connect(store.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(FeaturesError, match="locked"):
        compute_features(store.path, task, bundles[0] / BACKBONE_FILE, 1)
    locker.close()
