"""Pictures that have become alike are said, of the cluster that draws them: measured behind versions."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_coordinator import cli
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.variety_watch import VarietyWatch
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.variety_registry import ClusterTold, VarietyRegistry, VarietyTold
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.drawing import Drawer
from bundle_runtime.variety import variety
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import encode_update, read_weights
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.device import SigningDevice
from tests.support.tiny_pair import write_tiny_pair
from tests.support.waiting import until
from workbench.export.bundle_writer import export_bundle

TASK = "mnist_gan"
LATENT = 4
CHILD_SECONDS = 120.0
"""A child that steps back for others starts slowly on a busy machine."""
ATTIC, BARN = SigningDevice("attic"), SigningDevice("barn")
DENSE = UpdatePlan(1.0, "float32", "dense")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of a pair with two clusters of devices, of which one update makes a version."""
    folder = write_tiny_pair(tmp_path_factory.mktemp("recipe") / "pair")
    task = folder / "task.toml"
    task.write_text(task.read_text().partition("[clusters]")[0].partition("[split]")[0] + "[clusters]\nmost = 2\n")
    export_bundle(folder, folder / "bundle", tell=lambda _: None)
    file = folder / "bundle" / DESCRIPTION_FILE
    description = parse_description(file.read_bytes())
    plan = msgspec.structs.replace(description.aggregation, buffer_size=1, server_learning_rate=1.0)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(description, aggregation=plan)))
    return load_bundle(folder / "bundle")


def lively(bundle: Bundle) -> np.ndarray:
    """A change f32[P] after which pictures of a class differ."""
    random = np.random.default_rng(3)
    return random.normal(0, 0.5, bundle.description.parameter_count).astype(np.float32)


def numbing(bundle: Bundle, weights: np.ndarray) -> np.ndarray:
    """A change f32[P] of `weights` f32[P], after which the latent numbers are of no effect."""
    change, start = np.zeros_like(weights), 0
    for parameter in bundle.description.parameters:
        if parameter.name == "generator.block1.linear.weight":
            rows = weights[start : start + parameter.size].reshape(parameter.shape)
            wanted = np.zeros_like(rows)
            wanted[:, :LATENT] = -rows[:, :LATENT]
            change[start : start + parameter.size] = wanted.ravel()
        start += parameter.size
    return change


@pytest.fixture
def configuration(tmp_path: Path, bundle: Bundle) -> Path:
    """Of a coordinator in whose versions 1 and 2 both clusters learn to draw, until that of barn forgets it in 3."""
    bench = Bench(tmp_path / "coordinator.db", bundle)
    for device in (ATTIC, BARN):
        bench.handle(device, device.enrolment())
    ClusterRegistry(bench.journal.engine).assign(bundle.description, {"attic": 1, "barn": 2})
    own = read_weights(bundle.weights, bundle.description.parameters)
    learned = lively(bundle)
    changes = [(ATTIC, 1, learned), (BARN, 2, learned), (BARN, 2, numbing(bundle, own + learned))]
    for sequence, (device, cluster, change) in enumerate(changes, 1):
        packed = encode_update(change, bundle.description.trained_shapes, DENSE, np.random.default_rng(0)).packed
        base = bench.journal.newest_number(TASK)
        bench.handle(device, device.update(sequence, task=TASK, base_version=base, packed=packed, cluster=cluster))
        bench.make_versions()
    path = tmp_path / "coordinator.toml"
    path.write_text('fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n')
    return path


def told(configuration: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert cli.main(["tasks", "--config", str(configuration), "variety", TASK, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def shown_task(configuration: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert cli.main(["tasks", "--config", str(configuration), "show", TASK, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_generator_that_takes_no_notice_of_its_latent_numbers_has_no_variety(bundle: Bundle) -> None:
    own = read_weights(bundle.weights, bundle.description.parameters) + lively(bundle)
    assert variety(Drawer(bundle, own), 8, seed=0) > 0.01
    assert variety(Drawer(bundle, own + numbing(bundle, own)), 8, seed=0) < 1e-6


def test_the_cluster_whose_pictures_have_become_alike_is_named_with_the_version_to_go_back_to(
    configuration: Path, capsys
) -> None:
    found = told(configuration, capsys)
    assert (found["task"], found["version"]) == (TASK, 3)
    attic, barn = found["clusters"]
    assert (attic["cluster"], attic["narrow"]) == (1, False)
    assert (barn["cluster"], barn["narrow"], barn["greatest_in"]) == (2, True, 2)
    assert barn["variety"] < 1e-6 < attic["variety"]
    assert not any(each["narrow"] for each in told(configuration, capsys, "--version", "2")["clusters"])
    assert cli.main(["tasks", "--config", str(configuration), "variety", TASK, "--version", "7"]) == 2
    assert "version 7 of task 'mnist_gan' is not in the journal" in capsys.readouterr().err


def test_it_is_said_behind_versions_and_metrics_and_the_task_have_it(
    configuration: Path, caplog, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("broker_coordinator.serving.variety_watch.VERSIONS_BETWEEN", 3)
    metrics = Metrics()
    with Journal.open(configuration.parent / "coordinator.db") as journal, caplog.at_level("INFO"):
        watch = VarietyWatch(configuration, journal.engine, metrics)
        try:
            for task, number in (("roses", 3), (TASK, 2), (TASK, 3)):
                watch.note_version(task, number)
            until(lambda: "pictures_narrowed" in caplog.text, "it is said", CHILD_SECONDS)
            assert "variety_measured task=mnist_gan version=3 cluster=1" in caplog.text
            until(lambda: VarietyRegistry(journal.engine).last(TASK), "it is kept")
            watch.note_version(TASK, 9)
            until(lambda: "variety_not_measured task=mnist_gan version=9" in caplog.text, "why not", CHILD_SECONDS)
        finally:
            watch.stop()
    found = {
        cluster: metrics.registry.get_sample_value("edgeflock_drawn_variety", {"task": TASK, "cluster": cluster})
        for cluster in ("1", "2")
    }
    assert found["2"] < 1e-6 < found["1"]
    shown = shown_task(configuration, capsys)
    assert [(row["version"], row["cluster"], row["narrow"]) for row in shown["variety"]] == [
        (3, 1, False),
        (3, 2, True),
    ]
    (words,) = shown["advice"]
    assert "alike in version 3, cluster 2" in words
    assert cli.main(["tasks", "--config", str(configuration), "rollback", TASK, "2"]) == 0
    gone_back = shown_task(configuration, capsys)
    assert gone_back["variety"] == shown["variety"]
    assert gone_back["advice"] == []


def test_a_task_that_was_never_measured_shows_no_variety_and_one_that_is_removed_keeps_none(
    configuration: Path, capsys
) -> None:
    assert shown_task(configuration, capsys)["variety"] == []
    told = VarietyTold(TASK, 3, (ClusterTold(0, 0.1, 0.2, 1, narrow=False),))
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        registry = VarietyRegistry(journal.engine)
        registry.keep(told)
        registry.keep(msgspec.structs.replace(told, version=4))
        assert registry.last(TASK).version == 4
        TaskRegistry(journal.engine).remove(TASK)
        assert registry.last(TASK) is None
        registry.keep(told)
        assert registry.last(TASK) is None


def test_a_task_that_draws_nothing_is_refused_with_what_to_do(tmp_path: Path, capsys) -> None:
    digits = load_bundle(Path(__file__).parents[2] / "models/digits/bundle")
    with Journal.open(tmp_path / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(digits)
    path = tmp_path / "coordinator.toml"
    path.write_text('fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n')
    assert cli.main(["tasks", "--config", str(path), "variety", "digits"]) == 2
    assert "task 'digits' draws nothing" in capsys.readouterr().err
