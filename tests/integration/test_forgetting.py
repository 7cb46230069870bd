"""`devices revoke --forget`: since a version, as a dry run, killed anywhere, with several shards; what it marks."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from broker_coordinator import cli
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.dashboard.pages import versions_page
from broker_coordinator.dashboard.questions import VersionsAsked
from broker_coordinator.serving.forgetting import Asked, forget_device
from broker_coordinator.storage.database import Database, writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from edge_agent.core.shard_choice import Place
from fleet_protocol.envelope import read_envelope
from fleet_protocol.kinds import MANIFEST, Manifest, decode_payload
from fleet_protocol.limits import MAX_SIGNED_CHUNK_BYTES
from fleet_protocol.shards import shard_of
from tests.support.bench import KEY
from tests.support.bundles import TASK, write_bundle
from tests.support.departing_fleet import EVIL, HONEST, Fleet, Operator, plan_of
from tests.support.device import SigningDevice
from tests.support.fleet import SHARD
from tests.support.killed_child import is_killed, put_back
from tests.support.led_shards import SHARDS, Shard
from tests.support.replay import versions_replayed

SINCE = 6
"""The second version that the device makes."""

NAMES = ("pi-0", "pi-1", "pi-2", "pi-3")

Operators = Callable[[Fleet], Operator]


@pytest.fixture
def operator_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operators:
    return lambda fleet: Operator(tmp_path, fleet, capsys)


def fleet_after_three_turns(folder: Path, strategy: str) -> Fleet:
    """Versions 1 and 2 are of honest devices, 3 of the evil one, and so on up to 9."""
    fleet = Fleet(folder, strategy)
    for _ in range(3):
        fleet.turn(*HONEST, HONEST[0])
        fleet.turn(EVIL, EVIL)
    return fleet


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"fedavg", "fedasync", "fadas"}))
@pytest.mark.parametrize("dropped", [(), (4, 5)])
def test_device_is_forgotten_since_a_version_and_what_it_did_before_stays(
    tmp_path, operator_of, strategy, dropped
) -> None:
    """The result is the very version of a fleet that it had left then, wherever the replay has to begin."""
    fleet, without = fleet_after_three_turns(tmp_path, strategy), Fleet(tmp_path, strategy, "without")
    without.turn(*HONEST, HONEST[0], EVIL, EVIL, *HONEST, HONEST[0])
    without.revoke()
    without.turn(*HONEST, HONEST[0])
    with writing(fleet.bench.journal.engine) as connection:
        for number in dropped:
            words = "UPDATE versions SET weights = NULL, moments = NULL, unrounded = x'' WHERE number = :number"
            connection.execute(text(words), {"number": number})
    (row,) = operator_of(fleet).run("devices", "revoke", EVIL.name, "--forget", "--since", str(SINCE))
    assert (row["version"], row["updates"], row["remains"]) == (10, 4, "")
    assert row["replayed_from"] == (3 if dropped else SINCE - 1)
    expected, made = without.bench.journal.newest_version(TASK), fleet.bench.journal.newest_version(TASK)
    assert (made.weights, made.moments) == (expected.weights, expected.moments)
    assert EVIL.name not in fleet.remembered()
    fleet.bench.restart()
    fleet.turn(*HONEST, HONEST[0])
    assert versions_replayed(fleet.bench.journal, TASK, 6) > 0


@pytest.mark.parametrize("since", [(), ("--since", str(SINCE))])
def test_dry_run_changes_nothing_and_tells_what_the_command_does_then(tmp_path, operator_of, since) -> None:
    fleet = fleet_after_three_turns(tmp_path, "ca2fl")
    operator, journal = operator_of(fleet), fleet.bench.journal
    before = rows_of(journal)
    told = operator.run("devices", "revoke", EVIL.name, "--forget", "--dry-run", *since)
    assert rows_of(journal) == before
    assert operator.run("devices", "revoke", EVIL.name, "--forget", *since) == told
    (row,) = told
    assert (row["version"], row["replayed_from"]) == (10, 5 if since else 2)
    assert (row["updates"], row["others"]) == ((4, 4) if since else (6, 8))
    old, new = (journal.version(TASK, number).state(fleet.bundle.description.parameters, {}) for number in (9, 10))
    assert row["distance"] == pytest.approx(float(np.linalg.norm(new.weights - old.weights)), rel=1e-4)
    assert row["length"] == pytest.approx(float(np.linalg.norm(old.weights)), rel=1e-4)


@pytest.mark.parametrize("again", [EVIL, HONEST[0]])
def test_what_was_forgotten_never_comes_back_where_envelopes_are_dropped_since(tmp_path, operator_of, again) -> None:
    """Version 3 holds what was forgotten, and 4 is the first that a later replay could begin with."""
    fleet = fleet_after_three_turns(tmp_path, "fedbuff")
    operator, journal = operator_of(fleet), fleet.bench.journal
    operator.run("devices", "revoke", EVIL.name, "--forget")
    fleet.turn(*HONEST, HONEST[0])
    clean = journal.newest_version(TASK)
    with writing(journal.engine) as connection:
        connection.execute(text("UPDATE payloads SET envelope = NULL WHERE aggregate <= 4"))
    (row,) = operator.run("devices", "forget", again.name)
    if again is EVIL:
        assert (row["version"], row["remains"]) == (None, ""), "nothing of it was left"
        assert journal.newest_version(TASK) == clean
    else:
        assert row["replayed_from"] >= 10, "the version that is without the other one"
        assert "into versions" in row["remains"]
    shown = operator.run("tasks", "show", TASK)["versions"]
    marked = {each["number"]: each["with_forgotten"] for each in shown if EVIL.name in each["with_forgotten"]}
    assert marked.keys() == set(range(3, 10))


def rows_of(journal: Journal) -> list[list[tuple]]:
    with journal.engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            for table in ("versions", "departures", "devices", "payloads", "change_counters")
        ]


def test_versions_made_with_what_is_forgotten_are_marked_until_one_is_without(tmp_path, operator_of) -> None:
    fleet = fleet_after_three_turns(tmp_path, "fedbuff")
    operator = operator_of(fleet)
    assert marked(operator, fleet) == []
    operator.run("devices", "revoke", EVIL.name, "--forget", "--since", str(SINCE))
    assert marked(operator, fleet) == [6, 7, 8, 9]
    registry = VersionRegistry(fleet.bench.journal.engine)
    registry.roll_back(TASK, 8)
    assert marked(operator, fleet) == [6, 7, 8, 9, 11], "a rollback brings its updates back"
    registry.roll_back(TASK, 5)
    registry.roll_back(TASK, 10)
    assert marked(operator, fleet) == [6, 7, 8, 9, 11]
    operator.run("devices", "revoke", EVIL.name, "--forget")
    assert marked(operator, fleet) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]


def marked(operator: Operator, fleet: Fleet) -> list[int]:
    """The versions that are shown as made with what is forgotten: the same by the command and on the dashboard."""
    shown = operator.run("tasks", "show", TASK)["versions"]
    page = versions_page(fleet.bench.journal, TASK, VersionsAsked())
    found = [row["number"] for row in shown if row["with_forgotten"] == EVIL.name]
    assert found == [row.number for row in page.versions if row.with_forgotten == (EVIL.name,)]
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("revoke", EVIL.name, "--since", "3"), "--since: only with --forget"),
        (("revoke", EVIL.name, "--dry-run", "--task", TASK), "--task, --dry-run: only with --forget"),
        (("revoke", EVIL.name, "--forget", "--since", "10"), "the newest version of task 'tiny' is 9"),
        (("revoke", EVIL.name, "--forget", "--task", "roses"), "roses"),
        (("revoke", "nobody-pi", "--forget", "--dry-run"), "there is no device 'nobody-pi'"),
        (("forget", "nobody-pi", "--dry-run"), "there is no device 'nobody-pi'"),
    ],
)
def test_what_cant_be_forgotten_is_refused_in_words_and_nothing_is_done(
    tmp_path, operator_of, arguments, words
) -> None:
    fleet = fleet_after_three_turns(tmp_path, "fedbuff")
    before = rows_of(fleet.bench.journal)
    status, said = operator_of(fleet).said("devices", *arguments)
    assert status == 2
    assert words in said
    assert rows_of(fleet.bench.journal) == before


def test_device_that_is_forgotten_in_one_task_loses_nothing_that_waits_in_another(tmp_path, operator_of) -> None:
    fleet = fleet_after_three_turns(tmp_path, "fedbuff")
    other = write_bundle(tmp_path / "roses", task="roses", aggregation=plan_of("fedbuff"))
    TaskRegistry(fleet.bench.journal.engine).publish(other)
    fleet.bench.handle(EVIL, EVIL.update(20, base_version=9, life=1), EVIL.update(21, task="roses", life=1))
    operator_of(fleet).run("devices", "forget", EVIL.name, "--task", TASK)
    waiting = {row.task: row.set_aside for row in fleet.bench.journal.payloads() if row.aggregate is None}
    assert waiting == {TASK: "its device was revoked or forgotten", "roses": None}
    assert not fleet.bench.journal.history("roses").departures
    operator_of(fleet).run("devices", "revoke", EVIL.name)
    (row,) = fleet.bench.journal.payloads("roses")
    assert row.set_aside == "its device was revoked or forgotten"


def test_command_that_is_killed_anywhere_leaves_the_old_version_or_the_new_one_and_can_be_run_again(
    tmp_path, operator_of
) -> None:
    fleet = fleet_after_three_turns(tmp_path, "ca2fl")
    old = fleet.weights()
    fleet.bench.journal.close()
    database, kept = tmp_path / "one.db", tmp_path / "kept.db"
    shutil.copy(database, kept)
    operator = operator_of(fleet)
    command = ["devices", "revoke", EVIL.name, "--forget", "--since", str(SINCE)]
    operator.run(*command)
    with Journal.open(database) as journal:
        new = journal.newest_version(TASK).weights
    found = []
    while True:
        put_back(kept, database)
        words = ["devices", "--config", str(tmp_path / "coordinator.toml"), *command[1:]]
        if not is_killed(len(found), lambda words=words: partial(cli.main, words)):
            break
        with Journal.open(database) as journal:
            made = journal.newest_version(TASK)
            assert (made.number, made.weights) in [(9, old), (10, new)]
            found.append(made.number)
            assert versions_replayed(journal, TASK) == made.number
        (row,) = operator.run(*command)
        assert row["version"] == (10 if found[-1] == 9 else None), "made once, before it was killed or now"
        with Journal.open(database) as journal:
            assert journal.newest_version(TASK).weights == new
    assert {9, 10} == set(found), "it was killed before the commit and after it"
    assert found == sorted(found)


def test_of_several_shards_the_leader_alone_goes_on_from_what_is_left(database: Database, tmp_path: Path) -> None:
    """The honest device is in the leader's shard, the evil one in the other."""
    bundle = write_bundle(tmp_path / "bundle", aggregation=plan_of("fedbuff"))
    leader, follower = (Shard(database, bundle, shard, leads=shard == SHARD) for shard in SHARDS)
    honest, evil = (next(SigningDevice(name) for name in NAMES if shard_of(name, SHARDS) == shard) for shard in SHARDS)

    def made() -> int:
        for each in (follower, leader):
            each.coordinator.make_versions(0.0)
        assert (leader.coordinator.leads, follower.coordinator.leads) == (True, False)
        return leader.journal.newest_number(TASK)

    assert made() == 0
    evil.identity.move(Place(SHARDS[1], SHARD))
    for shard, device in ((leader, honest), (follower, evil)):
        shard.hear(device, device.enrolment())
        for sequence in (1, 2):
            shard.hear(device, device.identity.addressed(device.update(sequence, life=1)))
        made()
    assert made() == 2
    with Journal.open(database) as operators:
        DeviceRegistry(operators.engine).revoke(evil.name)
        (told,) = forget_device(operators, Asked(evil.name), (KEY,))
        assert (told.version, told.updates) == (3, 2)
        first, second, third = (operators.version(TASK, number) for number in (1, 2, 3))
    assert third.weights == first.weights != second.weights
    follower.coordinator.make_versions(0.0)
    assert not manifests(follower)
    assert made() == 3
    assert manifests(leader) == [3]
    follower.hear(evil, evil.identity.addressed(evil.update(3, base_version=3, life=1)))
    assert follower.journal.overview.update_counts(TASK) == (4, 0), "the other shard refuses it too"
    for sequence in (3, 4):
        leader.hear(honest, honest.update(sequence, base_version=3, life=1))
    assert made() == 4
    assert versions_replayed(leader.journal, TASK) == 4
    for each in (leader, follower):
        each.journal.close()


def manifests(shard: Shard) -> list[int]:
    """The versions that a shard's process announces; each once, to however many shards."""
    said = [read_envelope(each.data, MAX_SIGNED_CHUNK_BYTES) for each in shard.coordinator.publications(1000, 1.0)]
    found = [decode_payload(each.payload, Manifest) for each in said if each.header.kind is MANIFEST]
    return sorted({each.version for each in found})
