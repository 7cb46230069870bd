"""Measures what workers need, and prints it beside the estimate that devices choose their cuts by.

`fleet_protocol.split_costs` was adjusted to the models of `CHOSE`; those of `SHOW` have chosen nothing. The last line
is one JSON object. `python -m benchmarks.worker_memory MODEL ...` measures these models alone.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.worker_memory.models import MODELS, export
from benchmarks.worker_memory.smallest_limit import smallest_limit
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import WHOLE
from fleet_protocol.task_description import TaskDescription
from tests.support.worker import make_job, store_samples

CHOSE = {
    "mnist_cnn": [("whole", 32), ("whole", 256), ("whole", 1024), ("1-2", 256), ("1-2", 1024)],
    "resnet8": [("whole", 32), ("whole", 256), ("1-2", 256), ("1-4", 256)],
    "perceptron": [("whole", 32), ("1-2", 32), ("2-3", 32)],
    "stacked_gru": [("whole", 32), ("whole", 256), ("1-2", 256), ("1-3", 256)],
}
SHOW = {
    "keyword_dscnn": [("whole", 32), ("whole", 256), ("1-2", 256), ("1-3", 256)],
    "stacked_lstm": [("whole", 256), ("1-2", 256)],
}
"""Of each model: cuts, and rows of a mini-batch."""
SAMPLES = 2000


class Found(msgspec.Struct, frozen=True):
    """Memory in MiB. `ratio` is the estimate's: below 1 it is too small."""

    model: str
    cut: str
    rows: int
    smallest: int
    estimated: float

    @property
    def ratio(self) -> float:
        """The estimate, in units of what is needed."""
        return self.estimated / self.smallest


def measured(names: list[str]) -> Iterator[Found]:
    """One case after the other."""
    with tempfile.TemporaryDirectory(prefix="edgeflock-memory-") as folder:
        for name in names:
            bundle_folder = export(name, Path(folder))
            bundle = load_bundle(bundle_folder)
            store = Path(folder) / f"{name}.db"
            _store(store, bundle.description)
            for cut_name, rows in (CHOSE | SHOW)[name]:
                plan = msgspec.structs.replace(bundle.description.training, batch_size=rows)
                task = msgspec.structs.replace(bundle.description, training=plan)
                assert task.split is not None
                cut = WHOLE if cut_name == WHOLE.name else task.split.cut(cut_name)
                job = msgspec.structs.replace(make_job(bundle_folder, store, cut=cut), description=task)
                smallest = smallest_limit(job, bundle)
                estimated = memory_bytes(task, cut, stored_samples=SAMPLES) / MIB
                yield Found(name, cut_name, rows, smallest, round(estimated, 1))


def _store(path: Path, task: TaskDescription) -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(task.input.minimum, task.input.maximum, (SAMPLES, *task.input.shape)).astype(np.float32)
    store_samples(path, task.task, inputs, random.integers(0, task.label.classes, SAMPLES))


def main() -> None:
    """Measure all cases, or those of the models that are named."""
    found = []
    for each in measured(sys.argv[1:] or list(MODELS)):
        found.append(each)
        case = f"{each.model:14} {each.cut:6} {each.rows:5} rows"
        print(f"{case}: {each.smallest} MiB, estimated {each.estimated} ({each.ratio:.2f})", flush=True)
    print(msgspec.json.encode({"worker_memory": found}).decode())


if __name__ == "__main__":
    main()
