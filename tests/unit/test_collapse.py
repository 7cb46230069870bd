"""Training that collapses is told from training that goes on: on recorded runs, and by what one device can do."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.collapse import (
    FEWEST_UPDATES,
    LOSS_GROWN,
    SMALLEST_STEP,
    STEP_FACTOR,
    VERSIONS_LOOKED_AT,
    Collapse,
    Watch,
    smaller,
)

RECORDED = json.loads((Path(__file__).parent / "recorded_losses.json").read_text())
"""By run, the losses that devices declared in each version of simulated fleets, which end where noticed: means over
rounds, or "before training", as they are declared now."""
LOSSES = st.lists(st.floats(0.01, 10), min_size=4, max_size=4)


def declared(number: int, losses: list[float]) -> list[tuple[str, float]]:
    """What other devices declare in version `number` than in those next to it."""
    return [(f"pi-{number % 10}-{place}", loss) for place, loss in enumerate(losses)]


def watched(versions: list[list[float]]) -> Collapse | None:
    """The first collapse that is noticed, where each update in ten versions is of another device."""
    return first_collapse([declared(number, losses) for number, losses in enumerate(versions, 1)])


def first_collapse(versions: list[list[tuple[str, float]]]) -> Collapse | None:
    watch = Watch()
    for number, told in enumerate(versions, 1):
        watch = watch.after(number, told)
        if found := watch.collapse():
            return found
    return None


@pytest.mark.parametrize("run", sorted(RECORDED["collapsing"]))
def test_recorded_run_that_collapses_is_noticed(run: str) -> None:
    recorded = RECORDED["collapsing"][run]
    found = watched(recorded["losses"])
    assert found is not None
    assert 1 <= found.good <= len(recorded["losses"]) - 4
    assert found.loss > LOSS_GROWN * found.lowest


@pytest.mark.parametrize("run", sorted(RECORDED["learning"]))
def test_recorded_run_that_learns_raises_no_alarm(run: str) -> None:
    assert watched(RECORDED["learning"][run]["losses"]) is None


@given(st.lists(LOSSES, max_size=30))
def test_version_to_go_back_to_is_one_of_those_before(versions) -> None:
    if found := watched(versions):
        assert 1 <= found.good <= len(versions) - 3


@given(st.lists(st.sampled_from([[], [0.1], [1.0], [9.0], [0.2] * 5, [8.0] * 5]), min_size=80, max_size=200))
def test_version_to_go_back_to_is_never_older_than_is_said(versions) -> None:
    """With one update in a version, a level begins before those that are looked at."""
    watch = Watch()
    kept: set[int] = set()
    for number, losses in enumerate(versions, 1):
        watch = watch.after(number, declared(number, losses))
        kept = {each for each in kept | {number} if watch.oldest is not None and each >= watch.oldest}
        if found := watch.collapse():
            assert found.good in kept
            watch = watch.anew()
            assert watch.oldest is None


def test_levels_of_single_updates_begin_before_the_versions_that_are_looked_at() -> None:
    watch = Watch()
    for number in range(1, 200):
        watch = watch.after(number, declared(number, [0.5]))
    assert watch.oldest == 199 - (VERSIONS_LOOKED_AT - 1) - (FEWEST_UPDATES - 1)


@given(st.lists(st.floats(allow_nan=False), min_size=12, max_size=12))
def test_what_one_of_three_devices_declares_brings_nothing_about(declared) -> None:
    assert watched([[0.5, 0.4, 0.45, 0.5, 0.4, each] for each in declared]) is None


def of_honest_devices(number: int) -> list[tuple[str, float]]:
    return [(f"pi-{device}", 0.4 + 0.02 * device) for device in range(4 * (number % 2), 4 * (number % 2) + 4)]


@pytest.mark.parametrize("alone", [3, 6, 15, 40])
@pytest.mark.parametrize("loss", [-1e12, 1e-12, 0.5, 1e12])
@pytest.mark.parametrize("begins", [0, 12])
def test_versions_that_one_device_makes_alone_bring_nothing_about(alone, loss, begins) -> None:
    """It floods the fleet, and honest devices send before and behind that."""
    flood = [[("evil", loss)] * 4] * alone
    honest = [of_honest_devices(number) for number in range(24)]
    assert first_collapse([*honest[:begins], *flood, *honest[begins:], *flood, *honest]) is None


def test_versions_of_single_updates_every_second_of_one_device_bring_nothing_about() -> None:
    honest = [[(f"pi-{number % 5}", 0.5)] for number in range(60)]
    assert first_collapse([*honest, *(each for one in honest for each in (one, [("evil", 1e12)]))]) is None


def test_fleet_that_collapses_is_noticed_while_one_device_makes_every_second_version() -> None:
    lost = [[(device, 9.0) for device, _ in of_honest_devices(number)] for number in range(12)]
    evil = [("evil", 1e-12)] * 4
    found = first_collapse([*map(of_honest_devices, range(12)), *(each for one in lost for each in (one, evil))])
    assert found is not None
    assert found.good <= 12


def test_losses_that_no_version_ever_was_worse_than_the_first_are_new_data_not_a_collapse() -> None:
    assert watched([[1.0] * 4] * 4 + [[0.01] * 4] * 20 + [[0.9] * 4] * 20) is None


def test_losses_without_a_scale_are_not_judged() -> None:
    assert watched([[-1.0] * 4] * 8 + [[100.0] * 4] * 8) is None


def test_losses_of_any_size_are_judged_alike() -> None:
    for size in (1e-5, 1e-3, 1.0, 1e6):
        assert watched([[size] * 4] * 8 + [[3 * size] * 4] * 8) is None
        assert watched([[size] * 4] * 8 + [[3.1 * size] * 4] * 8) == Collapse(7, 3.1 * size, size)


def test_losses_that_float32_can_not_tell_from_zero_are_not_judged() -> None:
    assert watched([[0.0] * 4] * 8 + [[3e-6] * 4] * 8) is None
    assert watched([[0.0] * 4] * 8 + [[4e-6] * 4] * 8) == Collapse(good=7, loss=4e-6, lowest=0.0)


def test_fewer_than_sixteen_updates_say_nothing() -> None:
    assert watched([[0.1]] * 8 + [[5.0]] * 8) is None
    assert watched([[0.1]] * 16 + [[5.0]] * 16) == Collapse(good=8, loss=5.0, lowest=0.1)


def test_kind_that_tells_no_loss_is_not_watched() -> None:
    assert Watch().after(1, []) == Watch()


def test_step_halves_down_to_a_limit() -> None:
    assert smaller(1.0) == STEP_FACTOR
    assert smaller(2 * SMALLEST_STEP) == smaller(SMALLEST_STEP) == SMALLEST_STEP
