"""What a demo's monitor reads of a coordinator's database: every kind of payload in the audit, and who is where."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from fleet_protocol.activation_plan import summary_values
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.kinds import ACTIVATION_SUMMARY, ActivationSummary, encode_payload
from tests.support.bench import OPEN, Bench
from tests.support.device import SigningDevice
from tests.support.helper import TASK, copy_split_bundle
from workbench.data.digits import large_digits
from workbench.demo.brokers import BrokerPlan
from workbench.demo.fleet_files import plan_files
from workbench.demo.helper import HelperFiles
from workbench.demo.measurement import Measurement
from workbench.demo.monitor import FleetMonitor
from workbench.demo.observer import Observer
from workbench.demo.sensors import Sensor

DEVICES = 3
CELLAR = SigningDevice("cellar-pi")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A helper has said something of one device, and nobody has sent an update."""
    bundle = copy_split_bundle(tmp_path / "bundle", clusters=ClusterPlan(3, activations="4"), buffer_size=1)
    bench = Bench(tmp_path / "coordinator.db", bundle, OPEN)
    bench.handle(CELLAR, CELLAR.enrolment())
    HelperRegistry(bench.journal.engine).allow(CELLAR.name)
    bench.said()
    task = bench.description
    assert task.clusters
    assert task.split
    mean = np.zeros(summary_values(task.clusters, task.split), "<f4").tobytes()
    summary = encode_payload(ActivationSummary("pi-01", 16, mean))
    bench.handle(CELLAR, CELLAR.sign(ACTIVATION_SUMMARY, summary, sequence=1, task=TASK))
    bench.make_versions()
    return bench


@pytest.fixture
def monitor(tmp_path: Path, bench: Bench) -> FleetMonitor:
    data = large_digits(DEVICES, np.random.default_rng(0))
    files = plan_files(tmp_path, tmp_path, DEVICES, task=TASK)
    sensors = [Sensor(device.socket, TASK, part, 1.0) for device, part in zip(files.devices, data.parts, strict=True)]
    broker = BrokerPlan("mosquitto", "127.0.0.1", 1, "5", None)
    measurement = Measurement(tmp_path / "bundle", bench.description, data)
    helper = HelperFiles(CELLAR.name, tmp_path / CELLAR.name, tmp_path / "socket")
    return FleetMonitor(files, sensors, Observer(broker), measurement, "mosquitto", 6, [helper])


def write_ledger(database: Path, *accepted: bytes) -> None:
    """What a helper has kept of what it has sent."""
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE settled (sequence, digest, outcome)")
        connection.execute("CREATE TABLE outbox (sequence, digest, returned)")
        connection.execute("CREATE TABLE counters (name, value)")
        rows = [(number, digest, "accepted") for number, digest in enumerate(accepted, start=1)]
        connection.executemany("INSERT INTO settled VALUES (?, ?, ?)", rows)
        connection.execute("INSERT INTO counters VALUES ('updates_made', ?)", [len(accepted)])
    connection.close()


def test_what_a_helper_has_said_of_activations_is_not_lost_and_is_no_update(monitor, bench) -> None:
    (told,) = bench.journal.payloads(TASK)
    write_ledger(monitor.helpers[0].database, told.digest)
    monitor.read_journal()
    summary = monitor.conclude(seed=0, stopped_early=False).summary
    assert (summary.updates_lost, summary.updates_duplicated, summary.updates_applied) == (0, 0, 0)


def test_what_is_in_no_journal_is_lost_whatever_its_kind(monitor, bench) -> None:
    (told,) = bench.journal.payloads(TASK)
    write_ledger(monitor.helpers[0].database, told.digest, b"another")
    monitor.read_journal()
    assert monitor.conclude(seed=0, stopped_early=False).summary.updates_lost == 1


def test_a_change_of_clusters_is_told_once_and_stands_in_the_rows(monitor, bench) -> None:
    registry = ClusterRegistry(bench.journal.engine)
    registry.assign(bench.description, {"pi-01": 1, "pi-02": 2, "pi-03": 1})
    monitor.read_journal()
    monitor.read_journal()
    registry.assign(bench.description, dict.fromkeys(("pi-01", "pi-02", "pi-03"), 0))
    monitor.read_journal()
    told = [event.partition(": ")[2] for event in monitor.events]
    assert told == ["clusters found, 1: pi-01, pi-03; 2: pi-02", "no device is in a cluster any more"]
    assert [row.cluster for row in monitor.rows()] == [0, 0, 0]
