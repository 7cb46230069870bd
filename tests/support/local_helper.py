"""The helper's child at the other end of a worker's pipe, both real processes, and nothing in between."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import Reply, StepAnswered, StepAsked, TrainingJob
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.task_description import split_files
from session_relay.helper.compute_contract import ComputeFailure, Learned, StepDone
from session_relay.helper.configuration import HelperSettings
from session_relay.helper.middle import Middle, blocks_of_helpers

SESSION = bytes(16)


def middle_of(
    job: TrainingJob,
    bundle: Path,
    settings: WorkerSettings,
    done: Callable[[StepDone], None],
    samples: int = 0,
    *,
    answer_seconds: float = 60.0,
) -> Middle:
    """A middle that serves one session, of the job's cut."""
    own = HelperSettings(kept_mib=64, answer_seconds=answer_seconds)
    task = job.description
    assert task.split is not None
    files = {name: bundle / name for name in split_files(task, blocks_of_helpers(task.split))}
    version = ReadyVersion(1, "bundle", task, files, bundle / WEIGHTS_FILE)
    middle = Middle(version, settings, own, ready=lambda _: None, done=done, seen=lambda *_: None)
    middle.join(SESSION, job.cut.name, samples, "kitchen-pi")
    return middle


class LocalHelper:
    """What a worker asks in a round (`worker.supervisor.StepHelper`)."""

    def __init__(self, job: TrainingJob, bundle: Path, settings: WorkerSettings, samples: int = 0) -> None:
        """The device says that it trains on so many samples."""
        self.middle = middle_of(job, bundle, settings, self._answer, samples)
        self.computing = asyncio.ensure_future(self.middle.run())
        self._asked = 0
        self.reply: Callable[[Reply], None] | None = None

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """The worker runs."""
        self.reply = reply

    def ask(self, asked: StepAsked) -> None:
        """It asks for a step."""
        self._asked += 1
        self.middle.ask(SESSION, self._asked, asked.request)

    async def contribution(self) -> Learned | ComputeFailure:
        """What the session leaves, or why that is nothing; the middle ends."""
        self.middle.leave(SESSION)
        learned = self.middle.contribute(b"", [], 0)
        done, _ = await asyncio.wait({learned, self.computing}, return_when=asyncio.FIRST_COMPLETED)
        self.computing.cancel()
        await asyncio.wait({self.computing})
        return done.pop().result()

    def _answer(self, step: StepDone) -> None:
        assert self.reply is not None
        self.reply(StepAnswered(step.number, step.answer))
