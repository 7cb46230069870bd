"""Clusters that the coordinator finds in what helpers have said of devices."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import func, select, update

from broker_coordinator.cli import main
from broker_coordinator.commands import found_clusters
from broker_coordinator.commands.found_clusters import find_and_assign, place_newcomers
from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.serving import told_devices
from broker_coordinator.serving.told_devices import has_newcomers, is_undivided
from broker_coordinator.storage import told_activations
from broker_coordinator.storage.cluster_registry import ClusterRegistry, Finding
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.schema import FACTS, findings, payloads
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import (
    ACTIVATION_SUMMARY,
    ENCRYPTED_ACTIVATION_SUMMARY,
    ActivationSummary,
    Outcome,
    encode_payload,
)
from tests.support.bench import OPEN, Bench
from tests.support.device import SigningDevice
from tests.support.helper import TASK, copy_split_bundle

CELLAR, SHED = SigningDevice("cellar-pi"), SigningDevice("shed-pi")
DARK, LIGHT = [f"dark-{number}" for number in range(5)], [f"light-{number}" for number in range(5)]
VALUES = 16 * 7 * 7
"""That block 4 gives of a sample."""
KEY = SigningKey.generate()
NO_DATABASE_TAKES_IT = 2**64


def split_bundle(folder: Path, **more: object) -> Bundle:
    return copy_split_bundle(folder, clusters=ClusterPlan(3, activations="4", **more), buffer_size=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Ten approved devices, of two kinds, and two helpers."""
    bench = Bench(tmp_path / "coordinator.db", split_bundle(tmp_path / "bundle"), replace(OPEN, keys=(KEY,)))
    for helper in (CELLAR, SHED):
        bench.handle(helper, helper.enrolment())
        HelperRegistry(bench.journal.engine).allow(helper.name)
    for name in DARK + LIGHT:
        DeviceRegistry(bench.journal.engine).approve(name, SigningDevice(name).key.verify_key)
    bench.said()
    return bench


def mean(name: str, kind: str = "") -> bytes:
    seed = (DARK + LIGHT).index(name)
    centre = 3.0 if (kind or name).startswith("light") else -3.0
    return (centre + np.random.default_rng(seed).standard_normal(VALUES)).astype("<f4").tobytes()


class Telling:
    """Helpers that say something, each message with its own number."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.sequence = bench, 0

    def tell(self, name: str, *, kind: str = "", helper: SigningDevice = CELLAR, encrypted: bool = False) -> None:
        self.sequence += 1
        payload = encode_payload(ActivationSummary(name, 16, mean(name, kind)))
        if encrypted:
            payload = encrypt_payload(helper.key, KEY.verify_key, self.sequence, payload)
        of_kind = ENCRYPTED_ACTIVATION_SUMMARY if encrypted else ACTIVATION_SUMMARY
        self.bench.handle(helper, helper.sign(of_kind, payload, sequence=self.sequence, task=TASK))
        (receipt,) = self.bench.receipts()
        assert receipt.outcome is Outcome.ACCEPTED, receipt.detail
        self.bench.make_versions()

    def find(self) -> dict[str, int]:
        assigned, _ = find_and_assign(self.bench.journal, self.bench.description)
        stored = ClusterRegistry(self.bench.journal.engine).assigned().get(TASK, {})
        assert {name: cluster for name, cluster in assigned.items() if cluster}.items() <= stored.items()
        return assigned


@pytest.fixture
def telling(bench: Bench) -> Telling:
    return Telling(bench)


def expected(dark: int, light: int) -> dict[str, int]:
    return dict.fromkeys(DARK, dark) | dict.fromkeys(LIGHT, light)


def test_two_kinds_are_told_apart_and_keep_their_numbers_and_a_device_that_changes_goes_over(telling):
    for number, name in enumerate(DARK + LIGHT):
        telling.tell(name, helper=(CELLAR, SHED)[number % 2], encrypted=number % 3 == 0)
    assert telling.find() == expected(1, 2)
    telling.bench.restart()
    assert telling.find() == expected(1, 2), "the same journal gives the same"
    telling.tell("dark-0", kind="light")
    assert telling.find() == expected(1, 2) | {"dark-0": 2}, "the newest counts"


def test_devices_that_come_after_the_first_look_are_newcomers_until_the_next(telling, monkeypatch):
    journal = telling.bench.journal
    assert not is_undivided(journal, TASK)
    for name in DARK:
        telling.tell(name)
    assert not has_newcomers(journal, TASK), "the first look is due by itself"
    telling.find()
    telling.tell(DARK[0])
    assert not has_newcomers(journal, TASK)
    for name in LIGHT:
        telling.tell(name)
    assert has_newcomers(journal, TASK)
    monkeypatch.setattr(told_devices, "MOST_DEVICES", len(DARK))
    assert not has_newcomers(journal, TASK), "more than are looked at would come behind every version"
    monkeypatch.undo()
    assert is_undivided(journal, TASK)
    assert set(telling.find().values()) == {1, 2}
    assert not is_undivided(journal, TASK)
    assert not has_newcomers(journal, TASK)
    DeviceRegistry(journal.engine).revoke(LIGHT[0])
    assert not has_newcomers(journal, TASK)


def test_devices_of_which_nothing_was_said_keep_their_cluster(telling):
    ClusterRegistry(telling.bench.journal.engine).assign(telling.bench.description, {"attic": 3, "light-0": 1})
    for name in DARK + LIGHT[1:]:
        telling.tell(name)
    assert telling.find() == {name: cluster for name, cluster in expected(1, 2).items() if name != "light-0"}
    assigned = ClusterRegistry(telling.bench.journal.engine).assigned()[TASK]
    assert (assigned["attic"], assigned["light-0"]) == (3, 1)


def test_helpers_that_are_allowed_no_more_and_devices_that_are_gone_count_no_more(telling):
    engine = telling.bench.journal.engine
    for name in DARK + LIGHT:
        telling.tell(name)
    telling.tell("dark-0", kind="light", helper=SHED)
    HelperRegistry(engine).deny(SHED.name)
    DeviceRegistry(engine).revoke("light-4")
    found = telling.find()
    assert found == {name: cluster for name, cluster in expected(1, 2).items() if name != "light-4"}


def test_what_was_said_of_a_forgotten_device_counts_no_more_and_what_is_said_later_does(telling):
    for name in DARK + LIGHT:
        telling.tell(name)
    assert telling.find() == expected(1, 2)
    telling.tell("dark-0", kind="light")
    DeviceRegistry(telling.bench.journal.engine).forget("dark-0")
    assert telling.find() == {name: cluster for name, cluster in expected(1, 2).items() if name != "dark-0"}
    telling.tell("dark-0")
    assert telling.find() == expected(1, 2)


def test_what_a_forgotten_helper_said_counts_no_more_and_what_others_said_stays(telling):
    for name in DARK + LIGHT:
        telling.tell(name, helper=SHED)
    telling.tell("dark-0", kind="light")
    DeviceRegistry(telling.bench.journal.engine).forget(CELLAR.name)
    assert telling.find() == expected(1, 2)


def test_what_is_read_no_more_keeps_no_bytes_and_changes_nothing(telling, monkeypatch):
    monkeypatch.setattr(told_activations, "MOST_READ", len(DARK + LIGHT))
    for name in DARK + LIGHT:
        telling.tell(name, helper=SHED)
    for _ in range(3):
        for name in DARK + LIGHT:
            telling.tell(name)
    assert telling.find() == expected(1, 2)
    held = select(payloads.c.device, func.count()).where(payloads.c.envelope.is_not(None)).group_by(payloads.c.device)
    emptied = select(func.count()).where(FACTS == "{}")
    with reading(telling.bench.journal.engine) as connection:
        assert {row[0]: row[1] for row in connection.execute(held)} == {CELLAR.name: 10, SHED.name: 10}
        assert connection.scalar(emptied) == 20
    assert telling.find() == expected(1, 2)
    HelperRegistry(telling.bench.journal.engine).deny(CELLAR.name)
    assert telling.find() == expected(1, 2), "another helper's words are there in full"
    telling.bench.restart()
    assert telling.find() == expected(1, 2)


def test_a_damaged_row_hides_nothing_but_itself(telling):
    for name in DARK + LIGHT:
        telling.tell(name)
    telling.tell("dark-0", kind="light")
    with telling.bench.journal.engine.begin() as connection:
        newest = select(func.max(payloads.c.position)).scalar_subquery()
        connection.execute(update(payloads).where(payloads.c.position == newest).values(facts={"device": 7}))
    assert telling.find() == expected(1, 2)


def test_without_a_word_of_a_helper_nothing_changes(telling):
    ClusterRegistry(telling.bench.journal.engine).assign(telling.bench.description, {"attic": 3})
    assert telling.find() == {}
    assert ClusterRegistry(telling.bench.journal.engine).assigned()[TASK] == {"attic": 3}


def test_devices_of_one_kind_stay_in_none(telling):
    for name in DARK:
        telling.tell(name)
    assert telling.find() == dict.fromkeys(DARK, 0)


def test_a_device_that_is_no_helper_is_refused(telling):
    stranger = SigningDevice("dark-9")
    telling.bench.handle(stranger, stranger.enrolment())
    telling.bench.said()
    payload = encode_payload(ActivationSummary("dark-0", 16, mean("dark-0")))
    telling.bench.handle(stranger, stranger.sign(ACTIVATION_SUMMARY, payload, sequence=1, task=TASK))
    (receipt,) = telling.bench.receipts()
    assert (receipt.outcome, receipt.reason) == (Outcome.REJECTED, "out_of_bounds")


def test_clusters_and_what_they_were_found_by_are_kept_together_or_not_at_all(telling):
    for name in DARK + LIGHT:
        telling.tell(name)
    registry, task = ClusterRegistry(telling.bench.journal.engine), telling.bench.description
    for wanted, finding, error in (
        ({"dark-0": 1}, Finding(NO_DATABASE_TAKES_IT, {}, 1), OverflowError),
        ({"dark-0": 1, "dark-1": 4}, Finding(0, {}, 1), ConfigurationError),
    ):
        with pytest.raises(error):
            registry.assign_found(task, registry.stand(TASK), wanted, finding)
        assert (registry.assigned(), registry.finding(TASK)) == ({}, None)
    telling.find()
    assert registry.finding(TASK).clusters == 2
    TaskRegistry(telling.bench.journal.engine).remove(TASK)
    assert (registry.assigned(), registry.finding(TASK)) == ({}, None)


def test_a_device_that_is_revoked_while_others_are_compared_gets_no_cluster(telling, monkeypatch):
    for name in DARK + LIGHT:
        telling.tell(name)
    registry, compare = DeviceRegistry(telling.bench.journal.engine), found_clusters.find_clusters
    left = iter(["dark-0"])

    def meanwhile(*given):
        for name in left:
            registry.revoke(name)
        return compare(*given)

    monkeypatch.setattr(found_clusters, "find_clusters", meanwhile)
    assert set(telling.find()) == {*DARK, *LIGHT} - {"dark-0"}
    clusters = ClusterRegistry(telling.bench.journal.engine)
    assert "dark-0" not in clusters.assigned()[TASK]
    assert "dark-0" not in clusters.finding(TASK).samples


def test_verbs_say_how_clusters_were_found(telling, tmp_path, capsys):
    path = tmp_path / "coordinator.toml"
    path.write_text('fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n')
    for name in DARK + LIGHT:
        telling.tell(name)

    def asked(verb: str):
        capsys.readouterr()
        assert main(["clusters", "--config", str(path), "--json", verb, TASK]) == 0
        return json.loads(capsys.readouterr().out)

    assert {each["found"] for each in asked("show")} == {""}
    found = asked("find")
    assert (found["version"], found["devices"], found["clusters"], found["left_out"]) == (0, 10, 2, [])
    assert {each["device"]: each["cluster"] for each in found["assigned"]} == expected(1, 2)
    shown = {each["device"]: each["found"] for each in asked("show")}
    assert shown["dark-0"] == "behind version 0, by 16 samples"
    assert shown[CELLAR.name] == ""


def test_a_task_that_names_no_activation_is_refused_with_what_to_do(tmp_path):
    bundle = copy_split_bundle(tmp_path / "bundle", clusters=ClusterPlan(2))
    bench = Bench(tmp_path / "coordinator.db", bundle)
    with pytest.raises(ConfigurationError, match="does not say by what the coordinator finds"):
        find_and_assign(bench.journal, bundle.description)


def test_a_newcomer_goes_to_those_it_is_like_and_moves_nobody(telling):
    registry = ClusterRegistry(telling.bench.journal.engine)
    early = DARK[:3] + LIGHT[:3]
    for name in early:
        telling.tell(name)
    telling.find()
    for name in early:  # as when clusters have adapted: by these words, all were of one kind
        telling.tell(name, kind="dark" if name == "light-0" else "")
    telling.tell("light-3")
    telling.tell("dark-3")
    registry.assign(telling.bench.description, {"light-4": 3})
    telling.tell("light-4")
    assigned, finding = place_newcomers(telling.bench.journal, telling.bench.description)
    assert assigned == {"light-3": 2, "dark-3": 1}, "those who were there stay, and one who was put elsewhere by hand"
    everybody = expected(1, 2) | {"light-4": 3}
    assert registry.assigned()[TASK] == {name: cluster for name, cluster in everybody.items() if name != "dark-4"}
    assert finding.placed.keys() == {"light-3", "light-4", "dark-3"}
    assert not has_newcomers(telling.bench.journal, TASK)


def test_as_many_newcomers_as_were_known_divide_everybody_anew(telling):
    for name in DARK[:4]:
        telling.tell(name)
    telling.tell("light-0")
    telling.find()
    for name in LIGHT[1:]:
        telling.tell(name)
    telling.tell("dark-4")
    _, finding = place_newcomers(telling.bench.journal, telling.bench.description)
    assert finding.placed == {}
    assert ClusterRegistry(telling.bench.journal.engine).assigned()[TASK] == expected(1, 2)


def test_newcomers_are_divided_with_the_others_where_all_were_of_one_kind_or_nothing_was_found(telling):
    journal, task = telling.bench.journal, telling.bench.description
    for name in DARK:
        telling.tell(name)
    assert place_newcomers(journal, task)[0] == dict.fromkeys(DARK, 0)
    for name in LIGHT[:4]:
        telling.tell(name)
    assert set(place_newcomers(journal, task)[0].values()) == {1, 2}


def found_early(telling: Telling) -> ClusterRegistry:
    """Clusters 1 and 2, by four devices of each kind."""
    for name in DARK[:4] + LIGHT[:4]:
        telling.tell(name)
    telling.find()
    return ClusterRegistry(telling.bench.journal.engine)


def test_a_forgotten_device_leaves_its_cluster_and_is_a_newcomer_when_it_tells_anew(telling):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    devices = DeviceRegistry(journal.engine)
    for leave, name in ((devices.forget, "dark-0"), (devices.revoke, "dark-1")):
        leave(name)
        assert name not in registry.assigned()[TASK].keys() | registry.finding(TASK).samples.keys()
        assert not has_newcomers(journal, TASK)
        if leave == devices.revoke:
            devices.approve(name, SigningDevice(f"{name}-anew").key.verify_key)
        telling.tell(name, kind="light")
        assert has_newcomers(journal, TASK)
        assert place_newcomers(journal, task)[0] == {name: 2}
    assert registry.finding(TASK).placed.keys() == {"dark-0", "dark-1"}


def test_a_device_that_no_finding_knew_keeps_what_an_operator_gave_it_when_it_is_forgotten(telling):
    registry = found_early(telling)
    registry.assign(telling.bench.description, {"dark-4": 3})
    DeviceRegistry(telling.bench.journal.engine).forget("dark-4")
    assert registry.assigned()[TASK]["dark-4"] == 3


def test_what_was_found_meanwhile_is_what_newcomers_are_placed_by(telling, monkeypatch):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    telling.tell("dark-4")
    read = found_clusters.told_devices

    def read_while_somebody_finds(*asked: object) -> dict[str, SummaryFacts]:
        told = read(*asked)
        monkeypatch.undo()
        find_and_assign(journal, task)
        return told

    monkeypatch.setattr(found_clusters, "told_devices", read_while_somebody_finds)
    _, finding = place_newcomers(journal, task)
    assert (finding.placed, len(finding.samples)) == ({}, 9)
    assert registry.finding(TASK) == finding
    assert registry.assigned()[TASK]["dark-4"] == 1


def test_a_device_that_an_operator_took_out_draws_no_newcomer_out(telling):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    registry.assign(task, {"dark-0": 0})
    telling.tell("dark-4")
    telling.tell("dark-0")
    with journal.engine.begin() as connection:  # as like to it as can be
        newest = select(func.max(payloads.c.position)).scalar_subquery()
        facts = connection.scalar(select(payloads.c.facts).where(payloads.c.position == newest))
        said = payloads.c.facts["device"].as_string() == "dark-4"
        connection.execute(update(payloads).where(said).values(facts=facts | {"device": "dark-4"}))
    assert place_newcomers(journal, task)[0] == {"dark-4": 1}


def test_a_newcomer_whose_activation_is_of_no_use_is_tried_again_when_it_tells_anew(telling):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    telling.tell("light-4")
    with journal.engine.begin() as connection:
        newest = select(func.max(payloads.c.position)).scalar_subquery()
        damaged = {"device": "light-4", "rows": 16, "mean": [1e300] * VALUES}
        connection.execute(update(payloads).where(payloads.c.position == newest).values(facts=damaged))
    assert place_newcomers(journal, task)[0] == {}
    assert registry.finding(TASK).left_out.keys() == {"light-4"}
    assert not has_newcomers(journal, TASK), "until something else is said of it"
    telling.tell("light-4")
    assert has_newcomers(journal, TASK)
    assert place_newcomers(journal, task)[0] == {"light-4": 2}
    assert registry.finding(TASK).left_out == {}
    assert not has_newcomers(journal, TASK)


def test_a_cluster_that_the_task_has_no_more_keeps_no_newcomer_in_none(telling):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    registry.assign(task, {"dark-4": 3})
    telling.tell("dark-4")
    fewer = msgspec.structs.replace(task, clusters=msgspec.structs.replace(task.clusters, most=2))
    assert place_newcomers(journal, fewer)[0] == {"dark-4": 1}


@pytest.mark.parametrize("damage", ["{", '{"version": 0}', '{"version": "x", "samples": 3, "clusters": []}'])
def test_a_damaged_finding_stops_nothing_and_is_found_anew(telling, damage):
    registry = found_early(telling)
    journal, task = telling.bench.journal, telling.bench.description
    with journal.engine.begin() as connection:
        connection.execute(update(findings).values(document=damage))
    assert registry.finding(TASK) is None
    assert not has_newcomers(journal, TASK)
    DeviceRegistry(journal.engine).forget("light-4")
    place_newcomers(journal, task)
    assert len(registry.finding(TASK).samples) == 8


def test_a_finding_of_an_earlier_bundle_is_none_of_this_one(telling, tmp_path):
    registry = found_early(telling)
    bundle = split_bundle(tmp_path / "anew", every=7)
    TaskRegistry(telling.bench.journal.engine).publish(bundle)
    assert registry.finding(TASK) is None
    assert registry.assigned()[TASK].keys() == set(DARK[:4] + LIGHT[:4]), "they stay until clusters are found"
    _, finding = place_newcomers(telling.bench.journal, bundle.description)
    assert (finding.samples, finding.clusters) == ({}, 0)
