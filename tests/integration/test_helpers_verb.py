"""Helpers that an operator allows and denies, and what the relay reads of them and of the tasks."""

import dataclasses
import json

import pytest

from broker_coordinator.cli import main
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from session_relay.relay.core.directory import ServedTask
from session_relay.relay.directory_source import DirectorySource
from tests.support.bundles import TASK, THREE_BLOCKS, write_bundle

KEY = SigningKey(bytes(32)).verify_key


@pytest.fixture
def journal(database):
    with Journal.open(database) as journal:
        yield journal


def test_helper_is_allowed_and_denied_by_name_whether_it_has_enrolled_or_not(journal) -> None:
    registry = HelperRegistry(journal.engine)
    for name in ("tower", "gateway", "gateway"):
        registry.allow(name)
    assert registry.allowed() == ["gateway", "tower"]
    registry.deny("tower")
    assert registry.allowed() == ["gateway"]
    with pytest.raises(ConfigurationError, match="no helper; see: broker-coordinator helpers list"):
        registry.deny("tower")


def test_relay_reads_who_is_approved_who_may_help_and_what_can_be_cut(journal, tmp_path) -> None:
    devices, helpers, tasks = (shape(journal.engine) for shape in (DeviceRegistry, HelperRegistry, TaskRegistry))
    source = DirectorySource(journal.engine)
    assert source.read().tasks == {}
    whole, cut = write_bundle(tmp_path / "whole", task="whole"), write_bundle(tmp_path / "cut", split=THREE_BLOCKS)
    tasks.publish(whole)
    tasks.publish(cut)
    devices.approve("gateway", KEY)
    helpers.allow("gateway")
    found = source.read()
    assert (found.devices, found.helpers) == ({"gateway": KEY}, frozenset(["gateway"]))
    served = ServedTask(bytes.fromhex(cut.hash), 0, 0, frozenset(["middle"]))
    assert found.tasks[TASK] == served
    assert found.tasks["whole"].cuts == frozenset()
    devices.revoke("gateway")
    helpers.deny("gateway")
    tasks.set_paused(TASK, paused=True)
    after = source.read()
    assert (after.devices, after.helpers) == ({}, frozenset())
    assert after.tasks[TASK] == dataclasses.replace(served, is_paused=True)


def test_operator_sees_which_helper_has_still_to_be_approved(tmp_path, capsys) -> None:
    configuration = tmp_path / "coordinator.toml"
    key = tmp_path / "coordinator.key"
    key.write_text(bytes(32).hex() + "\n")
    key.chmod(0o600)
    configuration.write_text(
        f'fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "{tmp_path}/coordinator.db"\n'
        '[broker]\nhost = "broker"\n'
    )
    with Journal.open(tmp_path / "coordinator.db") as journal:
        DeviceRegistry(journal.engine).approve("tower", KEY)
    verb = ["helpers", "--config", str(configuration), "--json"]
    for name in ("gateway", "tower"):
        assert main([*verb, "allow", name]) == 0
    capsys.readouterr()
    assert main([*verb, "list"]) == 0
    gateway, tower = json.loads(capsys.readouterr().out)
    assert "devices approve gateway" in gateway["note"]
    assert (tower["state"], tower["note"]) == ("approved", "")
    assert main([*verb, "deny", "nobody"]) == 2
    assert "no helper" in capsys.readouterr().err
