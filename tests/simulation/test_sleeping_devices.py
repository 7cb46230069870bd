"""Sleeping devices as rows of arrays: what they do is what agents would do that never become rows."""

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.fleet_view import Decided
from edge_agent.core.selection import RoundFigures
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from fleet_protocol.errors import Reason
from fleet_protocol.selection_plan import SelectionPlan
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.agent import SimulatedAgent
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.event_queue import BUCKET_SECONDS, Alarm, EventQueue
from workbench.simulation.outcomes import OUTCOMES_KEPT, Outcomes
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.sleepers import Process, Sleepers

LIVES = {
    "steady": (fleet(8), {}),
    "crashing": (fleet(10, crashes_per_day=100.0, restart_seconds=90.0, open_hours=9.0, start_seconds=60.0), {}),
    "refused": (
        fleet(6) + fleet(3, training_mflops=0.2),
        {"max_staleness": 3, "buffer_size": 1, "max_delta_norm": 1e6},
    ),
    "diverging": (fleet(6), {"max_delta_norm": 5.0, "buffer_size": 1}),
    "spent": (fleet(6), {"maximum_epochs": 60}),
    "selecting": (fleet(24), {"buffer_size": 3, "selection": SelectionPlan(share=0.2, patience_seconds=600.0)}),
    "in rounds": (fleet(12), {"strategy": "fedavg", "max_staleness": 0, "round_seconds": 900.0}),
}


def result_of(members: list[FleetMember], options: Options, plans: dict) -> tuple[Result, Simulation]:
    run = Simulation(members, bundle(**plans), workload(), options)
    return run.run(), run


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("life", LIVES)
def test_rows_do_what_agents_do(life, plain, monkeypatch):
    members, plans = LIVES[life]
    options = Options(seed=6, seconds=5 * HOUR, plain=plain)
    found, run = result_of(members, options, plans)
    monkeypatch.setattr(SimulatedAgent, "rest", lambda _: None)
    expected, awake = result_of(members, options, plans)
    assert len(awake.agents.awake) == len(members)
    assert len(run.agents.awake) < len(members)
    assert msgspec.json.encode(found.summary) == msgspec.json.encode(expected.summary)
    assert found.history == expected.history
    for row, agent in zip(run.agents, awake.agents, strict=True):
        assert row._memory == agent._memory
        assert row.missing_samples == agent.missing_samples


def test_a_fleet_that_waits_for_samples_is_asleep():
    run = Simulation(fleet(300, samples_per_hour=1.0), bundle(), workload(), Options(seed=1, seconds=HOUR))
    assert run.run().summary.updates == 0
    assert not run.agents.awake


class Rung:
    """Notes what happens when."""

    def __init__(self, devices: int) -> None:
        self.queue = EventQueue(devices)
        self.queue.ring = lambda alarm, device: self.seen.append((self.queue.now, alarm, device))
        self.seen: list[tuple] = []


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.floats(0, 200)), max_size=40))
def test_alarms_ring_once_at_the_time_they_were_set_to_last_and_in_order(planned):
    rung = Rung(5)
    last = {}
    for alarm, device, seconds in planned:
        rung.queue.set_alarm(Alarm(alarm), device, seconds)
        last[alarm, device] = seconds
    rung.queue.run(until=1000.0)
    assert [(alarm, device) for _, alarm, device in rung.seen] == sorted(last, key=lambda key: last[key]) or len(
        set(last.values())
    ) < len(last)
    assert {(alarm, device): time for time, alarm, device in rung.seen} == last
    assert len(rung.seen) == len(last)


def test_alarms_and_actions_of_one_time_come_as_they_were_planned():
    rung = Rung(2)
    late = 3 * BUCKET_SECONDS
    rung.queue.set_alarm(Alarm.POWER, 1, late)
    rung.queue.after(late, lambda: rung.seen.append((rung.queue.now, "action", 0)))
    rung.queue.set_alarm(Alarm.SAMPLES, 0, late)
    rung.queue.set_alarm(Alarm.SAMPLES, 1, late)
    rung.queue.stop_alarm(Alarm.SAMPLES, 1)
    rung.queue.run(until=late)
    assert rung.seen == [(late, Alarm.POWER, 1), (late, "action", 0), (late, Alarm.SAMPLES, 0)]


def test_what_is_planned_while_a_later_bucket_is_open_comes_in_its_turn():
    rung = Rung(1)
    rung.queue.after(5 * BUCKET_SECONDS, lambda: rung.queue.set_alarm(Alarm.SAMPLES, 0, 1.0))
    rung.queue.run(until=BUCKET_SECONDS)  # opens the bucket to see that it is too late
    rung.queue.after(1.0, lambda: rung.seen.append((rung.queue.now, "action", 0)))
    rung.queue.run(until=10 * BUCKET_SECONDS)
    assert [time for time, *_ in rung.seen] == [BUCKET_SECONDS + 1, 5 * BUCKET_SECONDS + 1]


VERSION = KnownVersion(3, "a" * 64, "b" * 64)


def test_a_row_holds_all_that_a_memory_has_but_what_waits():
    memory = DeviceMemory(
        enrolled=True,
        known=VERSION,
        fetched=VERSION,
        newest_sample=40,
        trained_through=32,
        rounds=4,
        withheld=1,
        epochs=2.5,
        usual_norm=0.25,
        sequence=9,
        cluster=2,
        turns=Turns(3, 2),
        figures=RoundFigures(40, 1.5, 12.0, 4, 0.5),
    )
    sleepers = Sleepers(3)
    process = Process(is_on=True, will_crash=True, boot=5, selection_threshold=7, has_heard=True)
    sleepers.store(1, memory, process)
    assert (sleepers.memory(1), sleepers.process(1)) == (memory, process)
    new = Process(is_on=False, will_crash=False, boot=0, selection_threshold=None, has_heard=False)
    for other in (0, 2):
        assert (sleepers.memory(other), sleepers.process(other)) == (DeviceMemory(), new)


def test_every_field_of_a_memory_has_a_place_in_the_row_or_keeps_its_device_awake():
    kept_awake = {"outbox", "returned", "charges", "noised", "own", "drift"}
    in_row = {"enrolled", "turns", "known", "fetched", "held", "newest_sample", "trained_through"}
    in_row |= {"rounds", "withheld", "epochs", "usual_norm", "sequence", "cluster", "figures"}
    assert set(DeviceMemory.__dataclass_fields__) == kept_awake | in_row


def test_a_sleeping_device_is_small():
    sleepers = Sleepers(1000)
    columns = [sleepers._boots, sleepers._thresholds, *sleepers._turns]
    columns += [column for _, column in (*sleepers._integers, *sleepers._floats, *sleepers._versions)]
    assert sum(map(sys.getsizeof, columns)) < 200 * 1000


@given(st.integers(0, 3 * OUTCOMES_KEPT))
def test_the_last_outcomes_of_a_device_are_known(count):
    outcomes = Outcomes()
    expected = {}
    for sequence in range(1, count + 1):
        reason = Reason.TOO_STALE if sequence % 5 == 0 else None
        outcome = Decided(sequence.to_bytes(16), reason, "words" if reason else "")
        outcomes["pi", sequence] = expected["pi", sequence] = outcome
    accepted = [key for key in expected if expected[key].reason is None][-OUTCOMES_KEPT:]
    refused = [key for key in expected if expected[key].reason is not None][-OUTCOMES_KEPT:]
    assert set(outcomes) == {*accepted, *refused}
    assert len(outcomes) == len(accepted) + len(refused)
    assert all(outcomes[key] == expected[key] for key in (*accepted, *refused))
    assert ("other", 1) not in outcomes
    assert ("pi", count + 1) not in outcomes
