"""A device counts its noised updates in agent.db, and no receipt, kill, bundle or flipped bit makes them fewer."""

import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edge_agent.core.device_budget import noised_update
from edge_agent.core.outbox import SpooledPayload
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.learning.cohorts import Cohorts
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_protocol.kinds import MASKED_UPDATE, Outcome
from fleet_protocol.privacy.noise_shares import NoiseShares, epsilon_told
from tests.support.device import SigningDevice
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle

DEVICE = SigningDevice("pi")
DEMANDING = PrivacySettings(at_least="noised masks", trusted_mask_helpers=["0a" * 32, "0b" * 32], device_epsilon=9.0)
OPEN = SimpleNamespace(cohort=lambda _: b"a cohort's manifest", description=lambda _: None)
"""Stands for versions of a task whose cohort is open, as a manifest would name it."""


@pytest.fixture
def version(tmp_path):
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path) for number in range(2)]
    noise = NoiseShares(epsilon=8.0, norm=0.5, at_most=2)
    task = masked_bundle(tmp_path / "bundle", helpers, noise=noise).description
    return ReadyVersion(0, "0b" * 32, task, {}, tmp_path / "weights")


def cost_of(version):
    return noised_update(version.bundle, version.description)


class Device:
    """The device's database, and its part in cohorts."""

    def __init__(self, path, owner=None):
        self.path, self.owner = path, owner or PrivacySettings()
        self.start()

    def start(self):
        self.database = DeviceDatabase(self.path)
        self.cohorts = Cohorts(OPEN, self.database, DEVICE.identity, self.owner)

    def restart(self):
        self.database.close()
        self.start()

    def sends(self, version, outcome=Outcome.ACCEPTED):
        payloads = (SpooledPayload(MASKED_UPDATE.number, b"", b"masked", b"plain"),)
        spooled = SpooledRound("tiny", version.bundle, 0, 4, payloads, b"", noised=cost_of(version))
        (row,) = self.database.spool(spooled, DEVICE.identity.sign_row)
        if outcome is not None:
            self.database.settle(row, outcome, "", returned=outcome is Outcome.REJECTED)


def of_bundle(version, bundle):
    return ReadyVersion(version.number, bundle, version.description, {}, version.weights)


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REJECTED, None])
def test_update_counts_when_it_is_made_whatever_becomes_of_it_and_across_kills(tmp_path, version, outcome):
    device = Device(tmp_path / "agent.db")
    assert device.cohorts.join(version) is not None
    device.sends(version, outcome)
    device.restart()
    assert device.cohorts.why_spent(version) is None
    assert 0 < device.cohorts.told("tiny") < 8.0
    device.sends(version, outcome)
    device.restart()
    assert "at_most = 2" in device.cohorts.why_spent(version)
    assert device.cohorts.join(version) is None
    assert 0.9 * 8.0 < device.cohorts.told("tiny") <= 8.0


def test_round_that_sends_nothing_tells_nothing(tmp_path, version):
    device = Device(tmp_path / "agent.db")
    spooled = SpooledRound("tiny", version.bundle, 0, 4, (), b"", noised=cost_of(version))
    device.database.spool(spooled, DEVICE.identity.sign_row)
    assert device.cohorts.told("tiny") == 0.0


def test_bundle_that_comes_back_goes_on_where_it_was_and_all_add_up_for_the_owner(tmp_path, version):
    other = of_bundle(version, "0c" * 32)
    device = Device(tmp_path / "agent.db", DEMANDING)
    for each in (version, version):
        device.sends(each)
    before = device.cohorts.told("tiny")
    assert "device_epsilon" in device.cohorts.why_spent(other)
    device.sends(other)
    assert device.cohorts.told("tiny") > before
    assert "at_most = 2" in device.cohorts.why_spent(version)


def test_damaged_count_is_charged_to_the_bundle_at_hand(tmp_path, version):
    device = Device(tmp_path / "agent.db")
    for _ in range(2):
        device.sends(version)
    device.database.close()
    with sqlite3.connect(tmp_path / "agent.db") as connection:
        connection.execute("UPDATE noised_updates SET updates = 1")  # without a seal, as a flipped bit would
    connection.close()
    device.start()
    assert device.database.noised_updates.of("tiny") == []
    assert device.database.noised_updates.lost("tiny") == 2
    assert "at_most = 2" in device.cohorts.why_spent(version)
    assert "at_most = 2" in device.cohorts.why_spent(of_bundle(version, "0c" * 32))

    before = epsilon_told([replace(cost_of(version), updates=2).taken], 1e-5)
    device.database.set_known_version("tiny", KnownVersion(0, version.bundle, "", 1))
    device.cohorts = Cohorts(
        SimpleNamespace(description=lambda _: version.description), device.database, DEVICE.identity, device.owner
    )
    assert device.cohorts.told("tiny") == pytest.approx(before), "what is shown is what is decided by"


def test_lost_counter_makes_no_later_loss_smaller(tmp_path, version):
    device = Device(tmp_path / "agent.db")
    device.sends(version)
    device.database.close()
    with sqlite3.connect(tmp_path / "agent.db") as connection:
        connection.execute("DELETE FROM counters WHERE name = 'noised_updates.tiny'")
    connection.close()
    device.start()
    device.sends(version)
    device.database.close()
    with sqlite3.connect(tmp_path / "agent.db") as connection:
        connection.execute("DELETE FROM noised_updates")
    connection.close()
    device.start()
    assert device.database.noised_updates.lost("tiny") == 2


def test_task_without_noise_is_not_counted(tmp_path):
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path) for number in range(2)]
    plain = masked_bundle(tmp_path / "plain", helpers).description
    device = Device(tmp_path / "agent.db")
    ready = ReadyVersion(0, "0d" * 32, plain, {}, tmp_path / "weights")
    assert cost_of(ready) is None
    device.sends(ready)
    assert device.database.noised_updates.of("tiny") == []
    assert device.cohorts.why_spent(ready) is None
