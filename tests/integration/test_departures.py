"""A device that is revoked leaves what strategies remember; with `--forget` it leaves the versions too."""

import numpy as np
import pytest

from broker_coordinator.aggregation import retention
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.version_registry import VersionRegistry
from tests.support.bench import Bench
from tests.support.bundles import TASK
from tests.support.departing_fleet import EVIL, HONEST, Fleet, Operator
from tests.support.replay import versions_replayed


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("restarts", [False, True])
def test_revoked_device_leaves_what_is_remembered_and_replay_knows_when(tmp_path, strategy, restarts) -> None:
    fleet = Fleet(tmp_path, strategy)
    for _ in range(2):
        fleet.turn(*HONEST, EVIL)
    fleet.turn(HONEST[0], EVIL, EVIL)
    fleet.revoke()
    assert EVIL.name not in fleet.remembered()
    for number in range(4):
        if restarts:
            fleet.bench.restart()
        fleet.turn(HONEST[number % 3], HONEST[(number + 1) % 3])
    assert EVIL.name not in fleet.remembered()
    newest = fleet.bench.journal.newest_number(TASK)
    assert versions_replayed(fleet.bench.journal, TASK) == newest
    assert versions_replayed(fleet.bench.journal, TASK, newest - 3) == 3


@pytest.mark.parametrize("strategy", ["ca2fl", "base_mean"])
def test_versions_after_a_revocation_are_those_of_a_fleet_without_the_device_in_memory(tmp_path, strategy) -> None:
    """Restarted or not: the same bits."""
    made = []
    for name in ("on", "again"):
        fleet = Fleet(tmp_path, strategy, name)
        fleet.turn(*HONEST, EVIL)
        fleet.revoke()
        if name == "again":
            fleet.bench.restart()
        fleet.turn(*HONEST, HONEST[0])
        made.append(fleet.weights())
    assert made[0] == made[1]


def test_what_waits_of_a_revoked_device_is_set_aside(tmp_path) -> None:
    fleet = Fleet(tmp_path, "fedbuff")
    fleet.turn(HONEST[0], HONEST[1], EVIL)
    fleet.revoke()
    (aside,) = fleet.bench.journal.overview.payloads_set_aside(TASK, 9)
    assert (aside.device, aside.reason) == (EVIL.name, "its device was revoked or forgotten")
    fleet.turn(HONEST[0], HONEST[1])
    assert fleet.bench.journal.newest_number(TASK) == 2
    assert versions_replayed(fleet.bench.journal, TASK) == 2


def test_rollback_restores_what_the_old_version_remembered(tmp_path) -> None:
    fleet = Fleet(tmp_path, "ca2fl")
    fleet.turn(*HONEST, HONEST[0])
    before = fleet.remembered()
    fleet.turn(EVIL, EVIL, EVIL, EVIL)
    assert EVIL.name in fleet.remembered()
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, 2)
    fleet.bench.make_versions()
    assert fleet.remembered() == before
    fleet.turn(*HONEST, HONEST[0])
    assert fleet.remembered() == before
    assert versions_replayed(fleet.bench.journal, TASK) == 7
    assert versions_replayed(fleet.bench.journal, TASK, 5) == 2


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"fedavg"}))
def test_forgotten_device_leaves_the_versions_too(tmp_path, strategy, capsys) -> None:
    """The result is the very version that a fleet without the device has made."""
    fleet, without = Fleet(tmp_path, strategy), Fleet(tmp_path, strategy, "without")
    pairs = 1 if strategy == "fedasync" else 2
    for _ in range(3):
        for one in (fleet, without):
            one.turn(*HONEST, HONEST[0])
        fleet.turn(*[EVIL] * pairs)
    (row,) = Operator(tmp_path, fleet, capsys).run("devices", "revoke", EVIL.name, "--forget")
    newest = fleet.bench.journal.newest_number(TASK)
    assert (row["task"], row["version"], row["remains"]) == (TASK, newest, "")
    assert EVIL.name not in fleet.remembered()
    expected = without.bench.journal.newest_version(TASK)
    made = fleet.bench.journal.newest_version(TASK)
    if strategy not in ("fedasync", "fadas"):  # whose updates know on which version, and how late, they were made
        assert (made.weights, made.moments) == (expected.weights, expected.moments)
    fleet.bench.make_versions()
    fleet.turn(*HONEST, HONEST[0])
    assert versions_replayed(fleet.bench.journal, TASK) == fleet.bench.journal.newest_number(TASK)


def test_forgetting_twice_leaves_both_devices_out(tmp_path, capsys) -> None:
    fleet, without = Fleet(tmp_path, "ca2fl"), Fleet(tmp_path, "ca2fl", "without")
    other = HONEST[2]
    fleet.turn(HONEST[0], HONEST[1], EVIL, EVIL, other, other, HONEST[0], HONEST[1])
    operator = Operator(tmp_path, fleet, capsys)
    operator.run("devices", "revoke", EVIL.name, "--forget")
    operator.run("devices", "revoke", other.name, "--forget")
    without.turn(HONEST[0], HONEST[1], HONEST[0], HONEST[1])
    assert fleet.weights() == without.weights()
    assert versions_replayed(fleet.bench.journal, TASK) == 6
    assert operator.run("devices", "revoke", EVIL.name, "--forget")[0]["version"] in (None, 7)


def test_what_retention_has_dropped_cant_be_forgotten_and_it_says_so(tmp_path, capsys) -> None:
    fleet = Fleet(tmp_path, "fedbuff", retention=Retention(envelopes=3))
    fleet.turn(EVIL, EVIL, *HONEST, HONEST[0], *HONEST, HONEST[0], EVIL, EVIL, HONEST[0], HONEST[1])
    (row,) = Operator(tmp_path, fleet, capsys).run("devices", "revoke", EVIL.name, "--forget")
    assert row["version"] == fleet.bench.journal.newest_number(TASK)
    assert "into versions 1 to" in row["remains"]
    assert f"tasks rollback {TASK} VERSION, below 1" in row["remains"]
    states = dict(replayed(fleet.bench.journal, fleet.bundle.description, row["version"] - 1))
    made = fleet.bench.journal.newest_version(TASK).state(fleet.bundle.description.parameters, {})
    np.testing.assert_array_equal(states[row["version"]].weights, made.weights)


def test_verifying_from_before_a_replay_that_cant_be_made_again_names_where_to_begin(tmp_path, capsys) -> None:
    fleet = Fleet(tmp_path, "fedbuff", retention=Retention(envelopes=3))
    fleet.turn(*HONEST, HONEST[0], EVIL, HONEST[1])
    operator = Operator(tmp_path, fleet, capsys)
    (row,) = operator.run("devices", "revoke", EVIL.name, "--forget")
    made = row["version"]
    fleet.bench.make_versions()
    fleet.turn(*HONEST, HONEST[0])
    status, said = operator.said("tasks", "verify", TASK, "--from", str(made - 1))
    assert status == 2
    assert f"version {made} of task '{TASK}' was computed anew from version {row['replayed_from']} on" in said
    assert f"begin with version {made}: --from {made}" in said
    assert operator.run("tasks", "verify", TASK, "--from", str(made))["compared"] == 2


@pytest.mark.parametrize("strategy", ["fedbuff", "fedasync"])
def test_wherever_verifying_begins_it_names_a_version_from_which_it_goes_to_the_end(tmp_path, capsys, strategy) -> None:
    """Before the replay, behind it, and where what comes after that is dropped too."""
    fleet = Fleet(tmp_path, strategy, retention=Retention(envelopes=3, versions=3))
    fleet.turn(*HONEST, HONEST[0], EVIL, HONEST[1], EVIL)
    operator = Operator(tmp_path, fleet, capsys)
    operator.run("devices", "revoke", EVIL.name, "--forget")
    fleet.bench.make_versions()
    fleet.turn(*HONEST, HONEST[0], *HONEST)
    newest = fleet.bench.journal.newest_number(TASK)
    named = set()
    for start in range(newest):
        status, said = operator.said("tasks", "verify", TASK, "--from", str(start))
        if status:
            number = int(said.partition("--from ")[2].partition(";")[0])
            assert operator.run("tasks", "verify", TASK, "--from", str(number))["start"] == number
            assert operator.said("tasks", "verify", TASK, "--from", str(number - 1))[0], "no earlier one would do"
            named.add(number)
    assert len(named) == 1
    assert max(named) < newest


def envelopes_kept(bench: Bench) -> set[tuple[str, int]]:
    return {(row.device, row.sequence) for row in bench.journal.updates() if row.envelope is not None}


@pytest.mark.parametrize("strategy", ["ca2fl", "aced"])
def test_memory_of_last_updates_keeps_few_envelopes_and_survives_restarts_and_rollbacks(
    tmp_path, monkeypatch, strategy
) -> None:
    monkeypatch.setattr(retention, "STRIDE", 2)
    fleet = Fleet(tmp_path, strategy, retention=Retention(envelopes=2))
    fleet.turn(*HONEST)
    for _ in range(20):
        fleet.turn(HONEST[0], EVIL)
    remembered = fleet.remembered()
    assert remembered == sorted(device.name for device in (*HONEST, EVIL))
    assert len(envelopes_kept(fleet.bench)) <= 4 + 2 * (2 + 2)
    assert {("barn-pi", 1), ("cellar-pi", 1)} <= envelopes_kept(fleet.bench), "absent devices are remembered"
    fleet.bench.restart()
    fleet.turn(HONEST[0], EVIL)
    newest = fleet.bench.journal.newest_number(TASK)
    assert versions_replayed(fleet.bench.journal, TASK, newest - 2) == 2
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, newest - 1)
    fleet.turn(*[HONEST[0], EVIL] * 6)
    assert fleet.remembered() == remembered
    assert versions_replayed(fleet.bench.journal, TASK, newest + 5) == 2


def test_rollback_to_what_is_remembered_no_more_is_refused_with_a_reason(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(retention, "STRIDE", 2)
    fleet = Fleet(tmp_path, "ca2fl", retention=Retention(envelopes=2))
    fleet.turn(*HONEST, *[HONEST[0]] * 13)
    operator = Operator(tmp_path, fleet, capsys)
    status, said = operator.said("tasks", "rollback", TASK, "1")
    assert status == 2
    assert "version 1 of task 'tiny' can't be restored: the envelope of update 1 of attic-pi" in said
    assert operator.run("tasks", "rollback", TASK, "7")["version"] == 9
