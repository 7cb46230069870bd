"""Rounds with privacy of samples are charged before they begin, to the samples that they train on, and to no others."""

import array
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.budget_rules import BudgetRule, SpentBudget, rests
from edge_agent.core.cut_choice import CutChoice
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.sample_ledger import Charge
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.learning.cohorts import Cohorts
from edge_agent.shell.learning.round_training import RoundFailedError, RoundTraining
from edge_agent.shell.learning.sample_budget import SampleBudget
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.counters import transaction
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.storage.sample_steps import MOST_ROWS, add_charge
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.training.worker import read_samples
from edge_agent.worker.contract import News, Progress, RebuildFailure, TrainingFailure, TrainingJob, Verdict, Withheld
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken
from fleet_protocol.privacy.sample_privacy import SamplePrivacy, with_noise
from fleet_protocol.sample_line import Sample
from tests.support.split_task import TASK as SPLIT_TASK

STEPS = 10
PROMISE = with_noise(SamplePrivacy(epsilon=4.0, rounds=3), STEPS, "task.toml")
TRAINING = msgspec.structs.replace(SPLIT_TASK.training, steps=STEPS, epochs_per_round=0, maximum_epochs=0)
TASK = msgspec.structs.replace(SPLIT_TASK, split=None, training=TRAINING, privacy=PrivacyPlan(PROMISE))
NO_DEMANDS = PrivacySettings()
SENT = Withheld("irrelevant", "the rule of the task keeps it", 0, 0.0)


class KilledError(BaseException):
    """The power is cut."""


class Versions:
    version = ReadyVersion(3, "ab" * 32, TASK, {}, Path("weights"))

    @staticmethod
    def selection(_task: str) -> None:
        return None

    async def ready_version(self, _task: str) -> ReadyVersion:
        return self.version

    def hold(self, _version: ReadyVersion) -> None:
        pass


class Device:
    """Its files are in `folder`; `worker` is what becomes of a job, and `tells` what is heard of it before."""

    def __init__(
        self, folder: Path, worker: Callable[[TrainingJob], Verdict], owner: PrivacySettings, tells: Sequence[News] = ()
    ) -> None:
        self.database = DeviceDatabase(folder / "agent.db", 1, 2**20)
        self.samples = SampleStore(folder / "samples.db", 100)
        self.budget = SampleBudget(self.database, self.samples, owner)

        class Worker:
            spent_milliseconds, ends_by = 0, None

            async def train(self, job: TrainingJob, on_news: Callable[[News], None], *_: object) -> Verdict:
                for each in tells:
                    on_news(each)
                return worker(job)

        self.training = RoundTraining(
            WorkerSettings(),
            self.database,
            self.samples,
            Versions(),  # type: ignore[arg-type]
            cuts=CutChoice({TASK.task: SplitSettings()}, 2**40, lambda _task, _cut: 1),
            helpers=None,  # type: ignore[arg-type]
            spool=None,  # type: ignore[arg-type]
            prompting={TASK.task: PromptSettings()},
            budget=self.budget,
            cohorts=Cohorts(Versions(), self.database, None, PrivacySettings()),  # type: ignore[arg-type]  # none is open
            gossip=None,  # type: ignore[arg-type]  # no neighbours
        )
        self.training._worker = Worker()  # type: ignore[assignment]

    def feed(self, count: int, label: int = 1, budget: str = "") -> None:
        for _ in range(count):
            self.samples.add(TASK.task, array.array("f", [0.5] * TASK.input.size).tobytes(), label, budget)

    async def round(self) -> Withheld | None:
        return await self.training.run(TASK.task, Versions.version)

    def close(self) -> None:
        self.samples.close()
        self.database.close()


@pytest.fixture
def device(tmp_path: Path):
    opened: list[Device] = []

    def make(worker: Callable[[TrainingJob], Verdict], owner: PrivacySettings = NO_DEMANDS, *tells: News) -> Device:
        if opened:
            opened[-1].close()
        opened.append(Device(tmp_path, worker, owner, tells))
        return opened[-1]

    yield make
    opened[-1].close()


async def test_spent_samples_are_trained_on_no_more_and_new_ones_are(device) -> None:
    jobs: list[TrainingJob] = []

    def worker(job: TrainingJob) -> Verdict:
        jobs.append(job)
        return SENT

    one = device(worker)
    one.feed(5)
    rounds = PROMISE.most_steps() // STEPS
    for _ in range(rounds):
        assert (await one.round()) == SENT
    withheld = await one.round()
    assert withheld is not None
    assert withheld.why == "spent"
    assert "of 4 at delta 1e-05" in withheld.words
    assert len(jobs) == rounds
    one.feed(2)
    assert (await one.round()) == SENT
    assert [job.among for job in jobs] == [(0, 5)] * rounds + [(5, 7)]


async def test_samples_with_a_budget_of_their_own_rest_before_the_others_and_after_a_restart(device) -> None:
    jobs: list[TrainingJob] = []

    def worker(job: TrainingJob) -> Verdict:
        jobs.append(job)
        return SENT

    one_round, two_rounds = PROMISE.epsilon_after(STEPS) * 1.001, PROMISE.epsilon_after(2 * STEPS) * 1.001
    rules = [BudgetRule("bedroom", one_round), BudgetRule("falls", two_rounds, TASK.task, [0])]
    owner = PrivacySettings(at_least="samples", budgets=rules)
    one = device(worker, owner)
    one.feed(2)
    one.feed(3, budget="bedroom")
    one.feed(1, label=0)
    for _ in range(3):
        assert (await one.round()) == SENT
    assert [[budget.through for budget in job.budgets] for job in jobs] == [[0, 0], [6, 0], [6, 6]]
    assert one.budget.resting == {TASK.task: {"bedroom": 3, "falls": 1}}
    again = device(worker, owner)
    again.feed(1, budget="bedroom")
    assert (await again.round()) == SENT
    assert [budget.through for budget in jobs[-1].budgets] == [6, 6], "the new sample has its whole budget"
    stored = read_samples(again.samples.path, TASK, among=(0, 7), budgets=jobs[-1].budgets)
    assert stored.resting is not None
    assert stored.resting.tolist() == [False, False, True, True, True, True, False]
    assert len(stored.training) == 7, "how many take no part is told to nobody"

    lost = device(worker)  # agent.toml has no budgets any more
    lost.feed(1)
    assert (await lost.round()) == SENT
    assert lost.budget.resting == {TASK.task: {"bedroom": 4}}
    corrected = lost.samples.correct(TASK.task, 3, 1)
    lost.samples.drop(TASK.task, [4, 5, 7])
    assert lost.samples.resting(TASK.task, []) == {"bedroom": 1}
    lost.samples.drop(TASK.task, [corrected])
    assert lost.samples.resting(TASK.task, []) == {}


async def test_sample_whose_budget_is_less_than_a_round_tells_is_in_none(device) -> None:
    jobs: list[TrainingJob] = []

    def worker(job: TrainingJob) -> Verdict:
        jobs.append(job)
        return SENT

    rules = [BudgetRule("bedroom", PROMISE.epsilon_after(STEPS) * 0.999)]
    one = device(worker, PrivacySettings(at_least="samples", budgets=rules))
    one.feed(2)
    one.feed(3, budget="bedroom")
    assert (await one.round()) == SENT
    one.feed(1, budget="bedroom")
    assert (await one.round()) == SENT
    assert [rests(job.budgets, sample, "bedroom", 1) for job in jobs for sample in (3, 6)] == [True] * 4
    assert not rests(jobs[-1].budgets, 1, "", 1)
    assert one.budget.resting == {TASK.task: {"bedroom": 4}}


async def test_corrected_sample_has_told_what_it_told_under_its_first_number(device) -> None:
    jobs: list[TrainingJob] = []

    def worker(job: TrainingJob) -> Verdict:
        jobs.append(job)
        return SENT

    one = device(worker, PrivacySettings(at_least="samples", budgets=[BudgetRule("bedroom", 0.01)]))
    one.feed(2)
    one.feed(1, budget="bedroom")
    for _ in range(PROMISE.most_steps() // STEPS):
        assert (await one.round()) == SENT
    corrected = one.samples.correct(TASK.task, one.samples.correct(TASK.task, 1, 0), 1)
    rested = one.samples.correct(TASK.task, 3, 0)
    withheld = await one.round()
    assert withheld is not None
    assert withheld.why == "spent", "another label is no other sample"

    one.feed(1)
    assert (await one.round()) == SENT
    assert one.samples.resting(TASK.task, jobs[-1].budgets) == {"bedroom": 1}
    stored = read_samples(one.samples.path, TASK, among=jobs[-1].among, budgets=jobs[-1].budgets)
    assert corrected < rested < stored.training.newest == jobs[-1].among[1]
    assert len(stored.training) == 1, "the new one alone"
    one.samples.drop(TASK.task, [corrected, rested])
    again = device(worker)
    assert again.samples._connection.execute("SELECT * FROM corrected").fetchall() == []


async def test_sample_that_waits_for_its_schema_keeps_its_budget(device) -> None:
    one = device(lambda _: SENT)
    one.samples.add_unjudged(Sample(TASK.task, [0.5] * TASK.input.size, 1, "bedroom"))
    assert one.samples.judge(TASK).kept == 1
    assert one.samples.resting(TASK.task, [SpentBudget("bedroom", [], 1)]) == {"bedroom": 1}


async def test_killed_while_it_trains_has_paid_and_the_next_start_knows(device) -> None:
    def dies(_job: TrainingJob) -> Verdict:
        raise KilledError

    one = device(dies)
    one.feed(5)
    with pytest.raises(KilledError):
        await one.round()
    again = device(lambda _: SENT)
    assert again.database.sample_charges.of(TASK.task) == [Charge(5, StepsTaken(PROMISE.mechanism, STEPS))]
    for _ in range(PROMISE.most_steps() // STEPS - 1):
        assert (await again.round()) == SENT
    assert (await again.round() or SENT).why == "spent"


READING, STEPPING = Progress("reading", 0, STEPS, None), Progress("training", 0, STEPS, 0.0)
FAILURES = [
    TrainingFailure("diverged", diverged=True),
    TrainingFailure("worker passed its time limit", out_of_time=True),
    TrainingFailure("worker passed its memory limit", out_of_memory=True),
    TrainingFailure("update has a value that is not finite"),
    RebuildFailure("the difference is of another version"),
]


@pytest.mark.parametrize(("tells", "paid"), [([], 0), ([READING], 0), ([READING, STEPPING], STEPS)], ids=str)
@pytest.mark.parametrize("failure", FAILURES, ids=str)
async def test_round_that_fails_before_a_step_costs_nothing_and_later_whatever_its_reason_all(
    device, failure, tells, paid
):
    one = device(lambda _: failure, NO_DEMANDS, *tells)
    one.feed(5)
    with pytest.raises(RoundFailedError):
        await one.round()
    assert sum(charge.taken.steps for charge in one.database.sample_charges.of(TASK.task)) == paid
    assert one.database.sample_charges.lost_steps(TASK.task) is None
    assert one.budget.told(TASK.task) == (PROMISE.epsilon_after(paid) if paid else 0.0)


async def test_round_that_failed_late_makes_no_later_one_dearer(device):
    one = device(lambda _: FAILURES[1], NO_DEMANDS, STEPPING)
    one.feed(5)
    with pytest.raises(RoundFailedError):
        await one.round()
    early = device(lambda _: FAILURES[1], NO_DEMANDS, READING)
    with pytest.raises(RoundFailedError):
        await early.round()
    assert sum(charge.taken.steps for charge in early.database.sample_charges.of(TASK.task)) == STEPS


async def test_owners_limit_ends_rounds_before_the_tasks_and_a_weaker_task_is_refused_in_words(device) -> None:
    owner = PrivacySettings(at_least="samples", epsilon=PROMISE.epsilon_after(STEPS) * 1.01)
    one = device(lambda _: SENT, owner)
    one.feed(5)
    assert one.training.why_refused(TASK) is None
    assert (await one.round()) == SENT
    assert (await one.round() or SENT).why == "spent"
    without = msgspec.structs.replace(TASK, privacy=None)
    assert "has no [privacy.samples], and the owner of this device demands it" in str(one.training.why_refused(without))
    assert PrivacySettings().refusal(without) is None
    assert one.training.what_is_missing(TASK) is None
    stricter = PrivacySettings(at_least="samples", epsilon=0.01)
    assert "one round of" in str(stricter.refusal(TASK))
    assert "allows 0.01" in str(stricter.refusal(TASK))


async def test_damaged_row_of_the_ledger_is_charged_to_all_samples_that_are_there(device, tmp_path) -> None:
    one = device(lambda _: SENT)
    one.feed(5)
    await one.round()
    one.database._connection.execute("DELETE FROM sample_steps")
    one.feed(1)
    assert one.database.sample_charges.lost_steps(TASK.task) == StepsTaken(PROMISE.mechanism, STEPS)
    await one.round()
    assert one.database.sample_charges.of(TASK.task) == [Charge(6, StepsTaken(PROMISE.mechanism, 2 * STEPS))]


def test_ledger_is_bounded_and_never_counts_less(device) -> None:
    one = device(lambda _: SENT)
    step = Mechanism(1.0, 0.05)
    with transaction(one.database._connection):
        for newest in range(1, MOST_ROWS + 4):
            add_charge(one.database._connection, TASK.task, Charge(newest, StepsTaken(step, 1)))
    charges = one.database.sample_charges.of(TASK.task)
    assert charges[0] == Charge(4, StepsTaken(step, 4)), "what began first stays first"
    assert len(charges) == MOST_ROWS
    assert sum(charge.taken.steps for charge in charges) == MOST_ROWS + 3
    assert sum(charge.taken.steps for charge in charges if charge.newest >= 4) == MOST_ROWS + 3
    assert one.database.sample_charges.of("other") == []
