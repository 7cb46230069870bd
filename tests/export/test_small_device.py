"""A model whose whole step is too large for a small board's worker, and which that board trains with a helper."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.core.cut_choice import CutChoice
from edge_agent.core.split_settings import NEVER, WHOLE_BY_MEMORY, SplitSettings
from edge_agent.profiles import read_profile
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.helper import HelperProcess
from tests.support.recipes import write_recipe
from tests.support.waiting import until
from workbench.export.bundle_writer import export_bundle

TASK, CUT = "wide", "1-2"
PROFILE = "pi-zero-2w"
LIMIT_MIB = read_profile(PROFILE).worker.memory_limit_mib
ROWS = 256

WIDE_MIDDLE = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 7 * 7, 10),
    )
"""
PICTURE = """
[input]
shape = [1, 28, 28]
minimum = 0.0
maximum = 1.0
"""
TABLES = """
[label]
classes = 10
[split]
points = ["1", "5"]
[training]
steps = 2
batch_size = 8
learning_rate = 0.05
epochs_per_round = 0
[update]
keep_fraction = 0.5
[aggregation]
buffer_size = 1
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    write_recipe(folder / "recipe", WIDE_MIDDLE, "", inputs=PICTURE)
    text = f'task = "{TASK}"\ntitle = "A wide middle"\nseed = 3\n{PICTURE}\n{TABLES}'
    (folder / "recipe" / "task.toml").write_text(text)
    exported = export_bundle(folder / "recipe", folder / "bundle")
    training = msgspec.structs.replace(exported.training, batch_size=ROWS)  # exported so, it would take a minute
    described = msgspec.structs.replace(exported, training=training)
    (folder / "bundle" / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(described))
    return folder / "bundle"


class Fleet:
    """A coordinator and a helper as they ship, and devices with the board's profile."""

    def __init__(self, folder: Path, broker: Broker, bundle: Path) -> None:
        self._folder, self._broker = folder, broker
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [bundle])
        self.helper = HelperProcess(folder / "helper", "cellar-pi", broker, self.coordinator.public_key, task=TASK)
        self.helper.configuration.write_text(f'profile = "helper"\n{self.helper.configuration.read_text()}')
        self._devices: list[AgentProcess] = []

    def begin(self) -> None:
        """Start all but devices."""
        self.coordinator.start_serving()
        self.coordinator.helpers("allow", self.helper.name)
        self.helper.serve()

    def device(self, name: str, cut: str) -> AgentProcess:
        """One that holds a mini-batch of samples."""
        device = AgentProcess(
            self._folder / name, name, self._broker, self.coordinator.public_key, new_samples=ROWS, task=TASK
        )
        self._devices.append(device)
        split = f'name = "{TASK}"\nsplit = {{ cut = "{cut}" }}'
        text = device.configuration.read_text().replace(f'name = "{TASK}"', split)
        device.configuration.write_text(f'profile = "{PROFILE}"\n{text}')
        device.start()
        generator = np.random.default_rng(0)
        for number in range(ROWS):
            inputs = generator.random(28 * 28, dtype=np.float32).tolist()
            assert device.ask({"task": TASK, "inputs": inputs, "label": number % 10}) == {"ok": True}
        return device

    def end(self) -> None:
        """Kill all."""
        for each in (*self._devices, self.helper, self.coordinator):
            each.kill()


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker, bundle: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, broker, bundle)
    try:
        fleet.begin()
        yield fleet
    finally:
        fleet.end()


def test_small_board_refuses_the_whole_step_and_leaves_the_wide_middle_to_a_helper_by_itself(fleet: Fleet) -> None:
    alone = fleet.device("alone", NEVER)
    until(lambda: "event=round_failed" in alone.log(), "the whole step is refused")
    assert f"worker passed its memory limit of {LIMIT_MIB} MiB" in alone.log()
    assert fleet.helper.status()["steps"] == 0

    helped = fleet.device("helped", WHOLE_BY_MEMORY)
    until(
        lambda: fleet.coordinator.tasks("list")[0]["accepted"] == 2, "the device's update and the helper's are accepted"
    )
    assert f"cut={CUT}" in helped.log()
    assert "event=cut_too_large" not in helped.log(), "it knew before that the whole step does not fit"
    assert fleet.helper.status()["steps"] == 2 * 2, "two steps, of two passes"


def test_plan_of_that_board_is_the_cut_that_fits_its_limit(bundle: Path) -> None:
    task = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    needs = partial(memory_bytes, stored_samples=ROWS)
    choice = CutChoice({TASK: SplitSettings()}, LIMIT_MIB * MIB, needs)
    assert choice.of(task).name == CUT
    larger = CutChoice({TASK: SplitSettings()}, read_profile("pi-5").worker.memory_limit_mib * MIB, needs)
    assert not larger.of(task).helper
