"""A round that runs out of memory, or loses its helper, begins anew in another way before it is put off."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edge_agent.core.cut_choice import CutChoice
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.learning import round_training
from edge_agent.shell.learning.cohorts import Cohorts
from edge_agent.shell.learning.round_training import MOST_TRIES, RoundFailedError, RoundTraining
from edge_agent.shell.learning.sample_budget import SampleBudget
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import TrainingFailure, TrainingJob, Verdict, Withheld
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.split_plan import WHOLE, Cut
from tests.support.split_task import DEEP, EARLY, TASK

TOO_LARGE = TrainingFailure("worker passed its memory limit", out_of_memory=True)
HELPER_LOST = TrainingFailure("helper cellar-pi: silent", helper_lost=True)
DONE = Withheld("spent", "these samples are spent", 0, 1.0)


class Versions:
    """One version, which is always ready."""

    version = ReadyVersion(3, "ab" * 32, TASK, {}, Path("weights"))

    @staticmethod
    def selection(_task: str) -> None:
        return None

    async def ready_version(self, _task: str) -> ReadyVersion:
        return self.version

    def hold(self, _version: ReadyVersion) -> None:
        pass


class Session:
    """With a helper of which there is nothing to say."""

    def judged(self, verdict: Verdict) -> Verdict:
        return verdict


class Helpers:
    """Helpers that are there for the asking."""

    def __init__(self) -> None:
        self.asked: list[Cut] = []

    @contextlib.asynccontextmanager
    async def session(self, _version: ReadyVersion, cut: Cut, _samples: int) -> AsyncIterator[Session]:
        self.asked.append(cut)
        yield Session()


@pytest.fixture
def training(tmp_path: Path, monkeypatch) -> Callable[..., tuple[RoundTraining, list[Cut], Helpers]]:
    """Of a device on which everything fits by the estimate, and whose worker gives these verdicts one after the other:
    with it, the cuts that were tried, and the helpers.
    """

    def make(*verdicts: Verdict, versions: Versions | None = None) -> tuple[RoundTraining, list[Cut], Helpers]:
        versions = versions or Versions()
        tried: list[Cut] = []
        left = list(verdicts)

        class Worker:
            spent_milliseconds, ends_by = 0, None

            def __init__(self, _settings: WorkerSettings) -> None:
                pass

            async def train(self, job: TrainingJob, *_: object) -> Verdict:
                tried.append(job.cut)
                return left.pop(0)

        monkeypatch.setattr(round_training, "TrainingWorker", Worker)
        helpers = Helpers()
        database, samples = DeviceDatabase(tmp_path / "agent.db", 1, 2**20), SampleStore(tmp_path / "samples.db", 100)
        made = RoundTraining(
            WorkerSettings(),
            database,
            samples,
            versions,  # type: ignore[arg-type]
            cuts=CutChoice({TASK.task: SplitSettings()}, 2**40, lambda _task, _cut: 1),
            helpers=helpers,  # type: ignore[arg-type]
            spool=None,  # type: ignore[arg-type]  # nothing is sent
            prompting={TASK.task: PromptSettings()},
            budget=SampleBudget(database, samples, PrivacySettings()),
            cohorts=Cohorts(versions, database, None, PrivacySettings()),  # type: ignore[arg-type]  # none is open
            gossip=None,  # type: ignore[arg-type]  # no neighbours
        )
        return made, tried, helpers

    return make


async def test_round_that_is_too_large_for_the_device_is_tried_with_a_helper_at_once(training) -> None:
    rounds, tried, helpers = training(TOO_LARGE, TOO_LARGE, DONE, DONE)
    assert await rounds.run(TASK.task, Versions.version) == DONE
    assert tried[0] == WHOLE
    assert {cut.name for cut in tried[1:]} == {EARLY.name, DEEP.name}
    assert helpers.asked == tried[1:]
    assert await rounds.run(TASK.task, Versions.version) == DONE
    assert tried[3] == tried[2], "the next round begins with what fitted"


async def test_round_for_which_no_cut_is_small_enough_fails_with_the_reason(training) -> None:
    rounds, tried, _ = training(TOO_LARGE, TOO_LARGE, TOO_LARGE)
    with pytest.raises(RoundFailedError, match="memory limit") as failed:
        await rounds.run(TASK.task, Versions.version)
    assert not failed.value.mended
    assert len(tried) == 3


async def test_round_whose_helpers_go_one_after_the_other_is_put_off_and_no_version_is_blamed(training) -> None:
    rounds, tried, _ = training(TOO_LARGE, *[HELPER_LOST] * (MOST_TRIES - 1))
    with pytest.raises(RoundFailedError, match="cellar-pi: silent") as failed:
        await rounds.run(TASK.task, Versions.version)
    assert failed.value.mended
    assert len(tried) == MOST_TRIES


async def test_round_does_not_begin_anew_from_another_bundle_to_which_nobody_has_agreed(training) -> None:
    newer = Versions()
    newer.version = dataclasses.replace(Versions.version, number=4, bundle="cd" * 32)
    rounds, tried, _ = training(HELPER_LOST, versions=newer)
    with pytest.raises(RoundFailedError, match="cellar-pi: silent") as failed:
        await rounds.run(TASK.task, Versions.version)
    assert failed.value.mended, "the next round asks whether the owner agrees, and begins at once"
    assert len(tried) == 1


@pytest.mark.parametrize(
    "verdict",
    [TrainingFailure("training diverged", diverged=True, drift=b"more"), Withheld("worse", "", 1, 1.0, drift=b"more")],
    ids=["diverged", "worse"],
)
async def test_what_a_round_that_sends_nothing_leaves_against_drift_is_kept(training, verdict) -> None:
    rounds, _, _ = training(verdict)
    with contextlib.suppress(RoundFailedError):
        await rounds.run(TASK.task, Versions.version)
    version = Versions.version
    assert rounds._database.drift_memory(TASK.task, version.bundle, version.generation) == b"more"
