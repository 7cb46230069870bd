"""A task with a backbone through the shipped agent, coordinator and a real Mosquitto: features once per sample."""

import re
import sqlite3
from pathlib import Path

import pytest

from fleet_protocol.bundle_files import BACKBONE_FILE
from tests.support.agent import AgentProcess
from tests.support.backbone import INT8, export_backbone_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    export_backbone_bundle(folder, backbone=INT8)
    return folder / "bundle"


def test_agent_fetches_the_backbone_and_shows_each_sample_to_it_once(tmp_path, broker, bundle) -> None:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [bundle])
    coordinator.start_serving()
    agent = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    agent.start()
    try:
        for updates in (1, 2):
            agent.feed(4, first=4 * updates)
            until(lambda count=updates: agent.status().get("accepted_updates", 0) >= count, "the update was accepted")
        assert [int(count) for count in re.findall(r"features_computed=(\d+)", agent.log())] == [4, 4]
        maps = Path(f"/proc/{agent.pid}/maps").read_text()
        assert "numpy" not in maps
        assert "onnxruntime" not in maps
    finally:
        agent.kill()
        coordinator.kill()
    blobs = {path.read_bytes() for path in (agent.folder / "state" / "blobs").iterdir()}
    assert (bundle / BACKBONE_FILE).read_bytes() in blobs
    with sqlite3.connect(agent.folder / "state" / "samples.db") as connection:
        kept = connection.execute("SELECT sample, length(features) FROM features ORDER BY sample").fetchall()
    assert kept == [(sample, 4 * 16) for sample in range(1, 9)]
    with coordinator.journal() as journal:
        newest = journal.newest_version("digits")
    assert newest is not None
    assert newest.number == 2
