"""Devices with and without noise in one task, on a coordinator's database: what counts, what is replayed and shown."""

import msgspec
import pytest

from broker_coordinator.commands.privacy_told import privacy_told
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE, SAMPLE_GRADIENTS_FILE, blob_hash
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy, with_noise
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed

STEPS, ROUNDS = 25, 3
PLAN = with_noise(SamplePrivacy(epsilon=4.0, rounds=ROUNDS, owners_choose=True), STEPS, "task.toml")
OFF = {"validation_share": 0.0, "maximum_epochs": 0, "epochs_per_round": 0}
MORE = 2 * PLAN.told_noise


class Fleet:
    """Three devices with the task's noise, two with more, and as many without as is said."""

    def __init__(self, folder, quiet=2, plan=PLAN):
        path = folder / "bundle"
        plain = write_bundle(path)
        graph = b"gradients"
        (path / SAMPLE_GRADIENTS_FILE).write_bytes(graph)
        description = msgspec.structs.replace(
            plain.description,
            training=msgspec.structs.replace(plain.description.training, **OFF),
            privacy=PrivacyPlan(plan),
            files={**plain.description.files, SAMPLE_GRADIENTS_FILE: blob_hash(graph)},
        )
        (path / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(description))
        self.bench = Bench(folder / "one.db", load_bundle(path))
        kinds = [None] * 3 + [MORE] * 2 + [0.0] * quiet
        self.noise = {SigningDevice(f"pi-{number}"): noise for number, noise in enumerate(kinds)}
        self.sequence = 0
        for device in self.noise:
            self.bench.handle(device, device.enrolment())
        self.bench.said()

    def round(self):
        self.sequence += 1
        for device, noise in self.noise.items():
            self.send(device, noise)

    def send(self, device, noise, samples=8):
        newest = self.bench.journal.newest_number(TASK)
        message = device.update(self.sequence, base_version=newest, samples=samples, loss=0.0, noise=noise)
        self.bench.handle(device, message)
        self.bench.make_versions()
        return [each for each in self.bench.receipts() if each.outcome is Outcome.REJECTED]

    def shown(self):
        description = TaskRegistry(self.bench.journal.engine).bundle(TASK).description
        return privacy_told(self.bench.journal.overview, description)["sample_privacy"]


def test_each_kind_of_noise_is_shown_with_what_it_told_and_none_with_a_number_that_nobody_knows(tmp_path):
    fleet = Fleet(tmp_path)
    for _ in range(ROUNDS + 2):
        fleet.round()
    fleet.bench.restart()
    shown = fleet.shown()
    assert shown["most_rounds_of_a_device"] == ROUNDS + 2
    assert shown["rounds_of_a_sample"] == ROUNDS
    assert shown["epsilon"] == PLAN.epsilon_after(ROUNDS * STEPS) <= 4.0, "not of rounds that no sample is in"
    by_noise = shown["by_noise"]
    assert by_noise["none"] == {
        "devices": 2,
        "least_noise_multiplier": 0.0,
        "most_rounds_of_a_device": ROUNDS + 2,
        "epsilon": None,
    }
    assert (by_noise["task"]["devices"], by_noise["task"]["epsilon"]) == (3, shown["epsilon"])
    assert by_noise["more"]["least_noise_multiplier"] == MORE
    assert 0 < by_noise["more"]["epsilon"] < shown["epsilon"]


def test_device_that_has_once_sent_without_noise_is_never_among_those_that_hide_samples(tmp_path):
    fleet = Fleet(tmp_path, quiet=0)
    fleet.round()
    turned = next(iter(fleet.noise))
    fleet.sequence += 1
    assert fleet.send(turned, 0.0) == []
    devices = {kind: row["devices"] for kind, row in fleet.shown()["by_noise"].items()}
    assert devices == {"none": 1, "task": 2, "more": 2}
    assert fleet.shown()["most_rounds_of_a_device"] == 1


def test_first_device_of_a_task_gains_nothing_by_saying_that_it_has_no_noise(tmp_path):
    fleet = Fleet(tmp_path)
    noisy, liar = next(iter(fleet.noise)), list(fleet.noise)[-1]
    batch = TaskRegistry(fleet.bench.journal.engine).bundle(TASK).description.training.batch_size
    fleet.sequence += 1
    fleet.send(liar, 0.0, samples=1_000_000)
    fleet.send(noisy, None, samples=STEPS * batch)
    facts = {row.device: row.read_facts() for row in fleet.bench.journal.updates(TASK)}
    assert 0 < facts[liar.name].samples <= facts[noisy.name].samples


def test_versions_of_a_mixed_fleet_are_replayed_bit_for_bit_after_a_restart(tmp_path):
    fleet = Fleet(tmp_path)
    for _ in range(4):
        fleet.round()
        fleet.bench.restart()
    newest = fleet.bench.journal.newest_number(TASK)
    assert newest >= 8
    assert versions_replayed(fleet.bench.journal, TASK) == newest
    facts = {row.device: row.read_facts() for row in fleet.bench.journal.updates(TASK)}
    assert facts["pi-6"].samples > facts["pi-0"].samples > facts["pi-3"].samples
    assert facts["pi-6"].declared == 8


@pytest.mark.parametrize("noise", [1e-6, PLAN.told_noise / 2])
def test_saying_that_no_owner_can_choose_is_refused_and_nothing_else_stops(tmp_path, noise):
    fleet = Fleet(tmp_path)
    fleet.round()
    device = next(iter(fleet.noise))
    fleet.sequence += 1
    (refused,) = fleet.send(device, noise)
    assert refused.reason == Reason.OUT_OF_BOUNDS.value
    assert f"it is none (0), or {PLAN.told_noise:g} to 1000" in refused.detail
    fleet.sequence += 1
    assert fleet.send(device, 0.0) == []


def test_task_whose_owners_do_not_choose_shows_no_kinds_and_takes_no_saying(tmp_path):
    fleet = Fleet(tmp_path, quiet=1, plan=msgspec.structs.replace(PLAN, owners_choose=False))
    fleet.sequence += 1
    refused = [receipt for device, noise in fleet.noise.items() for receipt in fleet.send(device, noise)]
    assert len(refused) == 3
    assert "by_noise" not in fleet.shown()
    assert b"owners_choose" not in msgspec.json.encode(fleet.bench.description)
