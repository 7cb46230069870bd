"""Split learning with every program as it ships: broker, coordinator with its relay, helpers, devices."""

import psutil
import pytest

from tests.support.cut_link import CutLink
from tests.support.helper import TASK, HelperProcess, SplitAgent
from tests.support.waiting import until

MANY_STEPS = 300
"""Of a round that something happens in the middle of."""


def in_the_middle(helper: HelperProcess) -> None:
    begun = helper.status()["steps"]
    until(lambda: helper.status().get("steps", 0) > begun + 8, f"steps go through {helper.name}")


def delivered(member: SplitAgent | HelperProcess, count: int = 1) -> None:
    until(lambda: member.status().get("accepted_updates", 0) >= count, f"{count} updates of {member.name} accepted")


def test_two_devices_and_a_helper_make_a_version_and_the_next_one(fleet) -> None:
    fleet.begin(steps=4, buffer_size=2)
    helper = fleet.helper("cellar-pi")
    kitchen, attic = fleet.agent("kitchen"), fleet.agent("attic")
    until(lambda: fleet.accepted() >= 3, "two devices' updates and the helper's are accepted")
    first = until(lambda: max(0, fleet.versions()), "a version is made of them")
    assert helper.status()["steps"] == 2 * 2 * 4, "each of two rounds has four steps, of two passes"
    kitchen.feed(4, first=16)
    attic.feed(4, first=16)

    def bases() -> list[int]:
        with fleet.coordinator.journal() as journal:
            return sorted(row.base_version for row in journal.updates(TASK) if row.device != helper.name)

    until(lambda: bases()[-1] >= 1, "a device trains from what was made of them")
    until(lambda: fleet.versions() > first, "and that is in the next one")
    assert bases()[:2] == [0, 0]
    with fleet.coordinator.journal() as journal:
        assert helper.name in {row.device for row in journal.updates(TASK)}
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)


def test_round_whose_helper_is_killed_goes_on_with_another(fleet) -> None:
    fleet.begin(steps=MANY_STEPS, buffer_size=1)
    helpers = [fleet.helper("cellar-pi"), fleet.helper("garage-pi")]
    kitchen = fleet.agent("kitchen")
    busy = until(lambda: next((each for each in helpers if each.status()["steps"] > 8), None), "one of them is busy")
    (other,) = [each for each in helpers if each is not busy]
    busy.kill()
    delivered(kitchen)
    assert "event=helper_lost" in kitchen.log()
    assert other.status()["steps"] > 0
    until(lambda: fleet.accepted() >= 2, "the other helper's update and the device's are accepted")
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)


@pytest.mark.long
def test_device_waits_for_a_helper_says_so_and_goes_on_when_one_comes(fleet) -> None:
    fleet.begin(steps=4, buffer_size=1)
    kitchen = fleet.agent("kitchen")
    until(lambda: "no helper for cut" in kitchen.status()["tasks"][TASK]["reason"], "the device says what it waits for")
    fleet.helper("cellar-pi")
    until(lambda: fleet.accepted() >= 2, "the round came about")


@pytest.mark.long
def test_device_that_is_killed_in_a_round_begins_it_again_and_nothing_is_counted_twice(fleet) -> None:
    fleet.begin(steps=MANY_STEPS, buffer_size=1)
    helper = fleet.helper("cellar-pi")
    kitchen = fleet.agent("kitchen")
    in_the_middle(helper)
    kitchen.kill()
    kitchen.start()
    delivered(kitchen)
    delivered(helper)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)


@pytest.mark.long
@pytest.mark.parametrize("killed", ["broker", "relay", "coordinator"])
def test_round_goes_on_after_what_carries_it_was_killed(fleet, broker, killed) -> None:
    fleet.begin(steps=MANY_STEPS, buffer_size=1)
    helper = fleet.helper("cellar-pi")
    kitchen = fleet.agent("kitchen")
    in_the_middle(helper)
    if killed == "broker":
        broker.kill()
        broker.start()
    elif killed == "relay":
        psutil.Process(fleet.coordinator.pid).children()[0].kill()
    else:
        fleet.coordinator.kill()
        fleet.coordinator.start()
    delivered(kitchen)
    delivered(helper)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)


@pytest.mark.long
def test_link_that_is_cut_in_the_middle_of_a_step_costs_no_round(fleet, broker) -> None:
    fleet.begin(steps=MANY_STEPS, buffer_size=2)
    helper = fleet.helper("cellar-pi")
    link = CutLink(broker.port)
    kitchen = fleet.agent("kitchen", link)
    in_the_middle(helper)
    link.cut()
    delivered(kitchen)
    assert kitchen.log().count("event=round_failed") == 0
    link.close()


@pytest.mark.long
def test_helper_whose_disk_was_full_goes_on_with_the_newest_version_when_there_is_room(fleet) -> None:
    fleet.begin(steps=MANY_STEPS, buffer_size=1)
    helper = fleet.helper("cellar-pi")
    kitchen = fleet.agent("kitchen")
    in_the_middle(helper)
    helper.fill_disk()
    delivered(kitchen)
    until(lambda: "event=contribution_lost" in helper.log(), "the helper says what the full disk has cost")
    helper.free_disk()
    kitchen.feed(16, first=16)
    delivered(kitchen, 2)
    delivered(helper)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)
