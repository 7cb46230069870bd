"""The benchmarks on the simulated fleet: what they make of a run, and that every strategy in the table runs."""

import gzip
import json
import struct

import msgspec
import numpy as np
import pytest

from benchmarks import bytes_to_accuracy, gossip, time_to_accuracy
from benchmarks.mnist import IMAGES_FILE, LABELS_FILE
from benchmarks.mnist_fleet import Grid, Rates, contenders_bundle, prepared_arena, smoothed
from bundle_runtime.bundle_folder import load_bundle
from workbench.recipe_folder import find_recipe
from workbench.simulation.ledger import Point

IMAGES = 4000


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    """An arena on pictures that are easy to tell apart, in MNIST's format."""
    folder = tmp_path_factory.mktemp("bars")
    labels = np.random.default_rng(0).integers(0, 10, IMAGES).astype(np.uint8)
    images = np.zeros((IMAGES, 28, 28), np.uint8)
    for label in range(10):
        images[labels == label, 2 * label : 2 * label + 4, 4:24] = 255
    for name, header, content in (
        (IMAGES_FILE, struct.pack(">4i", 2051, IMAGES, 28, 28), images),
        (LABELS_FILE, struct.pack(">2i", 2049, IMAGES), labels),
    ):
        (folder / name).write_bytes(gzip.compress(header + content.tobytes()))
    with prepared_arena(folder) as ready:
        yield ready


def point(updates: int, score: float) -> Point:
    return Point(0.0, 0, updates, 0, 0, 0, score)


def test_scores_are_smoothed_up_to_a_number_of_updates():
    history = [point(10 * index, score) for index, score in enumerate((0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 9.0))]
    assert smoothed(history, 50) == pytest.approx(0.9)


@pytest.mark.parametrize("name", time_to_accuracy.STRATEGIES)
def test_every_strategy_learns(arena, name):
    contender, _ = time_to_accuracy.STRATEGIES[name]
    result = arena.run(contender, Rates(0.4, 1.0, 0.0), 0, 60, stop_at_target=False)
    assert result.summary.updates == 60
    assert result.history[-1].score > result.history[0].score + 0.2
    assert (set(result.summary.staleness) == {0}) == name.startswith("fedavg_sync")


PUBLISHED = [name for name in time_to_accuracy.STRATEGIES if name not in ("fleet_buffer", "default")]


def test_what_was_published_runs_without_what_the_defaults_add():
    usual = load_bundle(find_recipe("digits") / "bundle")
    for name, (contender, _) in time_to_accuracy.STRATEGIES.items():
        task = contenders_bundle(usual, contender, Rates(0.4, 1.0, 0.0)).description
        added = [task.training.epochs_per_round, task.training.maximum_epochs, task.training.validation_share]
        assert (added == [0, 0, 0]) == (name in PUBLISHED)
        assert (task.aggregation.averaged_versions == 1) == (name in PUBLISHED)


def test_tuning_takes_the_rates_that_need_the_fewest_updates(arena):
    grid = Grid(client_learning_rate=(0.0001, 0.4), server_learning_rate=(1.0,), server_momentum=(0.0,))
    assert arena.tune(bytes_to_accuracy.DEFAULT, grid, 60) == Rates(0.4, 1.0, 0.0)


def test_a_race_counts_dense_updates_as_plain_float32(arena, monkeypatch):
    monkeypatch.setattr(bytes_to_accuracy, "UPDATES", 40)
    rates = bytes_to_accuracy.QUICK_RATES | {"textbook": bytes_to_accuracy.QUICK_RATES["dense"]}
    entered = bytes_to_accuracy.contenders(arena, arena)
    entries = {name: bytes_to_accuracy.Entry(*places, rates[name]) for name, places in entered.items()}
    raced = bytes_to_accuracy.race(entries, seed=0)
    assert raced.dense.uplink_bytes == raced.dense.updates * arena.plain_update_bytes
    assert 203_560 < arena.plain_update_bytes < 203_560 + 160
    assert raced.sparse.uplink_bytes < raced.sparse.updates * 1000
    missed = msgspec.structs.replace(raced, sparse=msgspec.structs.replace(raced.sparse, reached=False))
    assert bytes_to_accuracy.report([missed], rates, 1.0)["uplink_ratio"] is None
    ended = {
        name: msgspec.structs.replace(getattr(raced, name), reached=True) for name in ("dense", "sparse", "textbook")
    }
    raced = msgspec.structs.replace(raced, **ended)
    told = json.loads(json.dumps(bytes_to_accuracy.report([raced], rates, 1.0)))
    assert told["uplink_ratio"] == round(told["dense_uplink_bytes"] / told["uplink_bytes"], 1)
    assert told["textbook_uplink_ratio"] == told["uplink_ratio"]  # in one arena, with its rates, it is dense
    assert {"total_ratio", "accuracy", "dense_accuracy", "grid", "chosen"} <= told.keys()


def test_gossip_and_a_coordinator_are_compared_where_they_have_sent_as_much(capsys):
    runs = {run.fleet: run for run in gossip.compared(gossip.field(devices=5, seed=0, hours=1.0))}
    assert runs.keys() == {gossip.COORDINATOR, *gossip.GOSSIP}
    budget = min(run.at_end.megabytes for run in runs.values())
    assert all(run.at_equal_bytes.megabytes <= budget for run in runs.values())
    assert all(run.at_end.rounds > 0 for run in runs.values())
    assert len(capsys.readouterr().out.splitlines()) == len(runs)
