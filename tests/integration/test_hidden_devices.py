"""Versions that hide each device, on a coordinator's database: their noise, its seeds, and how often devices count."""

from functools import partial

import numpy as np
import pytest
from sqlalchemy import select, update

from broker_coordinator.aggregation.device_privacy.version_clip import VersionClip
from broker_coordinator.aggregation.device_privacy.version_noise import VersionNoise
from broker_coordinator.commands.privacy_told import device_privacy_told
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.serving import task_loading
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.schema import version_noise, versions
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import Bench
from tests.support.bundles import TASK
from tests.support.device import TINY_SHAPES, SigningDevice
from tests.support.hidden_devices import hiding_bundle

NAMES = [f"pi-{number}" for number in range(8)]


class Fleet:
    """Devices that have enrolled, and the last receipt of each."""

    def __init__(self, folder, **plan):
        self.bundle = hiding_bundle(folder / "bundle", **plan)
        self.bench = Bench(folder / "one.db", self.bundle)
        self.devices = {name: SigningDevice(name) for name in NAMES}
        self.sequences, self.generation = dict.fromkeys(NAMES, 0), 0
        for device in self.devices.values():
            self.bench.handle(device, device.enrolment())
        self.bench.said()

    @property
    def newest(self):
        return self.bench.journal.newest_number(TASK)

    def send(self, *names, packed=None):
        """An update of each from the newest version; the reasons of those that were refused."""
        refused = []
        for name in names:
            self.sequences[name] += 1
            message = self.devices[name].update(
                self.sequences[name], base_version=self.newest, generation=self.generation, packed=packed
            )
            self.bench.handle(self.devices[name], message)
            self.bench.make_versions()
            refused += [Reason(each.reason) for each in self.bench.receipts() if each.outcome is Outcome.REJECTED]
        return refused

    def versions(self):
        """Those that are stored, by number."""
        return {version.number: version for version in self.bench.journal.versions(TASK)}

    def seeds(self):
        with self.bench.journal.engine.connect() as connection:
            return {row.version: row.seed for row in connection.execute(select(version_noise))}


def test_devices_count_as_often_and_as_far_apart_as_was_planned_and_no_version_is_made_beyond(tmp_path):
    fleet = Fleet(tmp_path)
    assert fleet.send("pi-0", "pi-1") == []
    assert fleet.newest == 1
    assert fleet.send("pi-0") == [Reason.TOO_SOON]
    assert fleet.send("pi-2", "pi-3") == []
    assert fleet.send("pi-0", "pi-1") == []
    assert fleet.send("pi-2", "pi-3") == []
    fleet.bench.restart()
    assert fleet.send("pi-2") == [Reason.TOO_SOON]
    assert fleet.send("pi-0", "pi-1") == []
    assert fleet.send("pi-0") == [Reason.PRIVACY_SPENT]
    assert fleet.send("pi-4", "pi-5") == []
    assert fleet.newest == 6
    assert fleet.send("pi-6") == [Reason.PRIVACY_SPENT]
    fleet.bench.restart()
    assert fleet.send("pi-6") == [Reason.PRIVACY_SPENT]


@pytest.mark.parametrize("noise", ["banded", "tree", "independent"])
def test_noise_is_of_one_seed_for_each_version_whatever_restarts_and_rollbacks_come_between(tmp_path, noise):
    fleet = Fleet(tmp_path, noise=noise)
    fleet.send("pi-0", "pi-1")
    before = fleet.seeds()
    fleet.send("pi-2")
    fleet.bench.restart()
    fleet.send("pi-3")
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, 1)
    fleet.bench.make_versions()
    fleet.send("pi-4", "pi-5")
    fleet.bench.restart()
    fleet.send("pi-6", "pi-7")
    fleet.bench.restart()
    fleet.send("pi-0", "pi-1")
    seeds = fleet.seeds()
    assert {version: seeds[version] for version in before} == before
    assert sorted(seeds) == [0, 1, 2, 4, 5, 6]
    assert len(set(seeds.values())) == 6
    states = dict(replayed(fleet.bench.journal, fleet.bundle.description))
    for version in fleet.bench.journal.versions(TASK, after=0):
        stored = version.state(fleet.bundle.description.version.parameters, {})
        assert stored.weights.tobytes() == states[version.number].weights.tobytes()


def test_a_rollback_is_no_version_between_two_updates_of_a_device(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.send("pi-0", "pi-1")
    fleet.send("pi-2", "pi-3")
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, 1)
    fleet.bench.make_versions()
    assert fleet.newest == 3
    assert fleet.send("pi-2") == [Reason.TOO_SOON]
    fleet.bench.restart()
    assert fleet.send("pi-3") == [Reason.TOO_SOON]
    assert fleet.send("pi-0") == []


def test_version_moves_by_the_clipped_sum_and_its_noise_and_by_no_samples(tmp_path):
    fleet = Fleet(tmp_path, epsilon=100.0)
    fleet.send("pi-0", "pi-1")
    plan = fleet.bundle.description.device_privacy
    zero, one = (
        version.state(fleet.bundle.description.version.parameters, {}).weights.astype(np.float64)
        for version in fleet.bench.journal.versions(TASK)
    )
    noise = VersionNoise((fleet.seeds()[1],), (1.0,)).units(zero.size)
    held = fleet.bench.journal.held_updates(TASK, 1)
    total, clip = np.zeros(zero.size), VersionClip.of(None, plan, 2)
    for row in held:
        delta = row.item(fleet.bundle.description, ()).delta
        assert delta.norm() > plan.clip
        clip.add(delta, total)
    np.testing.assert_allclose(one - zero, (total + noise) * clip.unit / 2, atol=1e-6)


def test_replay_without_a_device_is_refused_as_the_difference_would_tell_its_update(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.send("pi-0", "pi-1")
    with pytest.raises(ConfigurationError, match="the difference would show that update"):
        list(replayed(fleet.bench.journal, fleet.bundle.description, without={"pi-0": [(0, 1)]}))


def test_renewed_generation_makes_no_more_versions_and_another_bundle_begins_anew(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.send("pi-0", "pi-1")
    registry = TaskRegistry(fleet.bench.journal.engine)
    registry.renew(TASK)
    fleet.bench.make_versions()
    fleet.generation = 1
    assert fleet.send("pi-2") == [Reason.PRIVACY_SPENT]
    registry.publish(hiding_bundle(tmp_path / "other", epsilon=2.0))
    fleet.bench.make_versions()
    fleet.generation = 2
    assert fleet.send("pi-0", "pi-1") == []
    assert fleet.newest == 3


ADAPTIVE = {"buffer_size": 4, "epsilon": 100.0, "at_most": 3, "adaptive_clip": AdaptiveClip(at_most=2.0)}
FIRST, SECOND = NAMES[:4], NAMES[4:]


def packed_norm(norm):
    """An update of one entry, of this norm."""
    delta = np.zeros(36, np.float32)
    delta[3] = norm
    return encode_update(delta, TINY_SHAPES, UpdatePlan(keep_fraction=0.5), np.random.default_rng(0)).packed


@pytest.mark.parametrize("noise", ["banded", "independent"])
def test_clip_that_follows_is_the_same_after_restarts_and_in_a_replay_and_a_rollback_leaves_it(
    tmp_path, noise, monkeypatch
):
    told = []
    for name, restarts in (("steady", False), ("killed", True)):
        (tmp_path / name).mkdir()
        seeds = iter([bytes([number]) * 32 for number in range(1, 20)])
        monkeypatch.setattr(task_loading, "new_seed", partial(next, seeds))
        fleet = Fleet(tmp_path / name, noise=noise, **ADAPTIVE)
        registry = VersionRegistry(fleet.bench.journal.engine)
        restart = fleet.bench.restart if restarts else fleet.bench.make_versions

        for names in (FIRST, SECOND):
            assert fleet.send(*names[:2]) == []
            restart()
            assert fleet.send(*names[2:]) == []
        registry.roll_back(TASK, 1)
        fleet.bench.make_versions()
        restart()
        assert fleet.newest == 3
        assert fleet.send(*FIRST) == []
        restart()
        assert fleet.send(*SECOND) == []
        found = fleet.versions()
        assert found[0].clip is None
        clips = [found[number].clip for number in (1, 2, 4, 5)]
        assert len(set(clips)) == 4
        assert found[3].clip == found[2].clip
        assert found[3].weights == found[1].weights
        for start in (None, 1, 2):
            states = dict(replayed(fleet.bench.journal, fleet.bundle.description, start))
            for number, state in states.items():
                stored = found[number].state(fleet.bundle.description.version.parameters, {})
                assert (state.clip, state.weights.tobytes()) == (stored.clip, stored.weights.tobytes())
            assert sorted(states) == list(range((start or 0) + 1, 6))
        assert verify_versions(fleet.bench.journal, TASK).difference is None
        shown = device_privacy_told(fleet.bench.journal, fleet.bundle.description)["device_privacy"]
        assert (shown["clip"], shown["clip_now"]) == (0.5, clips[-1])
        told.append(clips)
    assert told[0] == told[1]


def test_verification_names_a_clip_that_differs(tmp_path):
    fleet = Fleet(tmp_path, **ADAPTIVE)
    fleet.send(*FIRST)
    with writing(fleet.bench.journal.engine) as connection:
        connection.execute(update(versions).where(versions.c.number == 1).values(clip=0.75))
    found = verify_versions(fleet.bench.journal, TASK).difference
    assert (found.version, found.part) == (1, "clip")


def test_devices_with_absurd_updates_move_the_clip_within_its_bounds_and_nothing_stops(tmp_path):
    fleet = Fleet(tmp_path, **(ADAPTIVE | {"versions": 4, "versions_between": 1}))
    before = 0.5
    for _ in range(2):
        assert fleet.send(*FIRST, packed=packed_norm(1e30)) == []
        after = fleet.versions()[fleet.newest]
        weights = after.state(fleet.bundle.description.version.parameters, {}).weights
        assert np.isfinite(weights).all()
        assert 2.0 / 2**20 <= after.clip <= 2.0
        assert after.clip != before
        before = after.clip
    assert fleet.send(*SECOND, packed=packed_norm(0.0)) == []
    assert fleet.newest == 3


def test_tasks_with_a_fixed_clip_store_none_and_their_versions_have_no_count(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.send("pi-0", "pi-1")
    fleet.send("pi-2", "pi-3")
    VersionRegistry(fleet.bench.journal.engine).roll_back(TASK, 1)
    assert [version.clip for version in fleet.versions().values()] == [None] * 4
    shown = device_privacy_told(fleet.bench.journal, fleet.bundle.description)["device_privacy"]
    assert "clip_now" not in shown


def test_another_bundle_begins_with_its_own_clip(tmp_path):
    fleet = Fleet(tmp_path, **ADAPTIVE)
    fleet.send(*FIRST)
    assert fleet.versions()[1].clip is not None
    TaskRegistry(fleet.bench.journal.engine).publish(hiding_bundle(tmp_path / "other", **(ADAPTIVE | {"clip": 1.5})))
    fleet.bench.make_versions()
    fleet.generation = 1
    assert fleet.versions()[2].clip is None
    assert fleet.send(*FIRST) == []
    assert 1.0 < fleet.versions()[3].clip <= 2.0
