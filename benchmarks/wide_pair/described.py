"""The description of `models/mnist_gan` with the widths and mini-batches of the paper, without exporting its graphs."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bundle_runtime.samples import Samples
from fleet_protocol.task_description import TaskDescription
from workbench.export.blocks.division import Division, divide
from workbench.export.blocks.operations import forward_flops
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.export.task_description import described
from workbench.export.trials.random_samples import random_samples
from workbench.recipe_folder import TASK_FILE, find_recipe

BATCH: Final = 64
CHANGES: Final = (
    ("model.py", "WIDTH: Final = 1 / 8", "WIDTH: Final = 1"),
    ("model.py", 'NORM: Final = "group"', 'NORM: Final = "batch"'),
    (TASK_FILE, "batch_size = 16", f"batch_size = {BATCH}"),
)
"""In which file of the recipe what becomes what."""
LEFT_OUT: Final = re.compile(r"^\[(update|aggregation|clusters)\].*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
"""Tables of the task without which updates are compressed as usual, and versions have one model: as in the figures of
docs/split-learning.md.
"""


@contextmanager
def wide_folder() -> Iterator[Path]:
    """A copy of the recipe with the paper's widths.

    Raises:
        ValueError: it does not say what is to be changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "mnist_gan"
        shutil.copytree(find_recipe("mnist_gan"), copy, ignore=shutil.ignore_patterns("bundle", "__pycache__"))
        for name, before, after in CHANGES:
            text = (copy / name).read_text()
            if before not in text:
                raise ValueError(f"models/mnist_gan/{name} has no {before!r}; say in {__name__} what it has instead")
            (copy / name).write_text(text.replace(before, after))
        (copy / TASK_FILE).write_text(LEFT_OUT.sub("", (copy / TASK_FILE).read_text()))
        yield copy


def wide_recipe() -> Recipe:
    """The recipe, read.

    Raises:
        ValueError: as `wide_folder`.
    """
    with wide_folder() as folder:
        return read_recipe(folder)


def counted_task(recipe: Recipe) -> TaskDescription:
    """A recipe's `task.json`, as far as plans read it: blocks with their shapes and operations, cuts, parameters."""
    division = divide(recipe, recipe.task.split.points if recipe.task.split else [])
    task = described(recipe, {}, {}, division=division)
    return _with_operations(task, division, random_samples(task))


def _with_operations(task: TaskDescription, division: Division, samples: Samples) -> TaskDescription:
    if task.split is None:
        raise ValueError(f"{task.task} has no split")
    blocks = [
        msgspec.structs.replace(block, forward_flops=forward_flops(division, number, samples))
        for number, block in enumerate(task.split.blocks)
    ]
    return msgspec.structs.replace(task, split=msgspec.structs.replace(task.split, blocks=blocks))
