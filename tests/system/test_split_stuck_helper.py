"""A shipped helper whose process for a version hangs, and a device in the middle of its round."""

import psutil

from tests.support.helper import TASK
from tests.support.waiting import until

STEPS = 200


def child_of(pid: int) -> psutil.Process:
    """The process that computes for a helper."""
    (child,) = [each for each in psutil.Process(pid).children() if "session_relay.helper.compute" in each.cmdline()]
    return child


def test_round_goes_on_with_another_helper_when_one_hangs_which_ends_its_process_and_says_so(fleet) -> None:
    fleet.begin(steps=STEPS, buffer_size=1)
    helpers = [fleet.helper(name, answer_seconds=3) for name in ("attic-pi", "cellar-pi")]
    kitchen = fleet.agent("kitchen")
    busy = until(lambda: next((each for each in helpers if each.status()["steps"] > 8), None), "one of them is busy")
    (other,) = [each for each in helpers if each is not busy]
    hanging = child_of(busy.pid)
    hanging.suspend()
    said = until(lambda: busy.status()["trouble"].get(TASK), "it says so")  # until the next version comes
    assert "no answer within 3 s ([helper] answer_seconds)" in said
    until(lambda: kitchen.status()["accepted_updates"] == 1, "the device's round is done")
    assert other.status()["steps"] > 0
    until(lambda: not hanging.is_running(), "the process is ended")
    assert busy.status()["sessions"] == 0
    assert f"helper={busy.name}" in next(line for line in kitchen.log().splitlines() if "event=helper_left_out" in line)
    assert "event=round_failed" not in kitchen.log()
    until(lambda: fleet.accepted() >= 2, "the other helper's update and the device's are accepted")
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)
