"""Clusters of an ordinary task before a real journal: by where updates point, and as devices choose."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import delete, func, insert, select, update

from broker_coordinator.cli import main
from broker_coordinator.commands import found_clusters
from broker_coordinator.commands.diagnose import diagnosis
from broker_coordinator.commands.found_clusters import find_and_assign, place_newcomers
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage import pulls as pulls_of_journal
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.pulls import told_directions
from broker_coordinator.storage.schema import FACTS, findings, payloads, pulls, pulls_read, rosters, schema_number
from broker_coordinator.storage.schema_upgrades import create_schema
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

PARAMETERS = [Parameter("shared", [40]), Parameter("own", [60])]
SPARSE = UpdatePlan(0.5, "float32")
DARK, LIGHT = ([SigningDevice(f"{kind}-{number}") for number in range(5)] for kind in ("dark", "light"))
WAY = np.random.default_rng(5).standard_normal(100)
KINDS = {device.name: 1 for device in DARK} | {device.name: 2 for device in LIGHT}


def bundle_of(folder: Path, *, most: int = 3, **plan) -> Bundle:
    aggregation = AggregationPlan(strategy="fedbuff", buffer_size=10, averaged_versions=1, max_staleness=100)
    clusters = ClusterPlan(most, ("own",), **plan)
    return write_bundle(folder, parameters=PARAMETERS, aggregation=aggregation, update=SPARSE, clusters=clusters)


def served(folder: Path, **plan) -> Bench:
    bench = Bench(folder / "coordinator.db", bundle_of(folder / "bundle", **plan))
    for device in DARK + LIGHT:
        bench.handle(device, device.enrolment())
    bench.said()
    return bench


def send(bench: Bench, device: SigningDevice, sequence: int, cluster: int = 0, scale: float = 0.1):
    """An update as one of the device's kind; its receipt."""
    noise = np.random.default_rng((sequence, *device.name.encode())).standard_normal(100)
    delta = scale * (WAY * (1 if device.name.startswith("dark") else -1) + 0.5 * noise)
    shapes = bench.description.trained_shapes
    packed = encode_update(delta.astype(np.float32), shapes, SPARSE, np.random.default_rng(sequence)).packed
    base = bench.journal.newest_number(TASK)
    bench.handle(device, device.update(sequence, base_version=base, packed=packed, cluster=cluster))
    (receipt,) = bench.receipts()
    assert receipt.outcome is Outcome.ACCEPTED, receipt.detail
    return receipt


def rounds(bench: Bench, first: int, last: int, devices=(*DARK, *LIGHT), clusters=None) -> None:
    for sequence in range(first, last + 1):
        for device in devices:
            send(bench, device, sequence, (clusters or {}).get(device.name, 0))
        bench.make_versions()


def assigned(bench: Bench) -> dict[str, int]:
    return ClusterRegistry(bench.journal.engine).assigned().get(TASK, {})


def test_two_kinds_are_told_apart_by_their_updates_through_a_restart_and_replay(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 2)
    find_and_assign(bench.journal, bench.description)
    assert assigned(bench) == {}, "each has sent two"
    bench.restart()
    rounds(bench, 3, 3)
    before = told_directions(bench.journal.engine, TASK)
    found, finding = find_and_assign(bench.journal, bench.description)
    assert found == KINDS == assigned(bench)
    assert (finding.clusters, finding.samples) == (2, dict.fromkeys(KINDS, 3))
    bench.restart()
    again = told_directions(bench.journal.engine, TASK)
    assert all(again[name].total.tobytes() == before[name].total.tobytes() for name in KINDS)
    assert send(bench, DARK[0], 4).cluster == 1
    rounds(bench, 5, 6, clusters=KINDS)
    assert find_and_assign(bench.journal, bench.description)[0] == {}, "nobody moves"
    for number, state in replayed(bench.journal, bench.description):
        stored = bench.journal.version(TASK, number).state(bench.description.version.parameters, {})
        assert stored.weights.tobytes() == state.weights.tobytes()


def test_who_comes_later_goes_to_its_kind_and_what_a_device_sent_before_it_was_forgotten_counts_no_more(tmp_path):
    bench = served(tmp_path, found_by="directions")
    late = DARK[-1]
    rounds(bench, 1, 4, devices=[device for device in DARK + LIGHT if device is not late])
    find_and_assign(bench.journal, bench.description)
    kinds = assigned(bench)
    for sequence in range(1, 11):
        send(bench, late, sequence)
    bench.make_versions()
    assert place_newcomers(bench.journal, bench.description)[0] == {late.name: kinds[DARK[0].name]}
    DeviceRegistry(bench.journal.engine).forget(late.name)
    assert late.name not in assigned(bench)
    assert late.name not in told_directions(bench.journal.engine, TASK)
    with reading(bench.journal.engine) as connection:
        assert late.name not in set(connection.scalars(select(pulls.c.device)))


def test_the_directions_of_kinds_have_nothing_of_a_device_that_was_revoked(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    find_and_assign(bench.journal, bench.description)
    registry = ClusterRegistry(bench.journal.engine)
    before = registry.finding(TASK).kinds
    assert before[1].keys() == {device.name for device in DARK}
    DeviceRegistry(bench.journal.engine).revoke(DARK[0].name)
    after = registry.finding(TASK).kinds
    assert after == {1: {name: way for name, way in before[1].items() if name != DARK[0].name}, 2: before[2]}
    find_and_assign(bench.journal, bench.description)
    assert registry.finding(TASK).kinds == after


def test_pulls_are_the_same_bytes_however_often_and_whenever_they_were_read(tmp_path):
    bench = served(tmp_path, found_by="directions")
    for first in (1, 3, 4):
        rounds(bench, first, first)
        kept = told_directions(bench.journal.engine, TASK)
    with writing(bench.journal.engine) as connection:
        connection.execute(delete(pulls))
        connection.execute(delete(pulls_read))
    anew = told_directions(bench.journal.engine, TASK)
    assert list(anew) == list(kept) == [device.name for device in DARK + LIGHT]
    for name, pull in anew.items():
        assert pull.total.tobytes() == kept[name].total.tobytes()
        assert (pull.cluster, pull.updates, pull.version) == (0, 3, 3)
    send(bench, DARK[0], 5)
    assert told_directions(bench.journal.engine, TASK)["dark-0"].updates == 3, "no version holds it"


def test_a_device_that_leaves_while_others_read_does_not_come_back(tmp_path, monkeypatch):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    added_up = pulls_of_journal._added_up
    left = iter([DARK[0].name])

    def meanwhile(*given):
        found = added_up(*given)
        for name in left:
            DeviceRegistry(bench.journal.engine).forget(name)
        return found

    monkeypatch.setattr(pulls_of_journal, "_added_up", meanwhile)
    assert set(told_directions(bench.journal.engine, TASK)) == KINDS.keys() - {DARK[0].name}


def test_updates_are_taken_and_devices_leave_while_directions_are_compared(tmp_path, monkeypatch):
    """A comparison takes half a minute, and a message waits five seconds for the database."""
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    compare, compared = found_clusters.clusters_by_direction, []

    def meanwhile(*given, **options):
        compared.append(given[1])
        if len(compared) == 1:
            send(bench, LIGHT[0], 4)
            ClusterRegistry(bench.journal.engine).assign(bench.description, {DARK[0].name: 3})
        if len(compared) == 2:
            DeviceRegistry(bench.journal.engine).revoke(DARK[1].name)
        return compare(*given, **options)

    monkeypatch.setattr(found_clusters, "clusters_by_direction", meanwhile)
    found, finding = find_and_assign(bench.journal, bench.description)
    assert compared == [{}, {DARK[0].name: 3}, {DARK[0].name: 3}], "again, after what has been done meanwhile"
    others = KINDS.keys() - {DARK[0].name, DARK[1].name}
    assert found == {name: 1 if name.startswith("light") else 2 for name in others}
    assert assigned(bench) == found | {DARK[0].name: 3}
    assert DARK[1].name not in finding.samples.keys() | finding.kinds[2].keys()


MANY = 8_500
"""Updates of one device: more than were ever looked at together."""


def repeated(bench: Bench, device: SigningDevice, versions: int) -> None:
    """As if the device had sent its newest update so often, spread over so many versions to come."""
    with writing(bench.journal.engine) as connection:
        newest = select(payloads).where(payloads.c.device == device.name).order_by(payloads.c.position.desc())
        row = dict(connection.execute(newest.limit(1)).one()._mapping)
        version = row["aggregate"] or 0
        after = connection.scalar(select(func.max(payloads.c.position))) or 0
        rows = [
            row
            | {
                "position": after + number,
                "sequence": row["sequence"] + number,
                "aggregate": version + number % versions if row["aggregate"] is not None else None,
                "envelope": None,
            }
            for number in range(1, MANY + 1)
        ]
        connection.execute(insert(payloads), rows)


def test_devices_that_have_been_quiet_for_long_are_known_by_what_they_sent(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    repeated(bench, LIGHT[0], 1)
    assert told_directions(bench.journal.engine, TASK)[LIGHT[0].name].updates == MANY + 3
    found, finding = find_and_assign(bench.journal, bench.description)
    assert found == KINDS
    assert finding.samples["dark-3"] == 3


def test_a_device_leaves_its_cluster_when_it_is_revoked_before_it_has_sent_anything_for_the_newer_bundle(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    find_and_assign(bench.journal, bench.description)
    ClusterRegistry(bench.journal.engine).assign(bench.description, {"shelf": 1})
    TaskRegistry(bench.journal.engine).publish(bundle_of(tmp_path / "newer", most=4, found_by="directions"))
    devices = DeviceRegistry(bench.journal.engine)
    assert ClusterRegistry(bench.journal.engine).finding(TASK) is None
    assert told_directions(bench.journal.engine, TASK) == {}
    devices.revoke(DARK[0].name)
    newer = TaskRegistry(bench.journal.engine).bundle(TASK).description
    assert find_and_assign(bench.journal, newer)[0] == {}
    devices.revoke(DARK[1].name)
    kept = {name: cluster for name, cluster in KINDS.items() if name not in {DARK[0].name, DARK[1].name}}
    assert assigned(bench) == kept | {"shelf": 1}


def test_a_database_of_schema_21_keeps_its_kinds_and_places_newcomers_by_them(tmp_path):
    """Whose findings had one direction of each kind, and none of each device."""
    bench = served(tmp_path, found_by="directions")
    late = DARK[-1]
    rounds(bench, 1, 4, devices=[device for device in DARK + LIGHT if device is not late])
    kinds, finding = find_and_assign(bench.journal, bench.description)
    with writing(bench.journal.engine) as connection:
        document = json.loads(msgspec.json.encode(finding))
        document["kinds"] = {cluster: next(iter(each.values())) for cluster, each in document["kinds"].items()}
        connection.execute(update(findings).values(document=json.dumps(document)))
        for table in (pulls, pulls_read, rosters):
            table.drop(connection)
        for column in ("tempers_since", "tempers_until", "tempers_not_until"):
            connection.exec_driver_sql(f"ALTER TABLE versions DROP COLUMN {column}")
        connection.execute(update(schema_number).values(number=21))
    with writing(bench.journal.engine) as connection:
        create_schema(connection)
    for sequence in range(1, 11):
        send(bench, late, sequence)
    bench.make_versions()
    assert place_newcomers(bench.journal, bench.description)[0] == {late.name: kinds[DARK[0].name]}


def test_a_device_that_is_revoked_leaves_its_cluster_where_nobody_can_read_what_that_was_found_by(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    find_and_assign(bench.journal, bench.description)
    with writing(bench.journal.engine) as connection:
        connection.execute(update(findings).values(document="{"))
    DeviceRegistry(bench.journal.engine).revoke(DARK[0].name)
    assert assigned(bench) == {name: cluster for name, cluster in KINDS.items() if name != DARK[0].name}


def test_damaged_facts_and_those_that_were_set_aside_cost_no_other_device(tmp_path):
    bench = served(tmp_path, found_by="directions")
    rounds(bench, 1, 3)
    first = payloads.c.device == DARK[0].name
    with writing(bench.journal.engine) as connection:
        connection.execute(update(payloads).where(first).values(facts={"samples": "many"}))
        of_second = payloads.c.device == DARK[1].name
        connection.execute(update(payloads).where(of_second).values(set_aside="a test"))
    assert set(told_directions(bench.journal.engine, TASK)) == KINDS.keys() - {DARK[0].name, DARK[1].name}


def test_only_a_task_that_finds_clusters_so_has_directions_among_its_facts(tmp_path):
    for place, plan in enumerate([{}, {"found_by": "devices"}, {"found_by": "directions"}]):
        bench = served(tmp_path / str(place), **plan)
        send(bench, DARK[0], 1)
        with reading(bench.journal.engine) as connection:
            facts = msgspec.json.decode(connection.scalars(select(FACTS)).one(), type=UpdateFacts)
        assert bool(facts.direction) is (plan.get("found_by") == "directions")


@pytest.fixture
def chosen(tmp_path: Path) -> Bench:
    """A coordinator of a task whose devices choose."""
    (tmp_path / "coordinator.toml").write_text(
        'fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n'
    )
    return served(tmp_path, found_by="devices")


def run(bench: Bench, *words: str) -> int:
    noun, *others = words
    return main([noun, "--config", str(bench.database.parent / "coordinator.toml"), *others])


def test_a_device_that_chooses_may_train_any_copy_and_its_receipt_tells_none(chosen, capsys):
    for sequence, cluster in enumerate((2, 1, 0, 1), 1):
        assert send(chosen, DARK[0], sequence, cluster).cluster is None
    send(chosen, LIGHT[0], 1, 2)
    assert run(chosen, "clusters", "show", TASK, "--json") == 0
    shown = {row["device"]: row["cluster"] for row in json.loads(capsys.readouterr().out)}
    assert {name: cluster for name, cluster in shown.items() if cluster} == {"dark-0": 1, "light-0": 2}
    chosen.handle(DARK[1], DARK[1].update(1, cluster=4, shapes=chosen.description.trained_shapes))
    assert [receipt.reason for receipt in chosen.receipts()] == [Reason.WRONG_CLUSTER.value]


def test_what_a_device_trained_last_is_shown_however_long_ago_that_was(chosen, capsys):
    send(chosen, DARK[0], 1, 2)
    send(chosen, DARK[1], 1, 3)
    send(chosen, LIGHT[0], 1, 1)
    repeated(chosen, LIGHT[0], 1)
    DeviceRegistry(chosen.journal.engine).revoke(DARK[1].name)
    assert run(chosen, "clusters", "show", TASK, "--json") == 0
    shown = {row["device"]: row["cluster"] for row in json.loads(capsys.readouterr().out)}
    assert {name: cluster for name, cluster in shown.items() if cluster} == {"dark-0": 2, "light-0": 1}


def test_a_cluster_that_nobody_joins_is_said_with_what_to_do(chosen, capsys):
    rounds(chosen, 1, 1, clusters=KINDS)
    assert run(chosen, "clusters", "show", TASK) == 0
    words = "nobody is in cluster 3 of 3: every version holds a copy that nobody trains; set clusters.most to 2"
    assert words in capsys.readouterr().out
    advice = diagnosis(chosen.journal, TASK, ())["advice"]
    assert [each for each in advice if words in each]


def test_nobody_else_says_which_copy_a_device_that_chooses_trains(chosen, capsys):
    assert run(chosen, "clusters", "assign", TASK, "dark-0", "1") == 2
    assert "choose their cluster themselves" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="does not say by what the coordinator finds"):
        find_and_assign(chosen.journal, chosen.description)
