"""The totals of a demo's report are the sums of its table: applied, buffered and pending updates are told apart."""

from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.storage.records import JournalledPayload
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.sources.unix_socket import Status
from fleet_protocol.kinds import UPDATE
from workbench.data.digits import split_digits
from workbench.data.head_rounds import Rounds
from workbench.demo.brokers import BrokerPlan
from workbench.demo.fleet_files import TASK, plan_files
from workbench.demo.helper import HelperFiles
from workbench.demo.measurement import Measurement
from workbench.demo.monitor import FleetMonitor
from workbench.demo.observer import Observer
from workbench.demo.sensors import Sensor
from workbench.report.history import HelperRow, Totals
from workbench.report.html import render_report

BUNDLE = Path(__file__).parents[2] / "models/digits/bundle"
DEVICES = 3


def row(position: int, device: str, staleness: int, aggregate: int | None) -> JournalledPayload:
    digest = position.to_bytes(16, "big")
    return JournalledPayload(
        position, device, position, digest, UPDATE.number, TASK, 0, staleness, "{}", b"", aggregate
    )


@pytest.fixture
def monitor(tmp_path: Path) -> FleetMonitor:
    """A run that has ended: six updates in the journal, of which one waits for a version."""
    data = split_digits(DEVICES, np.random.default_rng(0))
    files = plan_files(tmp_path, tmp_path, DEVICES)
    sensors = [
        Sensor(device.socket, TASK, part, seconds=10.0, delivered=5)
        for device, part in zip(files.devices, data.parts, strict=True)
    ]
    measurement = Measurement(BUNDLE, load_bundle(BUNDLE).description, data)
    observer = Observer(BrokerPlan("mosquitto", "127.0.0.1", 1, "5", None))
    found = FleetMonitor(files, sensors, observer, measurement, "mosquitto", new_samples=6)
    first, second, third = (device.name for device in files.devices)
    observer.uplink.update({first: 700, second: 200, third: 100})
    found._journal = [
        *(row(position, first, position % 3, position // 2) for position in range(1, 5)),
        row(5, second, 4, 2),
        row(6, third, 9, None),
    ]
    return found


def test_summary_table_and_histogram_count_the_same_updates(monitor):
    history = monitor.conclude(seed=0, stopped_early=False)
    summary, sums = history.summary, Totals.of(history.devices)
    assert [(device.applied, device.buffered) for device in history.devices] == [(4, 0), (1, 0), (0, 1)]
    assert (summary.updates_applied, summary.updates_buffered) == (sums.applied, sums.buffered) == (5, 1)
    assert summary.uplink_bytes == sums.uplink_bytes == 1000
    assert len(history.staleness) == summary.updates_applied
    assert history.devices[2].staleness is None, "its only update waits"
    assert summary.dense_uplink_bytes == 6 * 4 * summary.parameters


def test_messages_that_a_head_is_solved_from_have_no_staleness(monitor, monkeypatch):
    assert monitor.conclude(seed=0, stopped_early=False).summary.median_staleness == 1.0
    monkeypatch.setattr(Measurement, "is_solved", True)
    monkeypatch.setattr(Measurement, "rounds", lambda _: Rounds(0.1, [0.5], [100]))
    history = monitor.conclude(seed=0, stopped_early=False)
    assert (history.summary.median_staleness, history.staleness) == (None, [])
    assert [(device.applied, device.staleness) for device in history.devices] == [(4, None), (1, None), (0, None)]
    assert "median staleness" not in render_report(history)


def test_a_helper_has_a_row_of_its_own_and_counts_in_no_total_of_devices(monitor, tmp_path):
    monitor.helpers = [HelperFiles("gateway", tmp_path / "gateway", tmp_path / "socket")]
    monitor._journal.append(row(7, "gateway", 0, 2))
    monitor.observer.uplink["gateway"] = 50
    monitor.observer.relayed_up.update({"pi-02": 4000, "gateway": 3000})
    monitor.observer.relayed_down.update({"pi-02": 3000, "gateway": 4000})
    history = monitor.conclude(seed=0, stopped_early=False)
    assert history.helpers == [HelperRow("gateway", 1, 3000, 4000)]
    assert (history.summary.updates_applied, len(history.staleness)) == (5, 5)
    assert (history.summary.uplink_bytes, history.summary.relayed_bytes) == (1000, 7000)
    page = render_report(history)
    assert "What devices left to their helper" in page
    assert "<td>gateway</td><td>the other blocks, for devices with a cut</td><td>1</td><td>3 kB</td>" in page


def test_the_page_says_the_totals_of_its_table(monitor):
    page = render_report(monitor.conclude(seed=0, stopped_early=False))
    assert "5 applied, 1 waiting for a version, 0 rejected, 0 still safe on a device" in page
    assert "<td>all together</td><td></td><td></td><td>5</td><td>1</td><td></td><td>1 kB</td>" in page


def status(state: str = "sleeping", waiting: int = 0, new: int = 0) -> Status:
    counts = dict.fromkeys(("accepted_updates", "rejected_updates", "withheld_updates", "boot"), 0)
    said = {
        "device": "pi",
        "connected": True,
        "versions": {},
        "samples": {},
        "progress": None,
        "tasks": {},
        "sources": [],
    }
    return Status(state=state, waiting_updates=waiting, new_samples={TASK: new}, **counts, **said)


@pytest.mark.parametrize("third", [None, status("training"), status(waiting=1), status(new=6)])
def test_run_waits_for_every_device_but_those_that_do_not_come_back(monitor, third):
    monitor._statuses = [status(), status(new=5), third]
    assert not monitor.is_quiet(frozenset())
    assert monitor.is_quiet(frozenset({monitor.files.devices[2].name}))
