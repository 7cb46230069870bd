"""What one device can do to a quarantine, and what held updates do to honest ones."""

import random
from collections.abc import Sequence

import msgspec
import pytest
from sqlalchemy import insert, select

from broker_coordinator.aggregation import retention
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.departures import LEFT
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.held_updates import DROPPED, OUTDATED, drop, held_updates, last_verdicts, release
from broker_coordinator.storage.schema import payloads
from fleet_protocol.kinds import Outcome
from fleet_protocol.quarantine_plan import QuarantinePlan
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.quarantined_fleet import EVIL, HONEST, PLAN, REVERSED, WARM, Fleet
from tests.support.replay import versions_replayed

TRICKLE_SECONDS = 240.0
NEW = [SigningDevice(f"new-{number}") for number in range(9)]


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    return Fleet(tmp_path)


def enrol(fleet: Fleet, devices: Sequence[SigningDevice]) -> None:
    for device in devices:
        fleet.bench.handle(device, device.enrolment())


@pytest.mark.parametrize("flood", [EVIL, NEW[0]])
@pytest.mark.parametrize("restarts", [False, True])
def test_device_that_floods_as_its_share_allows_stops_nothing(fleet, caplog, flood, restarts) -> None:
    """Beside a single honest device that still sends, and however it was judged before."""
    enrol(fleet, NEW[:1])
    fleet.restarts = restarts
    for _ in range(8):
        fleet.bench.now += TRICKLE_SECONDS
        for _ in range(4):
            fleet.turn(flood, times=REVERSED)
        fleet.turn(HONEST[0])
    fleet.turn(HONEST[1])
    last = [row.device for row in fleet.journal.updates(TASK)][-32:]
    assert last.count(flood.name) > 20, "more than half of the last updates are its own"
    assert {why is not None for _, why in fleet.states(flood)} == {True}, "whatever was accepted is held, or outdated"
    assert all(version is not None for version, _ in fleet.states(HONEST[0])[:-1])
    assert "event=quarantine_overrun" not in caplog.text
    assert versions_replayed(fleet.journal, TASK) == fleet.newest()


def test_new_identities_are_held_until_they_are_more_than_half_of_the_devices(fleet, caplog) -> None:
    enrol(fleet, NEW)
    fleet.turn(*NEW[: len(HONEST)], times=REVERSED)
    assert len(held_updates(fleet.journal.engine, TASK)) == len(HONEST)
    fleet.turn(NEW[-1], times=REVERSED)
    fleet.turn(HONEST[0])
    assert fleet.states(NEW[-1]) == [(WARM + 1, None)], "nine of seventeen: the honest may be the few"
    assert "event=quarantine_overrun" in caplog.text
    for device in NEW:
        DeviceRegistry(fleet.journal.engine).revoke(device.name)
    fleet.turn(EVIL, times=REVERSED)
    fleet.turn(HONEST[1])
    assert fleet.states() == [(None, "held in quarantine")], "devices that have left judge nobody"


def test_a_burst_that_will_be_held_outdates_nobody(tmp_path) -> None:
    """Nor does it make an update staler than it is: each counts with the staleness that it has in its version."""
    fleet = Fleet(tmp_path, plan=msgspec.structs.replace(PLAN, max_staleness=1))
    fleet.bench.said()
    burst = [fleet.message(EVIL, REVERSED) for _ in range(6)]
    fleet.bench.handle(EVIL, *burst)
    for device in HONEST[:2]:
        fleet.bench.handle(device, fleet.message(device))
    assert {each.outcome for each in fleet.bench.receipts()} == {Outcome.ACCEPTED}
    fleet.bench.make_versions()
    assert fleet.newest() == WARM + 1
    assert [each.staleness for each in fleet.journal.held_updates(TASK, WARM + 1)] == [0, 0]
    assert versions_replayed(fleet.journal, TASK) == WARM + 1


@pytest.mark.parametrize("restarts", [False, True])
def test_released_update_counts_with_the_staleness_that_its_version_gives_it(fleet, restarts) -> None:
    """Whatever waits before it, and whoever reads it: so do those that it makes wait."""
    fleet.evil_turn()
    for device in HONEST[2:6]:
        fleet.bench.handle(device, fleet.message(device))
    (told,) = release(fleet.journal.engine, TASK, [EVIL.name], PLAN)
    assert (told.outcome, told.staleness) == ("released", 1)
    fleet.bench.handle(HONEST[6], fleet.message(HONEST[6]))
    if restarts:
        fleet.bench.restart()
    fleet.bench.make_versions()
    newest = WARM + 4
    assert fleet.newest() == newest
    held = [(row.device, row.staleness) for row in fleet.journal.held_updates(TASK, newest)]
    assert held == [(EVIL.name, 3), (HONEST[6].name, 2)]
    rows = [row for row in fleet.journal.updates(TASK) if row.aggregate is not None]
    assert all(row.staleness == row.aggregate - 1 - row.base_version for row in rows)
    assert versions_replayed(fleet.journal, TASK) == newest


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_held_is_the_same_whenever_it_is_restarted(tmp_path, seed) -> None:
    """With about half of the devices suspicious, some updates released and some devices gone: verdicts are the
    journal's.
    """
    found = []
    for restarts in (False, True):
        draw = random.Random(seed)
        fleet = Fleet(tmp_path, f"{restarts}", msgspec.structs.replace(PLAN, max_staleness=30))
        fleet.restarts = restarts
        enrol(fleet, NEW)
        for _ in range(60):
            fleet.bench.now += TRICKLE_SECONDS
            device = draw.choice([*HONEST, *NEW])
            is_hostile = device in NEW or draw.random() < 0.2
            fleet.turn(device, times=REVERSED if is_hostile else 1.0)
            if draw.random() < 0.1 and (held := held_updates(fleet.journal.engine, TASK)):
                release(fleet.journal.engine, TASK, [draw.choice(held).device], PLAN)
        rows = [(row.position, row.device, row.aggregate, row.suspicion) for row in fleet.journal.updates(TASK)]
        verdicts = last_verdicts(fleet.journal.engine, TASK, {})
        found.append((rows, verdicts, [each.weights_hash for each in fleet.journal.versions(TASK)]))
        assert versions_replayed(fleet.journal, TASK) == fleet.newest()
        assert 0 < len(held_updates(fleet.journal.engine, TASK)) < sum(row[3] is not None for row in rows)
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_tempered_is_the_same_whenever_it_is_restarted(tmp_path, seed) -> None:
    """With zeros, devices that send what is usual behind what is not, and more hostile devices than judge."""
    found = []
    for restarts in (False, True):
        draw = random.Random(seed)
        fleet = Fleet(
            tmp_path, f"{restarts}", msgspec.structs.replace(PLAN, quarantine=QuarantinePlan(action="temper"))
        )
        fleet.restarts = restarts
        enrol(fleet, NEW)
        for _ in range(60):
            fleet.bench.now += TRICKLE_SECONDS
            device = draw.choice([*HONEST, *NEW[:6]])
            fleet.turn(device, times=draw.choice([REVERSED, REVERSED, 1.0, 0.0]) if device in NEW else 1.0)
        counts = [
            (row.device, row.aggregate, row.suspicion, row.read_facts().tempered) for row in fleet.journal.updates(TASK)
        ]
        verdicts = last_verdicts(fleet.journal.engine, TASK, {})
        found.append((counts, verdicts, [each.weights_hash for each in fleet.journal.versions(TASK)]))
        assert versions_replayed(fleet.journal, TASK) == fleet.newest()
        tempered = [each for each in counts if each[3] != 1.0]
        assert len(tempered) > 8
        assert {device[:3] for device, *_ in tempered} == {"new"}
    assert found[0] == found[1]


def test_retention_drops_what_is_set_aside_for_good_and_keeps_what_judges(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(retention, "STRIDE", 2)
    plan = msgspec.structs.replace(PLAN, max_staleness=5)
    fleet = Fleet(tmp_path, plan=plan, retention=Retention(envelopes=1))
    enrol(fleet, NEW[:2])
    fleet.turn(EVIL, NEW[0], NEW[1], times=REVERSED)
    drop(fleet.journal.engine, TASK, [NEW[0].name])
    DeviceRegistry(fleet.journal.engine).revoke(NEW[1].name)
    fleet.turn(*HONEST[:4], *HONEST[:4])

    def set_aside() -> dict[str, bool]:
        """By reason, whether the bytes are kept."""
        return {row.set_aside: row.envelope is not None for row in fleet.journal.updates(TASK) if row.set_aside}

    assert fleet.newest() == WARM + 4
    assert set_aside() == {"held in quarantine": True, DROPPED: False, LEFT: False}
    kept = {row.device for row in fleet.journal.updates(TASK) if row.aggregate and row.envelope is not None}
    assert kept == {each.name for each in HONEST}, "of each that others are compared with, the last one"
    fleet.turn(*HONEST[:4], *HONEST[:4])
    assert set_aside() == {OUTDATED: False, DROPPED: False, LEFT: False}
    fleet.bench.restart()
    fleet.turn(EVIL, times=REVERSED)
    fleet.turn(HONEST[0])
    assert fleet.states()[-1:] == [(None, "held in quarantine")], "a restart reads again what it is compared with"


def journal_of(fleet: Fleet, versions: int) -> None:
    """So many more of an update each, as if the devices had sent the last one again."""
    with fleet.journal.engine.begin() as connection:
        last = connection.execute(select(payloads).order_by(payloads.c.position.desc())).first()._asdict()
        rows = [
            last
            | {"device": HONEST[number % 8].name, "sequence": last["position"] + number, "digest": number.to_bytes(16)}
            | {"position": last["position"] + number, "aggregate": last["aggregate"] + number}
            for number in range(1, versions + 1)
        ]
        connection.execute(insert(payloads), rows)


def steps_of_a_load(fleet: Fleet) -> int:
    """Hundreds of SQLite's steps that reading the verdicts takes."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with fleet.journal.engine.connect() as connection:
        connection.connection.dbapi_connection.set_progress_handler(count, 100)
    found = last_verdicts(fleet.journal.engine, TASK, {})
    assert len(found.of_devices) == len(HONEST)
    with fleet.journal.engine.connect() as connection:
        connection.connection.dbapi_connection.set_progress_handler(None, 0)
    return steps


def test_a_load_reads_the_verdicts_of_the_last_versions_and_no_others(fleet) -> None:
    journal_of(fleet, 60)
    few = steps_of_a_load(fleet)
    journal_of(fleet, 600)
    assert few <= steps_of_a_load(fleet) < 1.5 * few
