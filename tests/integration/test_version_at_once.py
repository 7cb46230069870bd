"""`tasks aggregate`: a version of what waits, whatever its task asks for; once, through restarts, and its replay."""

from pathlib import Path

import pytest

from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.solved_head import SolvedHead
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.commands import command
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed
from tests.support.solved_heads import fleet, head_of

HEAD = SolvedHead(precision="float64")
SAMPLES = list(fleet(11, 4, classes_each=2))
DEVICES = [SigningDevice(f"pi-{number}") for number in range(4)]
ROUNDS = AggregationPlan(buffer_size=3, strategy="fedavg", round_seconds=1e6, max_staleness=0)


def bench_of(folder: Path, aggregation: AggregationPlan, head: SolvedHead | None = None) -> Bench:
    bench = Bench(folder / "one.db", write_bundle(folder / "bundle", aggregation=aggregation, solved_head=head))
    for device in DEVICES:
        bench.handle(device, device.enrolment())
    bench.said()
    return bench


def newest(bench: Bench) -> int:
    bench.make_versions()
    return bench.journal.newest_number(TASK)


@pytest.mark.parametrize("restarts", [False, True])
def test_solved_head_is_made_of_the_statistics_that_wait(tmp_path, capsys, restarts):
    bench = bench_of(tmp_path, AggregationPlan(buffer_size=4, averaged_versions=1), HEAD)
    for place in (0, 1):
        bench.handle(DEVICES[place], SAMPLES[place].message(DEVICES[place], 1, 4, HEAD))
    assert newest(bench) == 0, "two of four"
    assert command(bench, tmp_path, capsys, "tasks", "aggregate", TASK) == {
        "task": TASK,
        "version": 1,
        "waiting": 2,
    }
    if restarts:
        bench.restart()
    assert newest(bench) == newest(bench) == 1
    weights = bench.journal.newest_version(TASK).state(bench.description.parameters, {}).weights
    assert weights.tobytes() == head_of(SAMPLES[:2], HEAD).flat().tobytes()
    assert versions_replayed(bench.journal, TASK) == 1
    bench.handle(DEVICES[2], SAMPLES[2].message(DEVICES[2], 1, 4, HEAD))
    assert newest(bench) == 1, "it was asked for one version, not for each"


@pytest.mark.parametrize("plan", [AggregationPlan(buffer_size=3), AggregationPlan(), ROUNDS])
def test_version_of_updates_is_made_of_fewer_and_the_next_one_as_usual(tmp_path, plan):
    bench = bench_of(tmp_path, plan)
    registry = VersionRegistry(bench.journal.engine)
    bench.handle(DEVICES[0], DEVICES[0].update(1))
    assert newest(bench) == 0
    assert registry.want(TASK) == registry.want(TASK) == (1, 1), "asking twice is asking once"
    assert newest(bench) == 1
    for device in DEVICES[1:3]:
        bench.handle(device, device.update(1, base_version=1))
    assert newest(bench) == 1
    bench.restart()
    assert newest(bench) == 1
    assert versions_replayed(bench.journal, TASK) == 1


def test_where_nothing_waits_nothing_is_made_and_the_operator_is_told(tmp_path):
    bench = bench_of(tmp_path, AggregationPlan(buffer_size=1))
    bench.handle(DEVICES[0], DEVICES[0].update(1))
    assert newest(bench) == 1
    registry = VersionRegistry(bench.journal.engine)
    with pytest.raises(
        ConfigurationError, match="nothing waits for a version of task 'tiny': all that came is in version 1"
    ):
        registry.want(TASK)
    with pytest.raises(ConfigurationError, match="serves no task 'other'"):
        registry.want("other")
    assert newest(bench) == 1


def test_version_that_is_made_by_itself_meanwhile_is_the_one_that_was_wanted(tmp_path):
    bench = bench_of(tmp_path, AggregationPlan(buffer_size=3))
    bench.handle(DEVICES[0], DEVICES[0].update(1))
    VersionRegistry(bench.journal.engine).want(TASK)
    for device in DEVICES[1:4]:
        bench.handle(device, device.update(1))
    assert newest(bench) == 1, "of three, and the fourth waits"
    assert bench.journal.overview.update_counts(TASK) == (4, 1)
