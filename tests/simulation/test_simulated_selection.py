"""A fleet in virtual time whose devices are selected: the cores that ship, through sleep, crashes and stalls."""

from functools import cache
from statistics import median

import msgspec
import pytest

from broker_coordinator.aggregation.selection import MOST_TIMES_USUAL, Utilities
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.kinds import Selection
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.task_description import TaskDescription
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.conditions import FleetMember
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.world import as_trained

SLOW, FAST = 10, 10
MEMBERS = fleet(FAST) + fleet(SLOW, start_seconds=500.0)
PLANS = {
    "utility": SelectionPlan(share=0.2, preferred_seconds=60.0, fairness=0.5),
    "power_of_choice": SelectionPlan("power_of_choice", share=0.2, fairness=0.5),
    "pisces": SelectionPlan("pisces", share=0.2, fairness=0.5),
}
"""Three quarters of the mean, as usual, are more than six places have time for where half of the devices is slow."""


def simulation(
    plan: SelectionPlan | None, *, concurrent: int | None = None, members=MEMBERS, seconds: float = 6 * HOUR
) -> Simulation:
    options = Options(seed=3, seconds=seconds, concurrent=concurrent, plain=True)
    return Simulation(members, bundle(selection=plan, buffer_size=3), workload(), options)


def updates(run: Simulation) -> list[int]:
    return [agent.updates_made for agent in run.agents]


@pytest.mark.parametrize("concurrent", [None, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize("method", PLANS)
def test_the_fleet_goes_on_and_nobody_is_left_out(method, concurrent):
    """Of six places at a time, the slow devices' rounds need more than half if they are to have their share."""
    run = simulation(PLANS[method], concurrent=concurrent, seconds=12 * HOUR)
    summary = run.run().summary
    assert summary.versions > 20
    assert summary.refused.keys() <= {"rate_limited"}, "kept, and sent later: one device has a share of the last ones"
    sent = updates(run)
    most = MOST_TIMES_USUAL * median(sent)
    mean = sum(min(each, most) for each in sent) / len(sent)
    behind = 3  # a whole update is owed, then it waits for one of the places to train, and is at work
    assert min(sent) + behind >= PLANS[method].fairness * mean


def test_slow_devices_train_less_often_than_without_selection():
    def share_of_slow(plan: SelectionPlan | None) -> float:
        run = simulation(plan, concurrent=4, seconds=12 * HOUR)
        run.run()
        sent = updates(run)
        return sum(sent[FAST:]) / sum(sent)

    by_worth_alone = SelectionPlan(share=0.2, preferred_seconds=60.0, fairness=0.0)
    assert share_of_slow(by_worth_alone) < 0.5 * share_of_slow(None)


DEFAULTS = [SelectionPlan(), SelectionPlan("power_of_choice"), SelectionPlan("pisces")]
FLEETS = [(6, 2), (10, 8), *(pytest.param(*each, marks=pytest.mark.long) for each in [(10, 5), (20, 2), (30, 4)])]
"""Devices, and updates in a buffer."""


def versions_of(plan: SelectionPlan | None, members: list[FleetMember], buffer_size: int, tamper=as_trained) -> int:
    options = Options(seed=3, seconds=5 * HOUR, plain=True)
    run = Simulation(members, bundle(selection=plan, buffer_size=buffer_size), workload(), options, tamper=tamper)
    return run.run().summary.versions


@cache
def usual_versions(devices: int, buffer_size: int, **conditions: float) -> int:
    """In five hours, without selection."""
    return versions_of(None, fleet(devices, **conditions), buffer_size)


@pytest.mark.parametrize("plan", DEFAULTS, ids=lambda plan: plan.method)
@pytest.mark.parametrize(("devices", "buffer_size"), FLEETS)
def test_a_healthy_fleet_makes_three_quarters_of_the_versions_that_it_makes_without(plan, devices, buffer_size):
    assert versions_of(plan, fleet(devices), buffer_size) >= 0.75 * usual_versions(devices, buffer_size)


@pytest.mark.parametrize("plan", DEFAULTS, ids=lambda plan: plan.method)
def test_so_does_one_whose_rounds_take_longer_than_its_samples(plan):
    usual = usual_versions(10, 5, start_seconds=900.0)
    assert versions_of(plan, fleet(10, start_seconds=900.0), 5) >= 0.75 * usual


def claims_a_huge_loss(device: int, _: TaskDescription, result: TrainingResult) -> TrainingResult:
    return msgspec.structs.replace(result, loss=1e9 * (1.0 + result.loss)) if device < 4 else result


@pytest.mark.parametrize("plan", DEFAULTS, ids=lambda plan: plan.method)
@pytest.mark.parametrize("tamper", [pytest.param(as_trained, marks=pytest.mark.long), claims_a_huge_loss])
def test_a_third_that_dies_stops_nothing_whatever_it_said_before(plan, tamper):
    """Each of them within hours, some later than others."""
    dies = fleet(4, crashes_per_day=12.0, restart_seconds=1e9)
    members = dies + fleet(8)
    without = versions_of(None, members, 3)
    assert versions_of(plan, members, 3, tamper) >= 0.75 * without


@pytest.mark.parametrize("plan", DEFAULTS, ids=lambda plan: plan.method)
def test_a_third_that_lies_and_goes_on_slows_nobody_down(plan):
    assert versions_of(plan, fleet(12), 3, claims_a_huge_loss) >= 0.75 * usual_versions(12, 3)


@pytest.mark.parametrize("concurrent", [None, pytest.param(4, marks=pytest.mark.long)])
def test_a_threshold_above_everybodys_utility_stops_nothing(concurrent, monkeypatch):
    impossible = Selection(1e30, 0, 0.0, 0.0)
    monkeypatch.setattr(Utilities, "selection", lambda *_, **__: impossible)
    plan = SelectionPlan(share=0.2, patience_seconds=600.0)
    summary = simulation(plan, concurrent=concurrent, members=fleet(6)).run().summary
    assert summary.versions >= 20


def test_the_same_seed_gives_the_same_and_a_checkpoint_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed, again = (simulation(PLANS["utility"]) for _ in range(3))
    expected = whole.run(tick=tick).summary
    assert resume(paths[len(paths) // 2], {}, resumed)
    assert msgspec.json.encode(resumed.run().summary) == msgspec.json.encode(expected)
    assert msgspec.json.encode(again.run().summary) == msgspec.json.encode(expected)
