"""A recipe for a table of unlike units that is small enough to export in a test: three readings, a number to learn."""

from pathlib import Path

from fleet_protocol.task_description import TaskDescription
from workbench.export.bundle_writer import export_bundle

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
"""
TASK = """
task = "digits"
title = "A pressure in Pa, a temperature and a humidity to a price"
[input]
shape = [3]
minimum = -1e9
maximum = 1e9
missing = "{missing}"
[label]
kind = "regression"
values = 1
[scaling]
{scaling}
[training]
steps = 20
batch_size = 8
learning_rate = 0.05
[update]
keep_fraction = 0.5
[aggregation]
buffer_size = 2
"""


def write_table_recipe(folder: Path, *, missing: str = "mean", scaling: str = "") -> Path:
    """The recipe's folder; `scaling` are lines of that table."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "task.toml").write_text(TASK.format(missing=missing, scaling=scaling))
    return folder


def export_table_bundle(folder: Path, *, missing: str = "mean", scaling: str = "") -> TaskDescription:
    """Into `folder / "bundle"`."""
    recipe = write_table_recipe(folder / "recipe", missing=missing, scaling=scaling)
    return export_bundle(recipe, folder / "bundle")


def reading(number: int, *, factor: float = 1.0) -> dict[str, object]:
    """A sample as an agent takes it, every fourth without a humidity; a device with other units has a `factor`."""
    pressure, temperature, humidity = 1e5 + 800 * (number % 7), 20 + number % 5, 0.4 + 0.05 * (number % 3)
    inputs = [pressure * factor, temperature * factor, None if number % 4 == 3 else humidity * factor]
    return {"task": "digits", "inputs": inputs, "label": [200 + 3 * temperature]}
