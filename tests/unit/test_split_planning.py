"""Which cut each device of a fleet trains with: exact for small fleets, the better of two searches for others."""

import random
from collections.abc import Sequence
from itertools import product

import msgspec
import pytest

from edge_agent.profiles import read_profile
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from fleet_protocol.split_plan import WHOLE, Cut
from fleet_protocol.split_step_costs import StepCost
from tests.support.split_task import DEEP, EARLY, TASK
from workbench.fleet_description import FleetFile, read_description
from workbench.recipe_folder import find_bundle
from workbench.split_planning.coordinate_search import search_by_coordinates
from workbench.split_planning.cut_options import CutOption, Machine, best_alone, cut_options, machine_of
from workbench.split_planning.evolution import Evolution, evolve
from workbench.split_planning.first_plans import first_plans
from workbench.split_planning.planned_fleet import Kind, PlannedFleet, planned_fleet
from workbench.split_planning.planning import SplitReport, Wanted, plan_split
from workbench.split_planning.searches import front
from workbench.split_planning.shared_helpers import Group, Plan, Sharing, best_of_all
from workbench.split_planning.show import PlanRequest, show_plan

ZERO, PI_4 = read_profile("pi-zero-2w"), read_profile("pi-4")
FAST = Machine(flops=1e9, uplink=1e9, downlink=1e9, latency=0.0)
QUICK = Evolution(population=32, generations=60)


def with_limit(memory_limit_mib: int, profile=ZERO):
    worker = msgspec.structs.replace(profile.worker, memory_limit_mib=memory_limit_mib)
    return msgspec.structs.replace(profile, worker=worker)


def option(
    seconds: float, helper_seconds: Sequence[float] = (), name: str = "cut", up_bytes: int = 0, down_bytes: int = 0
) -> CutOption:
    """Of a device that computes for `seconds`, and each helper for so long; without one it is the whole step."""
    cut = Cut(name, [(1, 2)]) if helper_seconds else WHOLE
    costs = [
        StepCost(seconds, each, up_bytes, down_bytes, 0.0, 0.0, 0.0, 1, exchanges=2) for each in helper_seconds or [0.0]
    ]
    return CutOption(cut, 1, 2, tuple(costs))


def drawn_sharing(seed: int, devices: int, helpers: int, alike: int = 1) -> Sharing:
    """Devices that could take the whole step or two cuts, so many of a kind, and helpers of unlike speed."""
    draw = random.Random(seed)
    speeds = [draw.uniform(0.5, 2) for _ in range(helpers)]
    groups = [
        Group(
            [
                option(draw.uniform(1, 3)),
                option(draw.uniform(0.1, 1), [draw.uniform(0.1, 2) / each for each in speeds], "early", 3000, 3000),
                option(draw.uniform(0.1, 0.5), [draw.uniform(1, 3) / each for each in speeds], "deep", 1000, 1000),
            ],
            alike,
        )
        for _ in range(devices // alike)
    ]
    return Sharing(groups, [FAST] * helpers)


def score(sharing: Sharing, plan: Plan) -> float:
    return sharing.score(sharing.shares(plan))


def test_one_device_takes_the_fitting_cut_with_the_shortest_step():
    options = cut_options(TASK, with_limit(130), [FAST], stored_samples=0)
    assert [(each.cut.name, each.fits) for each in options] == [("whole", False), ("early", True), ("deep", True)]
    found = best_alone(options)
    assert found is min(options[1:], key=lambda each: each.seconds)
    assert options[0].why_not == "needs 142 MiB, memory_limit_mib is 130"


def test_nothing_is_best_where_nothing_fits_and_the_whole_step_is_all_there_is_without_helpers():
    assert best_alone(cut_options(TASK, with_limit(1), [FAST])) is None
    assert [each.cut for each in cut_options(TASK, PI_4, [])] == [WHOLE]


def test_a_full_store_is_planned_for_unless_it_is_said_what_is_stored():
    full, empty = (cut_options(TASK, PI_4, [], samples)[0].memory_bytes for samples in (None, 0))
    assert full - empty == 2.5 * 4 * 16 * PI_4.store.maximum_samples


def test_devices_of_one_helper_wait_for_one_another_and_a_fast_one_takes_less():
    sharing = Sharing([Group([option(1.0, [2.0, 0.2])], 1), Group([option(1.0, [3.0, 0.3])], 1)], [FAST, FAST])
    together, apart = ((0, 0), (0, 0)), ((0, 0), (0, 1))
    slow, quick = (sharing.cost(sharing.shares(plan)) for plan in (together, apart))
    assert 5.0 <= slow.seconds <= 6.0, "the helper computes 5 seconds for both, and is never idle for longer than 1"
    assert quick.share_seconds[0, (0, 0)] == pytest.approx(3.0)
    assert quick.share_seconds[1, (0, 1)] == pytest.approx(1.3)
    assert quick.busy == pytest.approx([2 / 3, 0.3 / 1.3])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("devices", "helpers", "alike"), [(1, 2, 1), (4, 2, 1), (5, 1, 1), (6, 2, 3)])
def test_both_searches_come_close_to_the_best_plan_of_a_small_fleet(seed, devices, helpers, alike):
    sharing = drawn_sharing(seed, devices, helpers, alike)
    every = product(*(sharing.choices(group) for group in sharing.group_of))
    best = min(score(sharing, plan) for plan in every)
    assert score(sharing, best_of_all(sharing)) == pytest.approx(best)
    assert score(sharing, evolve(sharing, QUICK)) == pytest.approx(best)
    alone = first_plans(sharing)[0]
    by_coordinates = search_by_coordinates(sharing)
    assert best <= score(sharing, by_coordinates) * (1 + 1e-12)
    assert score(sharing, by_coordinates) <= score(sharing, alone)


def test_after_the_search_by_coordinates_no_single_device_gains_by_another_choice():
    sharing = drawn_sharing(3, devices=60, helpers=2, alike=20)
    found = search_by_coordinates(sharing)
    for place, group in enumerate(sharing.group_of):
        for other in sharing.choices(group):
            assert score(sharing, (*found[:place], other, *found[place + 1 :])) >= score(sharing, found)


def test_evolution_is_never_worse_than_what_is_best_for_each_alone():
    sharing = drawn_sharing(3, devices=60, helpers=2)
    found = evolve(sharing, Evolution(population=16, generations=40))
    assert score(sharing, found) < min(score(sharing, plan) for plan in first_plans(sharing))


def test_the_same_seed_finds_the_same_plan():
    sharing = drawn_sharing(1, devices=30, helpers=2)
    few = Evolution(population=8, generations=5, seed=7)
    assert evolve(sharing, few) == evolve(sharing, few)


def test_the_front_goes_from_the_fastest_plan_to_the_one_with_the_fewest_bytes():
    points = front(drawn_sharing(2, devices=12, helpers=1, alike=4))
    assert len(points) > 1
    assert [each.seconds for each in points] == sorted({each.seconds for each in points})
    assert [each.step_bytes for each in points] == sorted({each.step_bytes for each in points}, reverse=True)


def test_what_a_megabyte_is_worth_decides_between_seconds_and_bytes():
    whole, cut = option(3.0), option(1.0, [0.1], up_bytes=10**6, down_bytes=10**6)
    for seconds_per_mb, expected in ((0.0, 1), (0.9, 1), (1.1, 0)):
        sharing = Sharing([Group([whole, cut], 1)], [FAST], bytes_weight=seconds_per_mb / 1e6)
        assert best_of_all(sharing) == ((expected, 0),)


def report_of(*kinds: Kind, helpers: int = 1) -> SplitReport:
    return plan_split(TASK, PlannedFleet(list(kinds), [FAST] * helpers), Wanted(QUICK, samples=0))


def test_a_mixed_fleet_has_a_row_for_every_cut_of_every_kind_and_says_why():
    report = report_of(Kind("weak", with_limit(130), 2), Kind("strong", PI_4, 1))
    weak, strong = report.kinds
    assert [row.cut for row in weak.cuts] == [row.cut for row in strong.cuts] == ["whole", "early", "deep"]
    assert sum(each.devices for each in weak.chosen) == 2
    assert {each.cut for each in weak.chosen} <= {EARLY.name, DEEP.name}
    assert weak.why.startswith("The whole step needs 142 MiB, memory_limit_mib is 130; of what fits, ")
    assert [each.cut for each in strong.chosen] == ["whole"]
    assert strong.why == "The whole step fits; no cut is better for the fleet."
    assert [each.search for each in report.found] == ["exact"]
    assert 0 < report.helper_busy[0] <= 1


def test_without_a_helper_a_weak_device_is_told_that_it_needs_one():
    report = report_of(Kind("weak", with_limit(130), 2), helpers=0)
    assert report.found == []
    assert report.kinds[0].chosen == []
    assert "needs 142 MiB, memory_limit_mib is 130; give --helpers" in report.kinds[0].why


def test_large_fleets_are_searched_in_both_ways_and_the_better_plan_is_taken():
    report = report_of(Kind("weak", with_limit(130), 60), Kind("strong", PI_4, 40), helpers=2)
    assert {each.search for each in report.found} == {"coordinate", "evolutionary"}
    assert report.found[0].score <= report.found[1].score
    assert sum(each.devices for each in report.kinds[0].chosen) == 60


def test_a_task_without_a_split_is_refused_with_the_remedy():
    with pytest.raises(ConfigurationError, match=r"has no split.*add \[split\] to its task.toml"):
        plan_split(msgspec.structs.replace(TASK, split=None), PlannedFleet([], []), Wanted(QUICK))


FLEET = """
[[devices]]
profile = "pi-zero-2w"
count = 3

[[cards]]
name = "kitchen"
profile = "pi-4"

[[helpers]]
profile = "pi-5"
count = 2
"""


@pytest.fixture
def fleet_file(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    return path


def test_fleet_file_names_devices_cards_and_helpers(fleet_file):
    described = read_description(fleet_file, "a guide")
    fleet = planned_fleet(described, fleet_file, None, "pi-5")
    assert [(kind.name, kind.count) for kind in fleet.kinds] == [("pi-zero-2w", 3), ("pi-4", 1)]
    assert len(fleet.helpers) == 2
    assert fleet.helpers[0].flops == 1e6 * read_profile("pi-5").simulation.training_mflops
    assert planned_fleet(described, fleet_file, 3, "pi-4").helpers == [machine_of(PI_4)] * 3


def test_what_is_wrong_with_a_fleet_file_is_named(fleet_file):
    with pytest.raises(ConfigurationError, match=r"no \[\[devices\]\]"):
        planned_fleet(FleetFile(), fleet_file, None, "pi-5")
    fleet_file.write_text(FLEET.replace('"pi-5"', '"pi-6"'))
    with pytest.raises(ConfigurationError, match=r"\[\[helpers\]\] 1: .*pi-6"):
        planned_fleet(read_description(fleet_file, "a guide"), fleet_file, None, "pi-5")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_shipped_recipe_is_planned_for(fleet_file, capsys, as_json):
    request = PlanRequest(find_bundle("mnist_cnn"), fleet_file, None, "pi-5", as_json)
    show_plan(request, Wanted(QUICK, samples=100, front=True))
    printed = capsys.readouterr().out
    if as_json:
        report = msgspec.json.decode(printed, type=SplitReport)
        assert [kind.devices for kind in report.kinds] == [3, 1]
        assert all(0 < row.memory_mib < 200 for kind in report.kinds for row in kind.cuts)
    else:
        assert "3 x pi-zero-2w" in printed
        assert "helpers compute: " in printed


def test_limits_are_in_mebibytes():
    assert cut_options(TASK, with_limit(200), [])[0].limit_bytes == 200 * MIB
