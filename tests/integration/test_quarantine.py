"""Suspicious updates are held: receipted, listed, released or dropped; never lost, never counted twice."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from broker_coordinator import cli
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.held_updates import DROPPED, OUTDATED, held_updates, release
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from edge_agent.core.shard_choice import Place
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.kinds import Outcome
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import RobustPlan
from fleet_protocol.shards import shard_of
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.departing_fleet import Operator
from tests.support.device import SigningDevice
from tests.support.killed_child import is_killed, put_back
from tests.support.led_shards import SHARDS, Shard
from tests.support.quarantined_fleet import EVIL, HONEST, PLAN, REVERSED, WARM, Fleet, packed
from tests.support.replay import versions_replayed


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture
def run(tmp_path, fleet, capsys) -> Callable:
    return Operator(tmp_path, fleet, capsys).run


TEMPERS = QuarantinePlan(action="temper")
HELD = [(None, "held in quarantine")]


@pytest.mark.parametrize(("times", "words"), [(REVERSED, "its cosine with the mean direction"), (9.0, "its norm is")])
def test_suspicious_update_is_held_receipted_and_shown(tmp_path, capsys, caplog, times, words) -> None:
    metrics = Metrics()
    fleet = Fleet(tmp_path, metrics=metrics)
    fleet.bench.said()
    message = fleet.message(EVIL, times)
    for _ in range(2):  # it is sent again where the receipt is lost
        fleet.bench.handle(EVIL, message)
        fleet.bench.make_versions()
        assert [each.outcome for each in fleet.bench.receipts()] == [Outcome.ACCEPTED]
    assert fleet.newest() == WARM
    fleet.turn(*HONEST[:2])
    assert fleet.newest() == WARM + 1
    assert fleet.states() == HELD
    assert versions_replayed(fleet.journal, TASK) == WARM + 1
    run = Operator(tmp_path, fleet, capsys).run
    (row,) = run("tasks", "quarantine", TASK)
    assert (row["device"], row["sequence"], row["staleness"], row["outcome"]) == (EVIL.name, 1, 1, "held")
    assert words in row["suspicion"]
    shown = run("tasks", "show", TASK)
    assert shown["held"] == 1
    assert words in shown["last_set_aside"][0]["reason"]
    assert f"event=update_held task={TASK} device={EVIL.name}" in caplog.text
    assert metrics.registry.get_sample_value("edgeflock_updates_held_total", {"task": TASK}) == 1


def test_released_update_counts_with_the_staleness_that_it_has_then(fleet, run) -> None:
    fleet.evil_turn()
    fleet.turn(*HONEST[2:4])
    assert fleet.newest() == WARM + 2
    (row,) = run("tasks", "quarantine", TASK, "--release", EVIL.name)
    assert (row["outcome"], row["staleness"]) == ("released", 2)
    assert fleet.states() == [(None, None)]
    fleet.turn(HONEST[4])
    assert fleet.states() == [(WARM + 3, None)], "and it is not judged again"
    (update,) = [each for each in fleet.journal.held_updates(TASK, WARM + 3) if each.device == EVIL.name]
    assert (update.staleness, update.base_version) == (2, WARM)
    assert versions_replayed(fleet.journal, TASK) == WARM + 3
    assert run("tasks", "quarantine", TASK) == []


def test_released_update_comes_after_what_is_in_the_journal_and_not_read_yet(fleet, run) -> None:
    fleet.evil_turn()
    fleet.bench.handle(HONEST[3], fleet.message(HONEST[3]))
    run("tasks", "quarantine", TASK, "--release", EVIL.name)
    fleet.bench.handle(HONEST[4], fleet.message(HONEST[4]))
    fleet.bench.make_versions()
    assert fleet.states() == [(WARM + 2, None)]
    assert fleet.states(HONEST[4]) == [(3, None), (None, None)]
    fleet.turn(HONEST[5])
    assert versions_replayed(fleet.journal, TASK) == WARM + 3


def test_dropped_update_never_counts(fleet, run) -> None:
    fleet.evil_turn()
    (row,) = run("tasks", "quarantine", TASK, "--drop", EVIL.name)
    assert row["outcome"] == DROPPED
    fleet.turn(*HONEST[2:4])
    assert fleet.states() == [(None, DROPPED)]
    assert run("tasks", "show", TASK)["held"] == 0


def test_an_update_that_may_count_no_more_is_dropped(fleet, run, caplog) -> None:
    fleet.evil_turn()
    fleet.turn(*HONEST[2:6])
    assert fleet.newest() == WARM + PLAN.max_staleness
    assert fleet.states() == HELD
    (told,) = release(fleet.journal.engine, TASK, [EVIL.name], msgspec.structs.replace(PLAN, max_staleness=2))
    assert told.outcome == f"{OUTDATED}: max_staleness is 2"
    assert fleet.states() == [(None, OUTDATED)]
    fleet.evil_turn()
    fleet.turn(*HONEST, HONEST[2], HONEST[3])
    assert fleet.states() == [(None, OUTDATED)] * 2
    assert "event=held_updates_dropped" in caplog.text


def test_a_quarantine_that_would_hold_most_holds_nothing_and_goes_on_by_itself(fleet, run, caplog) -> None:
    caplog.set_level("INFO")
    fleet.turn(*HONEST[:6], times=REVERSED)
    assert len(held_updates(fleet.journal.engine, TASK)) == 4, "half of the devices that were judged so far"
    assert fleet.newest() == WARM + 1, "the others count"
    assert "event=quarantine_overrun" in caplog.text
    for verb in ("show", "diagnose"):
        advice = run("tasks", verb, TASK)["advice"]
        assert any(
            "6 of 8 devices that sent lately are suspicious by what they sent last, which is more than half" in words
            for words in advice
        )
    fleet.turn(*HONEST[6:], *HONEST, *HONEST[:4], times=REVERSED)
    assert "event=quarantine_resumed" in caplog.text, "what is usual has changed"
    assert not any("suspicious" in words for words in run("tasks", "show", TASK)["advice"])
    fleet.turn(EVIL, HONEST[0], times=1.0)
    assert fleet.states()[-1:] == HELD
    assert versions_replayed(fleet.journal, TASK) == fleet.newest()


@pytest.mark.parametrize("restarts", [False, True])
def test_behind_a_return_to_an_older_version_devices_are_judged_by_what_others_send_since(tmp_path, restarts):
    """As at the beginning: by nobody, while versions since hold updates of fewer than five others."""
    fleet = Fleet(tmp_path, f"{restarts}")
    fleet.restarts = restarts
    fleet.evil_turn()
    VersionRegistry(fleet.journal.engine).roll_back(TASK, WARM)
    fleet.bench.make_versions()
    fleet.turn(EVIL, times=REVERSED)
    fleet.turn(*HONEST[:3])
    assert fleet.states()[1:] == [(WARM + 3, None)]
    fleet.turn(*HONEST[3:], HONEST[0])
    fleet.turn(EVIL, times=REVERSED)
    fleet.turn(*HONEST[:2])
    assert fleet.states()[2:] == HELD
    assert versions_replayed(fleet.journal, TASK) == fleet.newest()


def test_revoked_device_and_a_bundle_of_before_leave_the_quarantine(fleet, tmp_path) -> None:
    fleet.evil_turn()
    DeviceRegistry(fleet.journal.engine).revoke(EVIL.name)
    assert fleet.states() == [(None, "its device was revoked or forgotten")]
    fleet.turn(HONEST[2], times=REVERSED)
    fleet.turn(HONEST[3])
    assert fleet.states(HONEST[2])[-1:] == HELD
    plan = msgspec.structs.replace(PLAN, quarantine=QuarantinePlan(5.0))
    TaskRegistry(fleet.journal.engine).publish(write_bundle(tmp_path / "other", aggregation=plan))
    assert fleet.states(HONEST[2])[-1] == (None, "the task was published with another bundle")


def test_trusted_device_is_never_held(tmp_path) -> None:
    plan = msgspec.structs.replace(PLAN, robust=RobustPlan("fltrust", trusted_devices=(EVIL.name,)))
    fleet = Fleet(tmp_path, plan=plan)
    fleet.turn(EVIL, times=REVERSED)
    fleet.turn(HONEST[0])
    assert fleet.states() == [(WARM + 1, None)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((TASK, "--release", "pi-0", "nobody-pi"), f"nothing of nobody-pi, pi-0 is held in task '{TASK}'"),
        (("roses",), "serves no task 'roses'"),
        (("roses", "--drop", EVIL.name), "serves no task 'roses'"),
    ],
)
def test_what_cant_be_done_is_said_and_nothing_changes(tmp_path, fleet, capsys, arguments, words) -> None:
    fleet.evil_turn()
    status, said = Operator(tmp_path, fleet, capsys).said("tasks", "quarantine", *arguments)
    assert status == 2
    assert words in said
    assert fleet.states() == HELD


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            AggregationPlan(quarantine=QuarantinePlan(action="temper")),
            "tempering: updates that are found suspicious count together as much as one device",
        ),
        (AggregationPlan(), "as one device, once devices find the model much worse than it was"),
        (AggregationPlan(max_staleness=0), "tempering: "),
        (AggregationPlan(quarantine=QuarantinePlan(action="off")), "write [aggregation.quarantine] into task.toml"),
        (AggregationPlan(strategy="fedavg", buffer_size=2, max_staleness=0, round_seconds=9.0), "can have none: "),
    ],
)
def test_task_without_a_quarantine_says_so_and_what_to_do(tmp_path, capsys, plan, words) -> None:
    operator = Operator(tmp_path, Fleet(tmp_path, plan=plan), capsys)
    assert words in operator.run("tasks", "show", TASK)["quarantine"]
    assert operator.run("tasks", "quarantine", TASK) == []
    assert cli.main(["tasks", "--config", str(tmp_path / "coordinator.toml"), "quarantine", TASK]) == 0
    assert words in capsys.readouterr().out


def test_of_several_shards_the_leader_holds_what_another_one_took_in(database, tmp_path) -> None:
    """And finds what is released meanwhile, beside what else the other one takes in of the device."""
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLAN)
    leader, follower = (Shard(database, bundle, shard, leads=shard == SHARDS[0]) for shard in SHARDS)
    names = [f"pi-{number}" for number in range(40)]
    honest = [SigningDevice(name) for name in names if shard_of(name, SHARDS) == SHARDS[0]][:6]
    evil = next(SigningDevice(name) for name in names if shard_of(name, SHARDS) == SHARDS[1])
    evil.identity.move(Place(SHARDS[1], SHARDS[0]))

    def made() -> int:
        for each in (follower, leader):
            each.coordinator.make_versions(0.0)
        return leader.journal.newest_number(TASK)

    def evil_sends(sequence: int, times: float) -> None:
        message = evil.update(sequence, base_version=3, packed=packed(times, sequence))
        follower.hear(evil, evil.identity.addressed(message))

    for number, device in enumerate(honest):
        leader.hear(device, device.enrolment())
        leader.hear(device, device.update(1, packed=packed(1.0, number)))
    assert made() == 3
    follower.hear(evil, evil.enrolment())
    evil_sends(1, REVERSED)
    leader.hear(honest[0], honest[0].update(2, base_version=3, packed=packed(1.0, 9)))
    assert made() == 3
    with Journal.open(database) as operators:
        (told,) = release(operators.engine, TASK, [evil.name], PLAN)
        assert told.outcome == "released"
    evil_sends(2, 1.0)
    assert made() == 4
    rows = [(row.device, row.sequence, row.aggregate) for row in leader.journal.payloads()]
    assert rows[-3:] == [(honest[0].name, 2, 4), (evil.name, 1, 4), (evil.name, 2, None)]
    assert versions_replayed(leader.journal, TASK) == 4
    for each in (leader, follower):
        each.journal.close()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"ef21", "posterior", "fedavg"}))
def test_restarts_and_replays_give_the_same_versions(tmp_path, strategy) -> None:
    """Held before, released later, and restarted before every update: bit for bit the same."""
    made = []
    for restarts in (False, True):
        plan = AggregationPlan(
            buffer_size=1 if strategy == "fedasync" else 2,
            strategy=strategy,
            server_learning_rate=0.5,
            max_staleness=9,
            quarantine=QuarantinePlan(),
        )
        fleet = Fleet(tmp_path, f"{restarts}", plan)
        fleet.restarts = restarts
        fleet.evil_turn()
        assert fleet.states() == HELD
        fleet.turn(*HONEST[2:4])
        assert release(fleet.journal.engine, TASK, [EVIL.name], plan)
        fleet.evil_turn()
        fleet.turn(*HONEST[2:6])
        (first, why), second = fleet.states()
        assert ((first is None, why), second) == ((False, None), HELD[0])
        assert versions_replayed(fleet.journal, TASK) == fleet.newest()
        assert versions_replayed(fleet.journal, TASK, fleet.newest() - 2) == 2
        made.append(list(fleet.journal.versions(TASK)))
    assert made[0] == made[1]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"ef21", "posterior", "fedavg"}))
def test_restarts_and_replays_temper_alike(tmp_path, strategy) -> None:
    """Bit for bit the same, restarted before every update; nothing is held, and none counts twice."""
    made = []
    for restarts in (False, True):
        size = 1 if strategy == "fedasync" else 2
        plan = AggregationPlan(buffer_size=size, strategy=strategy, server_learning_rate=0.5, quarantine=TEMPERS)
        fleet = Fleet(tmp_path, f"{restarts}", plan)
        fleet.restarts = restarts
        fleet.turn(EVIL, HONEST[0], EVIL, HONEST[1], times=3 * REVERSED)
        fleet.turn(*HONEST[2:6])
        rows = [row for row in fleet.journal.payloads() if row.suspicion]
        assert [(row.device, row.set_aside) for row in rows[:2]] == [(EVIL.name, None), ("pi-0", None)]
        assert [row.read_facts().tempered < 1 for row in rows[:2]] == [True, True]
        assert versions_replayed(fleet.journal, TASK) == fleet.newest()
        made.append(([row.read_facts() for row in fleet.journal.payloads()], list(fleet.journal.versions(TASK))))
    assert made[0] == made[1]


def test_norms_of_more_devices_than_are_remembered_by_their_updates_are_found_again(tmp_path, monkeypatch) -> None:
    """Three devices send what is tiny, and take all but three of the places; restarted before every update."""
    for module in ("aggregation.quarantine", "serving.task_loading"):
        monkeypatch.setattr(f"broker_coordinator.{module}.DEVICES_REMEMBERED", 6)
    tiny, found = [SigningDevice(f"tiny-{number}") for number in range(3)], []
    for restarts in (False, True):
        fleet = Fleet(tmp_path, f"{restarts}")
        for device in tiny:
            fleet.bench.handle(device, device.enrolment())
        fleet.restarts = restarts
        fleet.turn(*tiny, HONEST[4], times=1e-3)
        fleet.turn(*HONEST[:4])
        assert all(state[1] is None for device in HONEST for state in fleet.states(device)), "no honest one is long"
        fleet.turn(HONEST[5], HONEST[6], times=9.0)
        rows = [row for row in fleet.journal.payloads() if row.suspicion]
        assert [row.device for row in rows] == ["pi-5", "pi-6"]
        found.append(([row.suspicion for row in rows], list(fleet.journal.versions(TASK))))
    assert found[0] == found[1]


def test_what_is_tempered_is_told(tmp_path, capsys, caplog) -> None:
    caplog.set_level("INFO")
    metrics = Metrics()
    fleet = Fleet(tmp_path, plan=AggregationPlan(buffer_size=2, quarantine=TEMPERS), metrics=metrics)
    fleet.turn(EVIL, HONEST[0], times=9 * REVERSED)
    assert fleet.states() == [(WARM + 1, None)]
    operator = Operator(tmp_path, fleet, capsys)
    assert operator.run("tasks", "show", TASK)["suspicious_devices"] == "2 of 9 that sent lately"
    listed = operator.run("tasks", "quarantine", TASK)
    facts = {row.device: row.read_facts().tempered for row in fleet.journal.payloads() if row.aggregate == WARM + 1}
    assert [(each["device"], each["sequence"], each["version"], each["counts"]) for each in listed] == [
        (EVIL.name, 1, WARM + 1, facts[EVIL.name]),
        ("pi-0", 2, WARM + 1, facts["pi-0"]),
    ]
    assert all("its norm is" in each["suspicion"] for each in listed)
    assert cli.main(["tasks", "--config", str(tmp_path / "coordinator.toml"), "quarantine", TASK]) == 0
    assert "devices revoke DEVICE --forget" in capsys.readouterr().out
    assert f"event=update_tempered task={TASK} device={EVIL.name} counts=0." in caplog.text
    assert metrics.registry.get_sample_value("edgeflock_updates_tempered_total", {"task": TASK}) == 2


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (PLAN, [HELD[0], (WARM + 1, None), (WARM + 1, None)]),
        (
            AggregationPlan(buffer_size=2, quarantine=TEMPERS),
            [(WARM + 1, None), (WARM + 1, None), (None, None)],
        ),
    ],
)
def test_killed_at_any_statement_each_update_is_judged_once_and_the_versions_are_the_same(
    tmp_path, plan, expected
) -> None:
    fleet = Fleet(tmp_path, plan=plan)
    database, kept = tmp_path / "one.db", tmp_path / "kept.db"
    for device, times in ((EVIL, REVERSED), (HONEST[0], 1.0), (HONEST[1], 1.0)):
        fleet.bench.handle(device, fleet.message(device, times))
    fleet.journal.close()
    shutil.copy(database, kept)

    def opened() -> Bench:
        return Bench(database, fleet.bundle, replace(OPEN, keys=(KEY,)))

    found, killed = [], True
    while killed:
        put_back(kept, database)
        killed = is_killed(len(found), lambda: opened().make_versions)
        bench = opened()
        bench.make_versions()
        rows = [(row.position, row.device, row.aggregate, row.set_aside) for row in bench.journal.payloads()]
        tempered = [row.read_facts().tempered for row in bench.journal.payloads()]
        found.append((rows[-3:], tempered, [each.weights_hash for each in bench.journal.versions(TASK)]))
        bench.journal.close()
    assert len(found) > 6
    assert all(each == found[-1] for each in found)
    places = [(9, EVIL.name), (10, "pi-0"), (11, "pi-1")]
    assert found[-1][0] == [(*place, *became) for place, became in zip(places, expected, strict=True)]


def test_release_that_is_killed_at_any_statement_is_done_or_not_and_can_be_run_again(tmp_path, fleet, run) -> None:
    fleet.evil_turn()
    fleet.journal.close()
    database, kept = tmp_path / "one.db", tmp_path / "kept.db"
    shutil.copy(database, kept)
    words = ["tasks", "--config", str(tmp_path / "coordinator.toml"), "quarantine", TASK, "--release", EVIL.name]
    found = []
    while True:
        put_back(kept, database)
        if not is_killed(len(found), lambda: partial(cli.main, words)):
            break
        with Journal.open(database) as journal:
            found.append(len(held_updates(journal.engine, TASK)))
            if found[-1]:
                release(journal.engine, TASK, [EVIL.name], PLAN)
        bench = Bench(database, fleet.bundle, replace(OPEN, keys=(KEY,)))
        (evil,) = [row for row in bench.journal.payloads() if row.device == EVIL.name]
        assert (evil.position, evil.staleness, evil.set_aside) == (12, 1, None)
        bench.journal.close()
    assert set(found) == {0, 1}, "it was killed before the commit and after it"
    assert found == sorted(found, reverse=True)
