"""A fleet in virtual time: what happens when, what it costs, and that nothing is lost or counted twice."""

import math
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from broker_coordinator.distribution.signed_messages import MessageSigner
from bundle_runtime.bundle import Bundle
from edge_agent.core.growing_waits import FIRST_WAIT_SECONDS
from edge_agent.profiles import read_profile
from edge_agent.training.feedback import StateLayout, recall
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import SparseUpdate, apply_difference, encode_difference, read_weights
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from fleet_protocol.topics import PackedWeights
from fleet_protocol.update_plan import UpdatePlan
from tests.kinds.installed import installed
from tests.support.simulated_fleet import BUNDLE, HOUR, STEADY, bundle, fleet, workload
from workbench.cli import app
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.coordinator import SimulatedCoordinator
from workbench.simulation.event_queue import EventQueue
from workbench.simulation.fleet_files import draw_fleet, read_trace
from workbench.simulation.residuals import Residuals
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.verdict import failure, remarks

SPEAKER = MessageSigner(SigningKey(bytes(32)), "simulated", "0")


def simulation(members: list[FleetMember], options: Options, **plans) -> Simulation:
    return Simulation(members, bundle(**plans), workload(), options)


def test_events_run_in_the_order_of_their_times_and_then_of_their_planning():
    queue, seen = EventQueue(), []
    for name, seconds in (("late", 2.0), ("first", 1.0), ("second", 1.0), ("never", 9.0)):
        queue.after(seconds, lambda name=name: seen.append((name, queue.now)))
    queue.run(until=3.0)
    assert (seen, queue.now) == ([("first", 1.0), ("second", 1.0), ("late", 2.0)], 3.0)


def test_a_device_is_on_in_its_hours_across_midnight():
    night = msgspec.structs.replace(STEADY, opens_at_hour=22.0, open_hours=4.0)
    assert [night.seconds_until_open(hour * HOUR) for hour in (23.0, 25.0, 2.0)] == [0.0, 0.0, 20 * HOUR]
    assert night.seconds_until_closed(23 * HOUR) == 3 * HOUR


def test_a_fleet_learns_the_synthetic_task():
    result = simulation(fleet(20), Options(seed=3, seconds=6 * HOUR, target=0.5)).run()
    assert result.summary.reached is not None
    assert result.summary.reached.score >= 0.5 > result.history[0].score == pytest.approx(0.0, abs=0.01)
    assert [point.virtual_seconds for point in result.history] == sorted(p.virtual_seconds for p in result.history)
    assert result.summary.refused == {}


@pytest.mark.parametrize("versions_from", ["update", "delta"])
def test_kinds_that_do_not_ship_with_edgeflock_are_simulated_too(versions_from):
    with installed():
        run = simulation(fleet(6), Options(seed=3, seconds=HOUR), versions_from=versions_from)
        summary = run.run().summary
    assert summary.refused == {}
    assert summary.versions == summary.updates // 4 > 0, "reports make none"
    assert [agent._memory.sequence for agent in run.agents] == [2 * agent.updates_made for agent in run.agents]


def test_fleet_of_a_task_with_clusters_of_which_none_has_a_device_learns_what_it_does_without():
    options = Options(seed=3, seconds=HOUR)
    plain, clustered = bundle(), bundle()
    task = msgspec.structs.replace(clustered.description, clusters=ClusterPlan(2))
    clustered = Bundle(task, clustered.files)
    found = [Simulation(fleet(6), each, workload(), options).run() for each in (plain, clustered)]
    assert [point.score for point in found[0].history] == [point.score for point in found[1].history]
    assert found[1].summary.refused == {}
    assert found[1].summary.versions == found[0].summary.versions > 0


def test_crashes_and_closing_hours_lose_rounds_but_no_update():
    members = fleet(30, crashes_per_day=200.0, restart_seconds=90.0, open_hours=6.0, start_seconds=120.0)
    run = simulation(members, Options(seed=5, seconds=24 * HOUR))
    summary = run.run().summary
    assert summary.crashes > 100
    assert summary.rounds_lost > 20
    made = sum(agent.updates_made for agent in run.agents)
    waiting = sum(agent.updates_waiting for agent in run.agents)
    assert summary.refused == {}
    assert 0 <= summary.updates - (made - waiting) <= waiting
    assert summary.updates <= made


def test_updates_that_come_too_late_are_refused_and_their_residual_kept():
    members = fleet(6) + fleet(2, training_mflops=0.2)
    plan = {"max_staleness": 3, "buffer_size": 1, "max_delta_norm": 1e6}
    summary = simulation(members, Options(seed=2, seconds=6 * HOUR), **plan).run().summary
    assert summary.refused.keys() == {"too_stale"}
    assert max(summary.staleness) == 3


def test_a_fixed_number_of_devices_train_at_any_time():
    conditions = {"start_seconds": 60.0, "training_mflops": 1e9, "uplink_kbit_s": 1e9, "downlink_kbit_s": 1e9}
    options = Options(seed=1, seconds=HOUR, concurrent=5)
    summary = simulation(fleet(40, **conditions, latency_ms=0.0), options).run().summary
    assert 5 * 58 <= summary.updates <= 5 * 60
    assert summary.bytes_down["manifest"] < summary.updates * 6 * 300


def test_a_synchronous_round_waits_for_its_slowest_device():
    members = fleet(9, start_seconds=10.0, latency_ms=0.0) + fleet(1, start_seconds=500.0, latency_ms=0.0)
    options = Options(seed=1, seconds=10 * 520.0, concurrent=10, synchronous=True)
    summary = simulation(members, options, buffer_size=10).run().summary
    assert (summary.versions, summary.updates) == (10, 10 * 10 + 9)  # the eleventh round lacks its slowest
    assert set(summary.staleness) == {0}


def test_a_synchronous_round_with_more_devices_than_it_needs_does_not_wait_for_the_slowest():
    members = fleet(18, start_seconds=10.0, latency_ms=0.0) + fleet(2, start_seconds=500.0, latency_ms=0.0)
    options = Options(seed=1, seconds=400.0, concurrent=6, synchronous=True)
    plan = {"strategy": "fedavg", "buffer_size": 4, "max_staleness": 0, "over_selection": 1.5, "round_seconds": 1e9}
    summary = simulation(members, options, **plan).run().summary
    assert summary.versions > 25
    assert summary.collapses == 1, "residuals of slow devices: the true scores fall too"
    assert summary.updates == 4 * (summary.versions - summary.collapses), "a version that is restored holds no update"
    assert summary.refused.keys() == {"too_stale"}


def test_a_fleet_that_wakes_on_its_own_samples_takes_turns_in_rounds():
    plan = {"strategy": "fedavg", "buffer_size": 4, "max_staleness": 0, "round_seconds": 900.0}
    summary = simulation(fleet(60), Options(seed=1, seconds=2 * HOUR), **plan).run().summary
    assert summary.versions >= 2 * 4 - 2, "no round takes much longer than its deadline"
    assert summary.updates < 4 * (summary.versions + 1)
    assert set(summary.staleness) == {0}
    free = simulation(fleet(60), Options(seed=1, seconds=2 * HOUR)).run().summary
    assert summary.updates + sum(summary.refused.values()) < free.updates / 4, "a round asks four of sixty"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_few_very_slow_devices_cost_next_to_no_time(seed):
    """5 % of the fleet a hundred times slower: at most a tenth more virtual time to the same score."""

    def seconds_to_score(slow: int) -> float:
        crawling = {"training_mflops": STEADY.training_mflops / 100, "start_seconds": STEADY.start_seconds * 100}
        options = Options(seed=seed, seconds=48 * HOUR, target=0.8, stop_at_target=True, score_every=5)
        plan = {"buffer_size": 10, "server_momentum": 0.0, "server_learning_rate": 0.05, "keep_fraction": 0.1}
        reached = simulation(fleet(100 - slow) + fleet(slow, **crawling), options, **plan).run().summary.reached
        return reached.virtual_seconds

    assert seconds_to_score(slow=5) < 1.1 * seconds_to_score(slow=0)


class DivergingEngine:
    """Counts how often it is asked to train."""

    def __init__(self) -> None:
        self.rounds = 0

    def train(self, weights, samples, plan, rates, on_progress=None):
        self.rounds += 1
        return weights, np.full(len(plan.rows), np.nan, np.float32)


def test_what_diverged_is_tried_again_with_new_samples_after_growing_waits():
    engine = DivergingEngine()
    learned = replace(workload(), engine=engine)
    run = Simulation(fleet(1, samples_per_hour=4.0), bundle(), learned, Options(seed=1, seconds=24 * HOUR))
    summary = run.run().summary
    hours_after_the_first_round = 24 - 32 / 4
    doublings_to_that = math.log2(hours_after_the_first_round * HOUR / FIRST_WAIT_SECONDS)
    assert engine.rounds == pytest.approx(1 + doublings_to_that, abs=2)
    assert (summary.updates, summary.rounds_diverged.times) == (0, engine.rounds)


class ExplodingEngine:
    """Moves every weight by a third of what float32 can hold, at no loss."""

    def train(self, weights, samples, plan, rates, on_progress=None):
        on_progress(len(plan.rows), np.zeros(len(plan.rows), np.float32))
        return weights + np.float32(1e38), np.zeros(len(plan.rows), np.float32)


def test_versions_that_would_not_be_finite_stop_and_the_simulation_ends_with_words():
    learned = replace(workload(), engine=ExplodingEngine())
    options = Options(seed=1, seconds=6 * HOUR)
    exploding = bundle(max_delta_norm=1e300, keep_fraction=1.0, server_learning_rate=2.0)
    summary = Simulation(fleet(8), exploding, learned, options).run().summary
    assert "would no longer be finite" in summary.stopped
    assert summary.versions == 1
    assert failure(summary).startswith(f"versions stopped after {summary.versions:,}: weights or the server")


def test_no_score_is_reached_before_an_update_was_accepted():
    summary = simulation(fleet(4), Options(seed=1, seconds=60.0, target=-1.0)).run().summary
    assert (summary.updates, summary.reached) == (0, None)
    later = simulation(fleet(4), Options(seed=1, seconds=HOUR, target=-1.0)).run().summary
    assert later.reached is not None
    assert later.reached.updates > 0


def test_refusals_are_counted_by_reason_with_the_words_of_the_first():
    slow = fleet(4, start_seconds=600.0)
    summary = simulation(slow, Options(seed=1, seconds=2 * HOUR), max_staleness=0, buffer_size=1).run().summary
    (reason,) = summary.refused
    assert reason == "too_stale"
    assert "exceeds max_staleness (0)" in summary.refused[reason].words


def test_updates_larger_than_the_task_takes_are_divergence_and_never_sent():
    summary = simulation(fleet(4), Options(seed=1, seconds=2 * HOUR), max_delta_norm=1e-6).run().summary
    assert (summary.updates, summary.versions, summary.refused) == (0, 0, {})
    assert "at most 1e-06 (max_delta_norm) is taken" in summary.rounds_diverged.words


def test_samples_that_come_while_a_device_trains_count_for_the_next_round():
    slow = simulation(fleet(1, start_seconds=600.0), Options(seed=1, seconds=24 * HOUR)).run().summary
    assert 24 * HOUR / 600 * 0.9 < slow.updates < 24 * HOUR / 600, "every round has its 32 samples before the last ends"


@pytest.mark.parametrize("at_a_time", [None, 3])
def test_fleet_that_gets_the_same_samples_again_comes_to_rest(at_a_time):
    options = Options(seed=1, seconds=48 * HOUR, concurrent=at_a_time)
    run = simulation(fleet(6), options, maximum_epochs=60)
    summary = run.run().summary
    epochs_of_a_round = 60 * 16 / 64
    assert {agent.updates_made for agent in run.agents} == {math.ceil(60 / epochs_of_a_round)}
    assert summary.updates == sum(agent.updates_made for agent in run.agents)
    assert at_a_time or summary.rounds_withheld["spent"] > 0


def test_the_same_seed_gives_the_same_history_and_another_one_another():
    members = draw_fleet([read_profile("pi-4"), read_profile("pi-zero-2w")], 12, seed=4)

    def history(seed: int) -> list:
        return simulation(members, Options(seed=seed, seconds=6 * HOUR)).run().history

    assert history(4) == history(4)
    assert history(4) != history(5)


def test_profiles_differ_by_kind_and_devices_by_number():
    members = draw_fleet([read_profile("pi-5"), read_profile("pi-zero-2w")], 40, seed=0)
    speeds = [member.conditions.training_mflops for member in members]
    assert len(set(speeds)) == len(speeds)
    assert min(speeds[::2]) > max(speeds[1::2])


def test_a_trace_gives_a_device_per_line(tmp_path):
    header = ",".join(Conditions.__struct_fields__)
    trace = tmp_path / "trace.csv"
    trace.write_text(f"{header}\n1000,5,1000,2000,20,60,8,12,0.5,60\n500,9,100,200,80,6,0,24,0,60\n")
    first, second = (member.conditions for member in read_trace(trace))
    assert (first.opens_at_hour, first.open_hours, second.uplink_kbit_s) == (8.0, 12.0, 100.0)
    trace.write_text(f"{header}\n1000,5,fast,2000,20,60,8,12,0.5,60\n")
    with pytest.raises(ConfigurationError, match=r"line 2.*uplink_kbit_s"):
        read_trace(trace)
    trace.write_text(f"\ufeff{header}\n1000,5,1000,2000,20,60,8,12,0.5,60\n", encoding="utf-8")
    assert len(read_trace(trace)) == 1  # as a spreadsheet writes it
    trace.write_text(f"{header}\n1000,5,1000,2000,20,60,8,12,0.5,60,7\n")
    with pytest.raises(ConfigurationError, match="line 2: more values than the 10 columns"):
        read_trace(trace)
    trace.write_text(f"{header},latency_ms\n1000,5,1000,2000,20,60,8,12,0.5,60,20\n")
    with pytest.raises(ConfigurationError, match="the column 'latency_ms' is there twice"):
        read_trace(trace)


def test_what_a_trace_says_is_not_said_beside_it():
    for option in (["--devices", "7"], ["--profile", "pi-4"]):
        ended = CliRunner().invoke(app, ["simulate", "--trace", "fleet.csv", *option])
        assert "--trace fleet.csv: its lines are the devices" in str(ended.exception or ended.output)


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples_per_hour", "inf"), ("samples_per_hour", "1e300"), ("start_seconds", "nan"), ("latency_ms", "-20"),
     ("opens_at_hour", "24"), ("open_hours", "0"), ("crashes_per_day", "nan"), ("restart_seconds", "-60")],
)  # fmt: skip
def test_a_number_that_no_clock_can_run_on_is_refused_with_its_line_and_field(tmp_path, field, value):
    given = dict.fromkeys(Conditions.__struct_fields__, "12") | {field: value}
    trace = tmp_path / "trace.csv"
    trace.write_text(",".join(given) + "\n" + ",".join(given.values()) + "\n")
    with pytest.raises(ConfigurationError, match=rf"line 2: Expected `float`.*{field}"):
        read_trace(trace)


def test_residuals_are_rounded_where_they_would_not_fit_and_refused_beyond():
    state = np.array([1.0, 1 / 3], np.float32)
    layout = StateLayout(0, state.dtype)
    whole, rounded = Residuals(1000, 1048, 1, layout), Residuals(2000, 1048, 1, layout)
    for residuals in (whole, rounded):
        assert residuals.get(7) == b""
        residuals.put(7, state.tobytes())
    assert np.array_equal(np.frombuffer(whole.get(7), np.float32), state)
    assert np.array_equal(np.frombuffer(rounded.get(7), np.float32), state.astype(np.float16))
    with pytest.raises(ConfigurationError, match="--memory-mib"):
        Residuals(20_000, 1048, 1, layout)


def test_life_of_a_rounded_ef21_memory_stays_what_it_was():
    plan = UpdatePlan(0.5, feedback="ef21")
    memory = recall(plan, b"", 130, life=1333308800)
    memory.take(SparseUpdate(np.array([3]), np.array([1 / 3], np.float32)))
    residuals = Residuals(2000, len(memory.state()), 1, memory.layout)
    assert residuals.rounded
    residuals.put(7, memory.state())
    again = recall(plan, residuals.get(7), 130, life=1)
    assert again.life == 1333308800
    assert np.array_equal(again.offer(np.zeros(130, np.float32)), memory.offer(np.zeros(130, np.float32)))


def test_a_simulation_with_ef21_is_reproducible():
    task = bundle(strategy="ef21").description
    served = Bundle(
        msgspec.structs.replace(task, update=msgspec.structs.replace(task.update, feedback="ef21")), BUNDLE.files
    )

    def sent(seed: int) -> dict[str, int]:
        return Simulation(fleet(5), served, workload(), Options(seed=seed, seconds=2 * HOUR)).run().summary.bytes_up

    assert sent(1) == sent(1)


def with_downlink(differences: str, precision_bits: int = 2) -> Bundle:
    task = bundle().description
    plan = DownlinkPlan(differences, precision_bits)
    return Bundle(msgspec.structs.replace(task, downlink=plan), BUNDLE.files)


@pytest.mark.parametrize("differences", ["lossy", "exact", "off"])
def test_devices_fetch_the_very_chunks_that_the_coordinator_would_publish(differences):
    served = with_downlink(differences)
    members, options = fleet(4), Options(seed=1, seconds=2 * HOUR)
    run = Simulation(members, served, workload(), options)
    run.run()
    world = run._world
    version, coordinator = world.coordinator.version, world.coordinator
    assert version > 3
    for held in (version - 2, None):
        counted = world.downlink.version_bytes(version, held)
        if differences == "off":
            content, wanted = coordinator.published("digits", version), "0" * 64
        else:
            base = None if held is None else version_weights(coordinator, held)
            content = encode_difference(base, coordinator.weights, served.description.shapes, served.grid())
            wanted = PackedWeights("digits", version, held)
            rebuilt = apply_difference(base, content, served.description.shapes)
            assert np.array_equal(rebuilt, coordinator.weights)
        assert counted == len(SPEAKER.chunk(wanted, content, 0).data)


def test_a_lossy_version_lies_on_the_grid_and_the_next_one_follows_the_true_weights():
    run = Simulation(fleet(4), with_downlink("lossy", 0), workload(), Options(seed=1, seconds=2 * HOUR))
    run.run()
    coordinator, grid = run._world.coordinator, with_downlink("lossy", 0).grid()
    true, shapes = coordinator._served.state.weights, BUNDLE.description.shapes
    assert np.array_equal(coordinator.weights, grid.rounded(true, shapes))
    assert not np.array_equal(coordinator.weights, true)


def test_only_a_rounded_version_zero_travels_packed_and_nothing_where_a_device_has_the_newest():
    for differences in ("lossy", "exact", "off"):
        run = Simulation(fleet(4), with_downlink(differences), workload(), Options(seed=1, seconds=0.0))
        zero = run._world.downlink.version_bytes(0, None)
        whole = len(SPEAKER.chunk("0" * 64, BUNDLE.weights, 0).data)
        assert (zero == whole) == (differences != "lossy")
        assert zero < whole / 4 or differences != "lossy"
        assert run._world.fetch(None, is_first=False) == 0


def version_weights(coordinator: SimulatedCoordinator, version: int) -> np.ndarray:
    return read_weights(coordinator.published("digits", version), BUNDLE.description.parameters)


def test_fleet_whose_server_takes_too_large_steps_goes_back_to_a_good_version_and_says_so() -> None:
    plan = {"max_delta_norm": 1e9, "server_learning_rate": 2.2}
    result = simulation(fleet(8), Options(seed=1, seconds=4 * HOUR, score_every=1), **plan).run()
    assert result.summary.collapses == 2
    assert "training collapsed 2 times" in " ".join(remarks(result.summary))
    fallen = [after.score - before.score for before, after in pairwise(result.history)]
    assert max(fallen) > 1.0


def test_versions_take_a_tenth_of_a_fleet_that_is_known_from_the_start() -> None:
    summary = simulation(fleet(100), Options(seed=1, seconds=2 * HOUR), buffer_size=None).run().summary
    assert summary.refused == {}
    assert summary.updates // 10 - 1 <= summary.versions <= summary.updates // 10 + 1
