"""A model whose whole step is too large for a small device's worker, and which that device trains with a helper."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.worker.contract import TrainingFailure, TrainingResult
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import WHOLE
from tests.support.local_helper import LocalHelper
from tests.support.recipes import write_recipe
from tests.support.worker import make_job, store_samples
from workbench.export.bundle_writer import export_bundle

ROWS = 512
LIMIT_MIB = 128
"""Of the worker's memory: `[worker] memory_limit_mib` of the profile pi-zero-2w."""

WIDE_MIDDLE = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 7 * 7, 10),
    )
"""
PICTURE = """
[input]
shape = [1, 28, 28]
minimum = 0.0
maximum = 1.0
"""
TABLES = f"""
[label]
classes = 10
[split]
points = ["1", "5"]
[training]
steps = 2
batch_size = {ROWS}
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
    text = f'task = "wide"\ntitle = "A wide middle"\nseed = 3\n{PICTURE}\n{TABLES}'
    (folder / "recipe" / "task.toml").write_text(text)
    export_bundle(folder / "recipe", folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    inputs = generator.random((ROWS, 1, 28, 28), dtype=np.float32)
    return store_samples(tmp_path / "samples.db", "wide", inputs, generator.integers(0, 10, ROWS))


async def test_small_device_refuses_the_whole_step_and_trains_its_part_of_it(bundle, store) -> None:
    settings = WorkerSettings(nice=0, memory_limit_mib=LIMIT_MIB)
    task = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    assert task.split is not None
    (cut,) = task.split.cuts
    assert memory_bytes(task, cut) <= LIMIT_MIB * MIB < memory_bytes(task, WHOLE), "the device would know before"
    refused = await train_in_child(make_job(bundle, store, memory_limit_mib=LIMIT_MIB), settings)
    assert isinstance(refused, TrainingFailure)
    assert refused.out_of_memory, refused
    assert f"worker passed its memory limit of {LIMIT_MIB} MiB" in refused.error
    job = make_job(bundle, store, memory_limit_mib=LIMIT_MIB, cut=cut)
    helper = LocalHelper(job, bundle, WorkerSettings(nice=0, memory_limit_mib=2048), samples=ROWS)
    own = await train_in_child(job, settings, helper=helper)
    others = await helper.contribution()
    assert isinstance(own, TrainingResult), own
    assert isinstance(others, TrainingResult), others
    assert (own.held, others.held) == ((ROWS, 0, ROWS), (0, ROWS, 0))
