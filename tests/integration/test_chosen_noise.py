"""A device whose owner has chosen its noise: what its rounds add, what is counted of them, and what damage leaves."""

from collections.abc import Callable

import msgspec
import pytest

from edge_agent.core.noise_choice import SPENT_WITHOUT_NOISE
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge
from edge_agent.shell.learning.sample_budget import SampleBudget
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import TrainingJob, Verdict, Withheld
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken
from tests.integration.test_sample_budget import PROMISE, SENT, STEPS, TASK, Device, Versions, device

__all__ = ["device"]

CHOICE = msgspec.structs.replace(PROMISE, owners_choose=True)
CHOSEN = msgspec.structs.replace(TASK, privacy=PrivacyPlan(CHOICE))
VERSION = ReadyVersion(3, "ab" * 32, CHOSEN, {}, Versions.version.weights)
OWN = PrivacySettings(at_least="samples", epsilon=3.5, noise="own")
NONE = PrivacySettings(noise="none")
ROUNDS = PROMISE.most_steps() // STEPS

Make = Callable[..., Device]


async def rounds_of(one: Device) -> tuple[int, Withheld]:
    """How many rounds on the samples that are there send something, and why the next one does not."""
    number = 0
    while (withheld := await one.training.run(TASK.task, VERSION)) == SENT:
        number += 1
    assert withheld is not None
    return number, withheld


async def test_own_noise_keeps_the_owners_epsilon_in_as_many_rounds_as_the_task_plans(device: Make) -> None:
    jobs: list[TrainingJob] = []

    def worker(job: TrainingJob) -> Verdict:
        jobs.append(job)
        return SENT

    one = device(worker, OWN)
    one.feed(5)
    assert one.training.why_refused(CHOSEN) is None
    number, withheld = await rounds_of(one)
    assert withheld.why == "spent"
    assert number >= ROUNDS, "more noise, and no fewer rounds"
    told = one.budget.told(TASK.task)
    assert told is not None
    assert 3.4 < told <= 3.5
    (added,) = {job.description.sample_privacy.noise_multiplier for job in jobs if job.description.sample_privacy}
    assert added > PROMISE.noise_multiplier

    stopping = device(worker, PrivacySettings(at_least="samples", epsilon=3.5))
    stopping.feed(5)
    assert (await rounds_of(stopping))[0] < ROUNDS, "with the task's noise the same epsilon ends rounds earlier"


async def test_task_that_allows_no_choice_has_its_own_noise_whatever_owners_write(device: Make) -> None:
    for owner in (OWN, NONE):
        jobs: list[TrainingJob] = []
        one = device(lambda job, jobs=jobs: jobs.append(job) or SENT, owner)
        one.feed(5)
        assert one.training.why_refused(TASK) is None
        assert await one.round() == SENT
        assert jobs[0].description == TASK


async def test_rounds_without_noise_end_as_planned_and_are_never_called_bounded(device: Make) -> None:
    one = device(lambda _: SENT, NONE)
    one.feed(5)
    number, withheld = await rounds_of(one)
    assert (number, withheld.words) == (ROUNDS, SPENT_WITHOUT_NOISE)
    assert one.budget.told(TASK.task) is None

    back = device(lambda _: SENT, PrivacySettings(at_least="samples"))
    number, withheld = await rounds_of(back)
    assert (number, withheld.why) == (0, "spent"), "noise that comes later hides none of them"
    back.feed(1)
    assert (await rounds_of(back))[0] == ROUNDS, "a new sample has its whole budget"
    assert back.budget.told(TASK.task) is None


async def test_status_says_of_the_sample_that_most_was_told_of_no_more_than_any_may_tell(device: Make) -> None:
    one = device(lambda _: SENT)
    for _ in range(3):
        one.feed(2)
        await rounds_of(one)
    assert sum(charge.taken.steps for charge in one.database.sample_charges.of(TASK.task)) == 3 * ROUNDS * STEPS
    told = one.budget.told(TASK.task)
    assert told == pytest.approx(PROMISE.epsilon_after(ROUNDS * STEPS))
    again = device(lambda _: SENT)
    assert again.budget.told(TASK.task) == told


async def test_lost_charge_counts_as_the_least_noise_that_any_round_had(device: Make) -> None:
    one = device(lambda _: SENT, PrivacySettings())
    one.feed(5)
    await one.training.run(TASK.task, VERSION)
    one.feed(1)
    loud = SampleBudget(one.database, one.samples, OWN)
    loud.charge(CHOSEN)
    one.database._connection.execute("DELETE FROM sample_steps WHERE newest = 5")
    assert one.database.sample_charges.lost_steps(TASK.task) == StepsTaken(PROMISE.mechanism, STEPS)
    loud.charge(CHOSEN)
    charged = {charge.taken.mechanism: charge for charge in one.database.sample_charges.of(TASK.task)}
    assert charged[PROMISE.mechanism] == Charge(6, StepsTaken(PROMISE.mechanism, STEPS))


@pytest.mark.parametrize("damaged", ["", "UPDATE told_samples SET noise = 1000.0"])
async def test_lost_charge_that_may_have_been_without_noise_is_charged_so(device: Make, damaged: str) -> None:
    one = device(lambda _: SENT, PrivacySettings() if damaged else NONE)
    one.feed(5)
    await one.training.run(TASK.task, VERSION)
    one.database._connection.execute("DELETE FROM sample_steps")
    for trigger in ("insert", "update", "delete"):
        one.database._connection.execute(f"DROP TRIGGER seal_told_samples_{trigger}")  # as a flipped bit would be
    if damaged:
        one.database._connection.execute(damaged)
    again = device(lambda _: SENT, PrivacySettings(at_least="samples"))
    assert (await rounds_of(again))[0] == 0
    lost = again.database.sample_charges.of(TASK.task)[0].taken.mechanism
    assert lost == (Mechanism(0.0, 1.0) if damaged else Mechanism(0.0, PROMISE.sampling_rate))
    assert again.budget.told(TASK.task) is None
    again.feed(1)
    assert (await rounds_of(again))[0] == ROUNDS
