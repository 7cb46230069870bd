"""`broker-coordinator clusters`, and what `tasks export` and `tasks evaluate` make of a cluster's copy."""

import json
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.cli import main
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import read_model, read_weights
from tests.support.agent import copy_digits_bundle, sample
from tests.support.bench import Bench
from tests.support.bundles import write_bundle
from tests.support.device import SigningDevice

ATTIC = SigningDevice("attic")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return copy_digits_bundle(tmp_path / "digits", clusters=ClusterPlan(2), buffer_size=1)


@pytest.fixture
def configuration(tmp_path: Path, bundle: Bundle) -> Path:
    """Of a coordinator that has made one version, of an update of cluster 2; it has still its database open."""
    bench = Bench(tmp_path / "coordinator.db", bundle)
    bench.handle(ATTIC, ATTIC.enrolment())
    path = tmp_path / "coordinator.toml"
    path.write_text('fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n')
    assert main(["clusters", "--config", str(path), "assign", "digits", "attic", "2"]) == 0
    shapes = bundle.description.trained_shapes
    bench.handle(ATTIC, ATTIC.update(1, task="digits", shapes=shapes, cluster=2))
    bench.make_versions()
    samples = [sample(number) for number in range(10)]
    inputs = np.array([each["inputs"] for each in samples], np.float32)
    np.savez(tmp_path / "held-out.npz", inputs=inputs, labels=np.arange(10))
    return path


def run(configuration: Path, *words: str) -> int:
    noun, *others = words
    return main([noun, "--config", str(configuration), "--json", *others])


def asked(configuration: Path, capsys, *words: str):
    capsys.readouterr()
    assert run(configuration, *words) == 0
    return json.loads(capsys.readouterr().out)


def test_devices_are_shown_with_their_clusters_whether_they_have_enrolled_or_not(configuration, capsys) -> None:
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        DeviceRegistry(journal.engine).approve("barn", SigningDevice("barn").key.verify_key)
    shown = asked(configuration, capsys, "clusters", "assign", "digits", "cellar", "1")
    assert shown == asked(configuration, capsys, "clusters", "show", "digits")
    assert [(each["device"], each["cluster"], each["state"]) for each in shown] == [
        ("attic", 2, "approved"),
        ("barn", 0, "approved"),
        ("cellar", 1, None),
    ]
    assert [each["device"] for each in asked(configuration, capsys, "clusters", "assign", "digits", "cellar", "0")] == [
        "attic",
        "barn",
    ]


def test_export_writes_the_bundles_own_tensors_as_a_cluster_has_them(configuration, bundle, capsys) -> None:
    task, folder = bundle.description, configuration.parent
    with Journal.open(folder / "coordinator.db") as journal:
        version = journal.version("digits", 1).weights
    for cluster in range(3):
        out = folder / f"model-{cluster}.safetensors"
        words = ["--cluster", str(cluster)] if cluster else []
        assert run(configuration, "tasks", "export", "digits", str(out), *words) == 0
        exported = read_weights(out.read_bytes(), task.parameters)
        np.testing.assert_array_equal(exported, read_model(version, task, cluster))
    models = [(folder / f"model-{cluster}.safetensors").read_bytes() for cluster in range(3)]
    assert models[0] == models[1] != models[2]


def test_evaluation_of_a_cluster_is_said_and_that_of_copy_0_is_stored(configuration, capsys) -> None:
    data = ["--data", str(configuration.parent / "held-out.npz")]
    of_none = asked(configuration, capsys, "tasks", "evaluate", "digits", *data)
    of_cluster = asked(configuration, capsys, "tasks", "evaluate", "digits", *data, "--cluster", "2")
    assert "cluster" not in of_none
    assert of_cluster["cluster"] == 2
    assert of_cluster["loss"] != of_none["loss"]
    versions = asked(configuration, capsys, "tasks", "show", "digits")["versions"]
    stored = next(each["evaluation"] for each in versions if each["number"] == 1)
    assert stored["loss"] == of_none["loss"]


@pytest.mark.parametrize(
    "words",
    [
        ["clusters", "assign", "digits", "attic", "3"],
        ["tasks", "export", "digits", "out", "--cluster", "3"],
        ["tasks", "evaluate", "digits", "--data", "held-out.npz", "--cluster", "3"],
    ],
)
def test_a_cluster_that_the_task_has_not_is_refused_with_those_that_it_has(configuration, capsys, words) -> None:
    words = [str(configuration.parent / word) if word == "held-out.npz" else word for word in words]
    assert run(configuration, *words) == 2
    assert "task 'digits' has no cluster 3: it has 1 to 2 (clusters.most), and 0 is none" in capsys.readouterr().err


def test_clusters_of_a_task_that_has_none_are_refused_with_what_to_do(configuration, capsys, tmp_path) -> None:
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(write_bundle(tmp_path / "plain", task="plain"))
    for words in (["clusters", "show", "plain"], ["tasks", "export", "plain", "out", "--cluster", "1"]):
        assert run(configuration, *words) == 2
        assert "has one model for all devices; export it with [clusters]" in capsys.readouterr().err
