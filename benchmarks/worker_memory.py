"""The smallest memory limit under which a real worker trains, whole or with a cut, beside what is estimated for it.

`python -m benchmarks.worker_memory` tries limits on the shipped worker (RLIMIT_DATA, as on a device) by halves; with a
cut, a helper's middle in this process answers it. What the estimate is made of, docs/split-learning.md says. The last
line is one JSON object.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.worker.child import ENVIRONMENT
from edge_agent.worker.contract import (
    LENGTH_BYTES,
    Message,
    News,
    StepAnswered,
    StepAsked,
    TrainingJob,
    TrainingResult,
    framed,
    read_message,
    write_frame,
    write_job,
)
from fleet_protocol.codec import read_weights
from fleet_protocol.limits import MIB
from fleet_protocol.sessions.steps import StepRequest
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import WHOLE
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked
from tests.support.worker import TREE, make_job, store_samples
from workbench.recipe_folder import find_bundle

CASES = (
    ("digits", WHOLE.name, 100, 0),
    ("mnist_cnn", WHOLE.name, 100, 0),
    ("mnist_cnn", WHOLE.name, 2000, 0),
    ("mnist_cnn", WHOLE.name, 2000, 256),
    ("mnist_cnn", WHOLE.name, 2000, 1024),
    ("mnist_cnn", "1-2", 100, 0),
    ("mnist_cnn", "1-2", 2000, 256),
)
"""Recipe, cut, stored samples, and rows of a mini-batch; 0: the recipe's."""
FEWEST_MIB, MOST_MIB = 32, 1024
KEPT_BYTES = 1 << 30
SESSION = bytes(16)
STEPS = 4
"""Of a round: more of them take no more memory."""


class Found(msgspec.Struct, frozen=True):
    """In MiB; `estimated` is at least `smallest` where the estimate does its work."""

    recipe: str
    cut: str
    samples: int
    rows: int
    smallest: int
    estimated: float


def smallest_limit(job: TrainingJob, bundle: Bundle) -> int:
    """In MiB."""
    fails, trains = FEWEST_MIB, MOST_MIB
    while trains - fails > 1:
        middle = (fails + trains) // 2
        limited = msgspec.structs.replace(job, memory_limit_mib=middle)
        fails, trains = (fails, middle) if _trains(limited, bundle) else (middle, trains)
    return trains


def _trains(job: TrainingJob, bundle: Bundle) -> bool:
    """Whether the round comes to its end."""
    answer = _helper(job, bundle) if job.cut.helper else None
    message: Message | None = None
    with contextlib.suppress(BrokenPipeError), _worker() as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(framed(write_job(job)))
        worker.stdin.flush()
        while (message := _next_message(worker.stdout)) is not None and isinstance(message, News | StepAsked):
            if isinstance(message, StepAsked) and answer is not None:
                worker.stdin.write(write_frame(answer(message.request)))
                worker.stdin.flush()
    return isinstance(message, TrainingResult)


def _worker() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "edge_agent.training.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(TREE)},
    )


def _next_message(stream: IO[bytes]) -> Message | None:
    length = stream.read(LENGTH_BYTES)
    return read_message(stream.read(int.from_bytes(length, "big"))) if len(length) == LENGTH_BYTES else None


def _helper(job: TrainingJob, bundle: Bundle) -> Callable[[bytes], StepAnswered]:
    """A middle that answers a request at a time."""
    task = job.description
    assert task.split is not None
    runner = BlockRunner(task, bundle.files, helpers_blocks(task.split))
    weights = read_weights(bundle.weights, task.parameters)
    middle = Middle(task, task.split, runner, weights, kept_bytes=KEPT_BYTES, generator=np.random.default_rng(0))
    middle.open(SESSION, job.cut)

    def answer(request: bytes) -> StepAnswered:
        (found,) = middle.answer([Asked(SESSION, msgspec.msgpack.decode(request, type=StepRequest))])
        return StepAnswered(found.number, msgspec.msgpack.encode(found))

    return answer


def measured() -> Iterator[Found]:
    """One case after the other."""
    for recipe, name, count, rows in CASES:
        folder = find_bundle(recipe)
        bundle = load_bundle(folder)
        task = bundle.description
        plan = msgspec.structs.replace(task.training, steps=STEPS, batch_size=rows or task.training.batch_size)
        task = msgspec.structs.replace(task, training=plan)
        cut = WHOLE if task.split is None or name == WHOLE.name else task.split.cut(name)
        with tempfile.TemporaryDirectory() as store:
            job = make_job(folder, Path(store) / "samples.db", cut=cut)
            _store(Path(store) / "samples.db", task, count)
            smallest = smallest_limit(msgspec.structs.replace(job, description=task), bundle)
        estimated = memory_bytes(task, cut, stored_samples=count) / MIB
        yield Found(recipe, name, count, plan.batch_size, smallest, round(estimated, 1))


def _store(path: Path, task: TaskDescription, count: int) -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(task.input.minimum, task.input.maximum, (count, *task.input.shape)).astype(np.float32)
    store_samples(path, task.task, inputs, random.integers(0, task.label.classes, count))


def main() -> None:
    """Measure all cases."""
    found = []
    for each in measured():
        found.append(each)
        case = f"{each.recipe:12} {each.cut:6} {each.samples:5} samples, {each.rows:5} rows"
        print(f"{case}: {each.smallest} MiB, estimated {each.estimated}")
    print(msgspec.json.encode({"worker_memory": found}).decode())


if __name__ == "__main__":
    main()
