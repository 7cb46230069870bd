"""Suspicious updates count as any other until devices are harmed, and then no more: the same however it is stopped."""

import pytest

from broker_coordinator.aggregation import harm
from broker_coordinator.storage.losses import known_harm
from fleet_protocol.aggregation_plan import AggregationPlan
from tests.support.bundles import TASK
from tests.support.departing_fleet import Operator
from tests.support.quarantined_fleet import EVIL, HONEST, REVERSED, WARM, Fleet
from tests.support.replay import versions_replayed

PLAN = AggregationPlan(buffer_size=2)
SHARES = 8
TRIAL, SPAN = 4, 8
WELL, BADLY = 0.3, 0.45
"""Losses."""
TURNED_ROUND = 3 * REVERSED
ROUNDS = 5
"""Of three versions each."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch) -> None:
    monkeypatch.setattr(harm, "MOST_SHARES", SHARES)
    monkeypatch.setattr(harm, "FEWEST_SHARES", SHARES)
    monkeypatch.setattr(harm, "TRIAL", TRIAL)
    monkeypatch.setattr(harm, "SPAN", SPAN)


def attacked(fleet: Fleet) -> Fleet:
    """It learns, beside one that turns round what others send; then they find that it is worse; then well again."""
    for loss in (WELL, BADLY, WELL):
        for place in range(ROUNDS):
            fleet.turn(EVIL, times=TURNED_ROUND, loss=loss)
            fleet.turn(*(HONEST[(5 * place + each) % len(HONEST)] for each in range(5)), loss=loss)
    return fleet


def counted(fleet: Fleet) -> list[tuple[int, float]]:
    """Of each update of one that lies, the version that holds it, and how often it counts."""
    rows = [row for row in fleet.journal.payloads() if row.device == EVIL.name]
    return [(row.aggregate, row.read_facts().tempered) for row in rows]


def test_tempered_while_devices_are_harmed_and_for_a_while_behind(tmp_path, capsys, caplog) -> None:
    fleet = attacked(Fleet(tmp_path, plan=PLAN))
    spans = dict.fromkeys(each.tempering for each in fleet.journal.versions(TASK) if each.tempering)
    for version, counts in counted(fleet):
        assert (counts < 1) == any(since < version <= until for since, until, _ in spans), version
    (first, until, _), *_, (last, ended, rests) = spans
    assert WARM + 3 * ROUNDS < first < WARM + 6 * ROUNDS  # once half of the devices say so
    assert until == first + TRIAL
    assert ended < fleet.newest()
    assert f"event=devices_harmed task={TASK} version={first} until={until}" in caplog.text
    shown = Operator(tmp_path, fleet, capsys).run("tasks", "show", TASK)
    assert shown["harmed"] == (
        f"at version {last} devices found the model much worse than it was before; suspicious updates were tempered up"
        f" to version {ended}, which did not help: all count up to version {rests}"
    )
    assert "suspicious_devices" not in shown
    assert versions_replayed(fleet.journal, TASK) == fleet.newest()


def test_restarted_before_every_update_it_tempers_alike(tmp_path) -> None:
    found = []
    for restarts in (False, True):
        fleet = Fleet(tmp_path, f"{restarts}", PLAN)
        fleet.restarts = restarts
        attacked(fleet)
        found.append((counted(fleet), list(fleet.journal.versions(TASK))))
    assert found[0] == found[1]
    assert min(counts for _, counts in found[0][0]) < 1


def test_tempering_goes_on_behind_a_version_that_is_restored(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(harm, "TRIAL", 3 * TRIAL)
    fleet = Fleet(tmp_path, plan=PLAN)
    for loss, versions in ((WELL, 8), (BADLY, 5)):
        for place in range(versions):
            fleet.turn(HONEST[place], HONEST[place - 1], loss=loss)
    newest = next(reversed(list(fleet.journal.versions(TASK))))
    assert newest.tempering is not None
    Operator(tmp_path, fleet, capsys).run("tasks", "rollback", TASK, str(newest.number - 2))
    restored = next(reversed(list(fleet.journal.versions(TASK))))
    assert (restored.restored, restored.tempering) == (newest.number - 2, newest.tempering)
    fleet.bench.restart()
    fleet.turn(*HONEST[:6])
    fleet.turn(EVIL, HONEST[6], times=TURNED_ROUND)
    assert counted(fleet)[-1][1] < 1


@pytest.mark.parametrize("looked_at", [4096, 6])
def test_what_devices_declared_is_known_again_after_a_restart(tmp_path, monkeypatch, looked_at) -> None:
    """Also where the journal holds far more than is read."""
    monkeypatch.setattr(harm, "UPDATES_LOOKED_AT", looked_at)
    monkeypatch.setattr("broker_coordinator.storage.losses.UPDATES_LOOKED_AT", looked_at)
    monkeypatch.setattr(harm, "MOST_SHARES", 4)
    fleet = attacked(Fleet(tmp_path, plan=PLAN))
    known = harm.Harm()
    for number in range(1, fleet.newest() + 1):
        rows = [row for row in fleet.journal.updates(TASK) if row.aggregate == number]
        known.note(number, [harm.Declared(row.device, row.read_facts().loss, row.base_version) for row in rows])
    found = known_harm(fleet.journal.engine, TASK)
    assert (found.first, found.of_devices, found.looked_at, found.updates) == (
        known.first,
        known.of_devices,
        known.looked_at,
        known.updates,
    )
    assert found.shares == known.shares[-len(found.shares) :]
