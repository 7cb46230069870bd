"""What is tempered is the same however a coordinator is stopped, and whatever operators do to its devices."""

from collections.abc import Callable

import msgspec
import pytest

from broker_coordinator.serving.quarantines import Quarantines
from fleet_protocol.quarantine_plan import QuarantinePlan
from tests.support.bundles import TASK
from tests.support.departing_fleet import Operator
from tests.support.device import SigningDevice
from tests.support.quarantined_fleet import EVIL, HONEST, PLAN, REVERSED, WARM, Fleet
from tests.support.replay import versions_replayed

NEW = [SigningDevice(f"new-{number}") for number in range(3)]
TEMPERS = msgspec.structs.replace(PLAN, quarantine=QuarantinePlan(action="temper"))


class KilledError(BaseException):
    """Nothing catches it."""


def fleet_of(folder, name: str = "one") -> Fleet:
    fleet = Fleet(folder, name, TEMPERS)
    for device in NEW:
        fleet.bench.handle(device, device.enrolment())
    return fleet


def counted(fleet: Fleet) -> list[tuple]:
    rows = [
        (row.device, row.aggregate, row.suspicion, row.read_facts().tempered) for row in fleet.journal.updates(TASK)
    ]
    return rows + [(each.number, each.weights_hash) for each in fleet.journal.versions(TASK)]


def killing(hold: Callable) -> Callable:
    def held_and_killed(quarantines: Quarantines, task) -> bool:
        if hold(quarantines, task):
            raise KilledError
        return False

    return held_and_killed


def test_killed_between_the_verdict_and_the_version_it_counts_as_often(tmp_path, monkeypatch) -> None:
    hold, killed = Quarantines.hold, 0
    turns = (EVIL, NEW[0], HONEST[0], NEW[1], EVIL, HONEST[1], NEW[2], NEW[0], HONEST[2], HONEST[3], EVIL, EVIL)
    found = []
    for kills in (False, True):
        fleet = fleet_of(tmp_path, f"{kills}")
        for device in turns:
            monkeypatch.setattr(Quarantines, "hold", killing(hold) if kills else hold)
            try:
                fleet.turn(device, times=1.0 if device in HONEST else REVERSED)
            except KilledError:
                killed += 1
                monkeypatch.setattr(Quarantines, "hold", hold)
                fleet.bench.restart()
                fleet.bench.make_versions()
        found.append(counted(fleet))
        assert versions_replayed(fleet.journal, TASK) == fleet.newest() == WARM + len(turns) // 2
    assert found[0] == found[1]
    assert killed == 5


def test_a_tempered_device_is_forgotten_and_versions_are_taken_back_as_any(tmp_path, capsys) -> None:
    """What others counted stands in the journal; who has left is suspected no more."""
    fleet = fleet_of(tmp_path)
    run = Operator(tmp_path, fleet, capsys).run
    fleet.turn(EVIL, HONEST[0], NEW[0], HONEST[1], times=REVERSED)
    (told,) = run("devices", "forget", EVIL.name)
    assert (told["updates"], told["others"], told["remains"]) == (1, 3, "")
    fleet.bench.make_versions()
    assert run("tasks", "show", TASK)["suspicious_devices"] == "3 of 9 that sent lately"
    run("tasks", "rollback", TASK, str(WARM))
    fleet.turn(*HONEST)  # of which others are judged again
    fleet.turn(EVIL, NEW[1], times=REVERSED)
    assert [each[3] for each in counted(fleet)[20:22]] == [pytest.approx(1 / 4, rel=0.1), pytest.approx(1 / 5, rel=0.1)]
    run("devices", "revoke", NEW[1].name, "--forget")
    assert run("tasks", "verify", TASK)["equal"]
    newest = fleet.newest()
    fleet.bench.restart()
    assert versions_replayed(fleet.journal, TASK) == newest
