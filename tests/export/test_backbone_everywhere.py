"""A bundle with a backbone serves wherever any bundle does: evaluation, inspection and simulation take raw inputs."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from broker_coordinator import cli
from broker_coordinator.aggregation.version import version_zero
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import EVALUATED_AT_ONCE
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from fleet_protocol.bundle_files import BACKBONE_FILE, EVALUATE_FILE, TRAIN_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from tests.support.backbone import INT8, NAMED, export_backbone_bundle
from workbench.inspection.bundle_inspection import inspect_bundle
from workbench.simulation.show import Request, prepare
from workbench.simulation.simulation import Options
from workbench.simulation.workload import trained_workload

CHANCE = 0.1
"""Random features and a small head learn slowly; how well is not the point."""
ROWS = EVALUATED_AT_ONCE + 44
RANDOM = np.random.default_rng(3)
SAMPLES = Samples(RANDOM.random((ROWS, 64), np.float32), RANDOM.integers(0, 10, ROWS))


@pytest.fixture(scope="module", params=[NAMED, INT8], ids=["float32", "int8"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("backbone")
    export_backbone_bundle(place, backbone=request.param)
    return place / "bundle"


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


@pytest.fixture(scope="module")
def weights(bundle: Bundle) -> FloatVector:
    """Of version 0, as it is published."""
    return read_weights(version_zero(bundle).weights, bundle.description.parameters)


def features_of(folder: Path, inputs: np.ndarray) -> np.ndarray:
    """By onnxruntime alone."""
    return onnxruntime.InferenceSession(folder / BACKBONE_FILE).run(["features"], {"inputs": inputs})[0]


def expected(folder: Path, weights: FloatVector, samples: Samples) -> tuple[float, float]:
    """Mean loss and accuracy, by onnxruntime alone."""
    feeds = {"weights": weights, "inputs": features_of(folder, samples.inputs), "labels": samples.labels}
    losses, correct = onnxruntime.InferenceSession(folder / EVALUATE_FILE).run(["losses", "correct"], feeds)
    return float(losses.mean()), float(correct.mean())


def test_graphs_are_described_with_their_versions(bundle):
    graphs = {name for name in bundle.description.files if name.endswith(".onnx")}
    assert bundle.description.onnx_versions.keys() == graphs
    assert BACKBONE_FILE in graphs


def test_command_evaluates_a_version_on_raw_inputs(tmp_path, folder, bundle, weights, capsys):
    np.savez(tmp_path / "held-out.npz", inputs=SAMPLES.inputs, labels=SAMPLES.labels)
    with Journal.open(tmp_path / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(bundle)
    configuration = tmp_path / "coordinator.toml"
    configuration.write_text(
        'fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n'
    )
    command = ["tasks", "--config", str(configuration), "evaluate", "digits", "--json"]
    assert cli.main([*command, "--data", str(tmp_path / "held-out.npz")]) == 0
    told = json.loads(capsys.readouterr().out)
    loss, accuracy = expected(folder, weights, SAMPLES)
    assert told["samples"] == ROWS
    assert told["loss"] == pytest.approx(loss, rel=1e-5)
    assert told["accuracy"] == pytest.approx(accuracy)


def test_inspection_measures_a_round_and_what_the_backbone_takes(folder):
    found = inspect_bundle(folder)
    assert BACKBONE_FILE in {graph.name for graph in found.graphs}
    assert all(need.step_ms > 0 and need.feature_ms > 0 and need.fits for need in found.needs)


def test_simulated_devices_train_on_features_and_are_scored_on_raw_held_out_samples(folder, bundle, weights):
    parts = [SAMPLES.take(slice(40)), SAMPLES.take(slice(40, 100))]
    held_out = SAMPLES.take(slice(100, None))
    workload = trained_workload(folder, bundle.description, parts, held_out)
    assert workload.score(weights) == pytest.approx(expected(folder, weights, held_out)[1])
    given = workload.samples(1, np.arange(60))
    np.testing.assert_allclose(given.inputs, features_of(folder, parts[1].inputs), rtol=0, atol=1e-5)

    plan = plan_batches(len(given), 20, 8, 0)
    trained, losses = workload.engine.train(weights, given, plan, Rates(0.1))
    feeds = {
        "weights": weights, "inputs": given.inputs, "labels": given.labels, "batches": plan.rows, "mask": plan.mask,
        "learning_rate": np.float32(0.1), "weight_decay": np.float32(0), "gradient_clip": np.float32(np.inf),
        "proximal": np.float32(0), "seed": np.int64(plan.seed),
    }  # fmt: skip
    session = onnxruntime.InferenceSession(folder / TRAIN_FILE)
    taken = {entry.name: np.asarray(feeds[entry.name]) for entry in session.get_inputs()}
    for found, wanted in zip((trained, losses), session.run(["trained_weights", "losses"], taken), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_simulated_fleet_learns_digits_through_a_backbone(folder):
    request = Request(4, ["pi-4"], None, str(folder), "digits", None, 0.3, None, None, None, as_json=True)
    summary = prepare(request, Options(seed=0, seconds=240 * 3600, score_every=10)).run().summary
    assert summary.refused == {}
    assert summary.score > 3 * CHANCE
