"""One message of each device makes a head, over a real Mosquitto, through a kill, new samples, forgetting, and rounds
that go on from it.
"""

from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.random_features import export_random_features, pictures
from tests.support.solved_heads import Featured, pooled_ridge
from tests.support.waiting import until

SAMPLES = {"attic": pictures(1, 8), "garden": pictures(4, 8), "kitchen": pictures(7, 8)}
LATER = pictures(8, 8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    export_random_features(folder)
    return folder / "bundle"


class Regression:
    """The ridge regression of samples behind the bundle's backbone."""

    def __init__(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        self._task = loaded.description
        self._runner = BundleRunner(loaded.description, loaded.files)

    def is_published(self, coordinator: CoordinatorProcess, devices: list[list[dict]]) -> bool:
        """Whether the newest version is that of these devices' samples to six digits."""
        expected = pooled_ridge([self._featured(samples) for samples in devices], 1.0, classes=10)
        flat = np.concatenate([expected[:, :-1].ravel(), expected[:, -1]])
        with coordinator.journal() as journal:
            version = journal.newest_version("digits")
        found = version.state(self._task.parameters, {}).weights
        return bool(np.abs(found - flat).max() < 1e-6 * np.abs(flat).max())

    def _featured(self, samples: list[dict]) -> Featured:
        inputs = np.array([sample["inputs"] for sample in samples], np.float32)
        labels = np.array([sample["label"] for sample in samples])
        return Featured(self._runner.features(inputs).astype(np.float64), labels)


def test_head_is_the_regression_of_all_samples_through_a_kill_new_samples_and_a_forgotten_device(
    tmp_path: Path, broker: Broker, bundle: Path
) -> None:
    regression = Regression(bundle)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [bundle])
    coordinator.start_serving()
    key = coordinator.public_key
    agents = {
        name: AgentProcess(tmp_path / name, name, broker, key, encrypt=name == "attic", new_samples=8)
        for name in SAMPLES
    }
    try:
        for name in ("attic", "garden"):
            feed(agents[name], SAMPLES[name])
        two = [SAMPLES["attic"], SAMPLES["garden"]]
        until(lambda: regression.is_published(coordinator, two), "the head of two devices")
        coordinator.kill()
        feed(agents["kitchen"], SAMPLES["kitchen"])
        coordinator.start_serving()
        until(lambda: regression.is_published(coordinator, [*SAMPLES.values()]), "the head of three devices")
        feed(agents["kitchen"], LATER)
        with_later = [*two, [*SAMPLES["kitchen"], *LATER]]
        until(lambda: regression.is_published(coordinator, with_later), "the later statistics replace the earlier")
        agents["garden"].kill()
        (row,) = coordinator.devices("forget", "garden")
        assert row["remains"] == ""
        without = [with_later[0], with_later[2]]
        until(lambda: regression.is_published(coordinator, without), "the head without the forgotten device")
        with coordinator.journal() as journal:
            newest = journal.newest_number("digits")
        assert coordinator.tasks("verify", "digits")
        (refined,) = coordinator.tasks("refine", "digits")
        until(lambda: _newest(coordinator) > refined["version"], "a version of what both devices trained from the head")
        coordinator.kill()
        coordinator.start_serving()
        assert coordinator.tasks("verify", "digits")
        assert "round_spooled" in agents["kitchen"].log()
        assert "statistics_spooled" in agents["attic"].log()
    finally:
        for agent in agents.values():
            agent.kill()
        coordinator.kill()
    assert newest >= 4


def _newest(coordinator: CoordinatorProcess) -> int:
    with coordinator.journal() as journal:
        return journal.newest_number("digits")


def feed(agent: AgentProcess, samples: list[dict]) -> None:
    if not agent.status():
        agent.start()
    for sample in samples:
        assert agent.ask(sample) == {"ok": True}
