"""Which cut each device of a fleet trains with: exact for one and for small fleets, evolutionary for others."""

import random
from itertools import product

import msgspec
import pytest

from edge_agent.profiles import read_profile
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import StepCost
from fleet_protocol.split_plan import WHOLE, Cut
from tests.support.split_task import DEEP, EARLY, TASK
from workbench.fleet_description import FleetFile, read_description
from workbench.split_planning.cut_options import CutOption, best_alone, cut_options
from workbench.split_planning.evolution import Evolution, evolve
from workbench.split_planning.planned_fleet import Kind, PlannedFleet, planned_fleet
from workbench.split_planning.planning import SplitReport, plan_split
from workbench.split_planning.shared_helpers import Sharing, best_of_all
from workbench.split_planning.show import PlanRequest, show_plan

ZERO, PI_4 = read_profile("pi-zero-2w"), read_profile("pi-4")
HELPER_FLOPS = 1e9
QUICK = Evolution(population=32, generations=60)


def with_limit(memory_limit_mib: int, profile=ZERO):
    worker = msgspec.structs.replace(profile.worker, memory_limit_mib=memory_limit_mib)
    return msgspec.structs.replace(profile, worker=worker)


def option(seconds: float, helper_seconds: float = 0.0, name: str = "cut") -> CutOption:
    cut = Cut(name, [(1, 2)]) if helper_seconds else WHOLE
    return CutOption(cut, 1, 2, StepCost(seconds, helper_seconds, 0, 0, 0.0, 0.0, 0.0, 1))


def drawn_sharing(seed: int, devices: int, helpers: int) -> Sharing:
    """Devices that could take the whole step or two cuts, and helpers of unlike speed."""
    draw = random.Random(seed)
    options = [
        [
            option(draw.uniform(1, 3)),
            option(draw.uniform(0.1, 1), draw.uniform(0.1, 2), "early"),
            option(draw.uniform(0.1, 0.5), draw.uniform(1, 3), "deep"),
        ]
        for _ in range(devices)
    ]
    return Sharing(options, [draw.uniform(0.5, 2) for _ in range(helpers)], 1.0)


def test_one_device_takes_the_fitting_cut_with_the_shortest_step():
    options = cut_options(TASK, with_limit(130), HELPER_FLOPS, stored_samples=0)
    assert [(each.cut.name, each.fits) for each in options] == [("whole", False), ("early", True), ("deep", True)]
    found = best_alone(options)
    assert found is min(options[1:], key=lambda each: each.cost.seconds)
    assert options[0].why_not == "needs 142 MiB, memory_limit_mib is 130"


def test_nothing_is_best_where_nothing_fits_and_the_whole_step_is_all_there_is_without_helpers():
    assert best_alone(cut_options(TASK, with_limit(1), HELPER_FLOPS)) is None
    assert [each.cut for each in cut_options(TASK, PI_4, None)] == [WHOLE]


def test_a_full_store_is_planned_for_unless_it_is_said_what_is_stored():
    full, empty = (cut_options(TASK, PI_4, None, samples)[0].memory_bytes for samples in (None, 0))
    assert full - empty == 2.5 * 4 * 16 * PI_4.store.maximum_samples


def test_devices_of_one_helper_wait_for_one_another_and_a_fast_one_takes_less():
    sharing = Sharing([[option(1.0, 2.0)], [option(1.0, 3.0)]], [1.0, 10.0], 1.0)
    assert sharing.seconds(((0, 0), (0, 0))) == [6.0, 6.0]
    assert sharing.seconds(((0, 1), (0, 1))) == [1.5, 1.5]
    assert sharing.loads(((0, 0), (0, 1))) == [2.0, pytest.approx(0.3)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("devices", "helpers"), [(1, 2), (4, 2), (5, 1)])
def test_evolution_finds_the_best_plan_of_a_small_fleet(seed, devices, helpers):
    sharing = drawn_sharing(seed, devices, helpers)
    every = product(*(sharing.choices(device) for device in range(devices)))
    best = min(sharing.mean_seconds(plan) for plan in every)
    assert sharing.mean_seconds(evolve(sharing, QUICK)) == pytest.approx(best)
    assert sharing.mean_seconds(best_of_all(sharing)) == pytest.approx(best)


def test_evolution_is_never_worse_than_what_is_best_for_each_alone():
    sharing = drawn_sharing(3, devices=60, helpers=2)
    alone = [min(range(3), key=lambda number, of=of: of[number].cost.seconds) for of in sharing.devices]
    turn = tuple((number, place % 2 if number else 0) for place, number in enumerate(alone))
    found = evolve(sharing, Evolution(population=16, generations=40))
    assert sharing.mean_seconds(found) < sharing.mean_seconds(turn)


def test_the_same_seed_finds_the_same_plan():
    sharing = drawn_sharing(1, devices=30, helpers=2)
    few = Evolution(population=8, generations=5, seed=7)
    assert evolve(sharing, few) == evolve(sharing, few)


def report_of(*kinds: Kind, helpers: int = 1) -> SplitReport:
    return plan_split(TASK, PlannedFleet(list(kinds), [HELPER_FLOPS] * helpers), QUICK, samples=0)


def test_a_mixed_fleet_has_a_row_for_every_cut_of_every_kind_and_says_why():
    report = report_of(Kind("weak", with_limit(130), 2), Kind("strong", PI_4, 1))
    weak, strong = report.kinds
    assert [row.cut for row in weak.cuts] == [row.cut for row in strong.cuts] == ["whole", "early", "deep"]
    assert sum(each.devices for each in weak.chosen) == 2
    assert {each.cut for each in weak.chosen} <= {EARLY.name, DEEP.name}
    assert weak.why.startswith("The whole step needs 142 MiB, memory_limit_mib is 130; of what fits, ")
    assert [each.cut for each in strong.chosen] == ["whole"]
    assert strong.why == "The whole step fits; no cut makes the fleet's steps shorter."
    assert report.search == "exact"
    assert 0 < report.helper_busy[0] <= 1


def test_without_a_helper_a_weak_device_is_told_that_it_needs_one():
    report = report_of(Kind("weak", with_limit(130), 2), helpers=0)
    assert report.search == "none"
    assert report.kinds[0].chosen == []
    assert "needs 142 MiB, memory_limit_mib is 130; give --helpers" in report.kinds[0].why


def test_large_fleets_are_searched_by_evolution():
    report = report_of(Kind("weak", with_limit(130), 40), helpers=2)
    assert report.search == "evolutionary"
    assert sum(each.devices for each in report.kinds[0].chosen) == 40


def test_a_task_without_a_split_is_refused_with_the_remedy():
    with pytest.raises(ConfigurationError, match=r"has no split.*add \[split\] to its task.toml"):
        plan_split(msgspec.structs.replace(TASK, split=None), PlannedFleet([], []), QUICK)


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
    assert fleet.helpers[0] == 1e6 * read_profile("pi-5").simulation.training_mflops
    assert planned_fleet(described, fleet_file, 3, "pi-4").helpers == [3e9] * 3


def test_what_is_wrong_with_a_fleet_file_is_named(fleet_file):
    with pytest.raises(ConfigurationError, match=r"no \[\[devices\]\]"):
        planned_fleet(FleetFile(), fleet_file, None, "pi-5")
    fleet_file.write_text(FLEET.replace('"pi-5"', '"pi-6"'))
    with pytest.raises(ConfigurationError, match=r"\[\[helpers\]\] 1: .*pi-6"):
        planned_fleet(read_description(fleet_file, "a guide"), fleet_file, None, "pi-5")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_shipped_recipe_is_planned_for(fleet_file, capsys, as_json):
    show_plan(PlanRequest("mnist_cnn", fleet_file, None, "pi-5", 100, as_json), QUICK)
    printed = capsys.readouterr().out
    if as_json:
        report = msgspec.json.decode(printed, type=SplitReport)
        assert [kind.devices for kind in report.kinds] == [3, 1]
        assert all(0 < row.memory_mib < 200 for kind in report.kinds for row in kind.cuts)
    else:
        assert "3 x pi-zero-2w" in printed
        assert "helpers compute: " in printed


def test_limits_are_in_mebibytes():
    assert cut_options(TASK, with_limit(200), None)[0].limit_bytes == 200 * MIB
