"""The smallest memory limit under which a real worker trains a whole step, beside what is estimated for it.

`python -m benchmarks.worker_memory` tries limits on the shipped worker (RLIMIT_DATA, as on a device) by halves. What
the estimate is made of, docs/split-learning.md says. The last line is one JSON object.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.worker.child import ENVIRONMENT
from edge_agent.worker.contract import TrainingJob, TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import WHOLE
from tests.support.worker import make_job, run_worker, store_samples
from workbench.recipe_folder import find_bundle

CASES = (
    ("digits", 100, 0),
    ("mnist_cnn", 100, 0),
    ("mnist_cnn", 2000, 0),
    ("mnist_cnn", 2000, 256),
    ("mnist_cnn", 2000, 1024),
)
"""Recipe, stored samples, and rows of a mini-batch; 0: the recipe's."""
FEWEST_MIB, MOST_MIB = 32, 1024
STEPS = 4
"""Of a round: more of them take no more memory."""


class Found(msgspec.Struct, frozen=True):
    """In MiB; `estimated` is at least `smallest` where the estimate does its work."""

    recipe: str
    samples: int
    rows: int
    smallest: int
    estimated: float


def smallest_limit(job: TrainingJob) -> int:
    """In MiB."""
    fails, trains = FEWEST_MIB, MOST_MIB
    while trains - fails > 1:
        middle = (fails + trains) // 2
        fails, trains = (fails, middle) if _trains(job, middle) else (middle, trains)
    return trains


def _trains(job: TrainingJob, memory_limit_mib: int) -> bool:
    try:
        _, verdict = run_worker(Path(sys.executable), msgspec.structs.replace(job, memory_limit_mib=memory_limit_mib))
    except AssertionError:  # it did not even come to say so
        return False
    return isinstance(verdict, TrainingResult)


def measured() -> Iterator[Found]:
    """One case after the other."""
    for recipe, count, rows in CASES:
        bundle = find_bundle(recipe)
        with tempfile.TemporaryDirectory() as folder:
            job = make_job(bundle, Path(folder) / "samples.db")
            task = job.description
            plan = msgspec.structs.replace(task.training, steps=STEPS, batch_size=rows or task.training.batch_size)
            task = msgspec.structs.replace(task, training=plan)
            _store(Path(folder) / "samples.db", task, count)
            smallest = smallest_limit(msgspec.structs.replace(job, description=task))
        estimated = memory_bytes(task, WHOLE, stored_samples=count) / MIB
        yield Found(recipe, count, plan.batch_size, smallest, round(estimated, 1))


def _store(path: Path, task: TaskDescription, count: int) -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(task.input.minimum, task.input.maximum, (count, *task.input.shape)).astype(np.float32)
    store_samples(path, task.task, inputs, random.integers(0, task.label.classes, count))


def main() -> None:
    """Measure all cases."""
    os.environ.update(ENVIRONMENT)
    found = []
    for each in measured():
        found.append(each)
        case = f"{each.recipe:12} {each.samples:5} samples, {each.rows:5} rows"
        print(f"{case}: {each.smallest} MiB, estimated {each.estimated}")
    print(msgspec.json.encode({"worker_memory": found}).decode())


if __name__ == "__main__":
    main()
