"""The smallest memory limit under which a real worker trains, whole or with a cut, found by trying limits by halves.

The worker is the shipped one, forked from a warm worker for each round as on a device, and its limit is RLIMIT_DATA.
With a cut, a helper's middle in this process answers it.
"""

import asyncio
from collections.abc import Callable

import msgspec
import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
from edge_agent.worker.contract import Reply, StepAnswered, StepAsked, TrainingJob, TrainingResult
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import TrainingWorker
from fleet_protocol.codec import read_weights
from fleet_protocol.sessions.steps import StepRequest
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked

FEWEST_MIB, MOST_MIB = 64, 576
PRECISION_MIB = 2
KEPT_BYTES = 1 << 30
SESSION = bytes(16)
SETTINGS = WorkerSettings(nice=0, stay_seconds=600)


def smallest_limit(job: TrainingJob, bundle: Bundle) -> int:
    """In MiB, at most `PRECISION_MIB` too much."""
    return asyncio.run(_smallest_limit(job, bundle))


async def _smallest_limit(job: TrainingJob, bundle: Bundle) -> int:
    worker = TrainingWorker(SETTINGS)
    fails, trains = FEWEST_MIB, MOST_MIB
    try:
        while trains - fails > PRECISION_MIB:
            middle = (fails + trains) // 2
            limited = msgspec.structs.replace(job, memory_limit_mib=middle)
            helper = InProcessHelper(job, bundle) if job.cut.helper else None
            verdict = await worker.train(limited, helper=helper)
            fails, trains = (fails, middle) if isinstance(verdict, TrainingResult) else (middle, trains)
    finally:
        await worker.end()
    return trains


class InProcessHelper:
    """What a worker asks in a round (`worker.supervisor.StepHelper`): a middle that answers a request at a time."""

    def __init__(self, job: TrainingJob, bundle: Bundle) -> None:
        task = job.description
        assert task.split is not None
        runner = BlockRunner(task, bundle.files, helpers_blocks(task.split))
        weights = read_weights(bundle.weights, task.parameters)
        generator = np.random.default_rng(0)
        self._middle = Middle(task, task.split, runner, weights, kept_bytes=KEPT_BYTES, generator=generator)
        self._middle.open(SESSION, job.cut)
        self._reply: Callable[[Reply], None]

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """The worker runs."""
        self._reply = reply

    def ask(self, asked: StepAsked) -> None:
        """It asks for a step."""
        request = msgspec.msgpack.decode(asked.request, type=StepRequest)
        (answer,) = self._middle.answer([Asked(SESSION, request)])
        self._reply(StepAnswered(answer.number, msgspec.msgpack.encode(answer)))
