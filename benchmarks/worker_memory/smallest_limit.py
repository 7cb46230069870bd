"""The smallest memory limit under which a real worker trains, whole or with a cut, found by trying limits by halves.

The limit is RLIMIT_DATA of the shipped worker, as on a device; with a cut, a helper's middle in this process answers.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO

import msgspec
import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
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
from fleet_protocol.sessions.steps import StepRequest
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked
from tests.support.worker import TREE

FEWEST_MIB, MOST_MIB = 32, 2048
PRECISION_MIB = 2
KEPT_BYTES = 1 << 30
SESSION = bytes(16)


def smallest_limit(job: TrainingJob, bundle: Bundle) -> int:
    """In MiB, at most `PRECISION_MIB` too much."""
    fails, trains = FEWEST_MIB, MOST_MIB
    while trains - fails > PRECISION_MIB:
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
