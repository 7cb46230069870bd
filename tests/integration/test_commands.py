"""`broker-coordinator devices` and `tasks`: what they answer, for people and as JSON."""

import json
from pathlib import Path

import pytest

from broker_coordinator import cli
from broker_coordinator.aggregation.version import version_zero
from broker_coordinator.configuration import load_configuration
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError
from tests.support.bench import Bench
from tests.support.broker import free_port
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed

CONFIGURATION = 'fleet = "testfleet"\nkey_file = "key"\ndatabase = "{}"\n[broker]\nhost = "localhost"\n'


class Operator:
    """Runs commands on the database of a coordinator that stays open beside them."""

    def __init__(self, configuration: Path, bench: Bench, capsys) -> None:
        self.configuration, self.bench, self._capsys = configuration, bench, capsys

    def told(self, noun: str, *arguments: object) -> str:
        assert cli.main([noun, "--config", str(self.configuration), *map(str, arguments)]) == 0
        return self._capsys.readouterr().out

    def json(self, noun: str, *arguments: object):
        return json.loads(self.told(noun, *arguments, "--json"))

    def refused(self, noun: str, *arguments: object) -> str:
        assert cli.main([noun, "--config", str(self.configuration), *map(str, arguments)]) == 2
        return self._capsys.readouterr().err


@pytest.fixture
def operator(tmp_path, database, capsys) -> Operator:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(buffer_size=2))
    bench, device = Bench(database, bundle), SigningDevice("kitchen-pi")
    data = [device.enrolment(), *(device.update(sequence) for sequence in range(1, 6)), device.update(6, samples=0)]
    bench.handle(device, *data)
    bench.make_versions()
    configuration = tmp_path / "coordinator.toml"
    where = database if isinstance(database, Path) else database.render_as_string()
    configuration.write_text(CONFIGURATION.format(where))
    return Operator(configuration, bench, capsys)


def test_what_is_set_aside_is_shown_and_does_not_wait(operator) -> None:
    assert operator.json("tasks", "show", TASK)["last_set_aside"] == []
    operator.bench.journal.set_aside({1: "held, so it stays", 5: "planted"})
    shown = operator.json("tasks", "show", TASK)
    assert (shown["accepted"], shown["waiting"], shown["set_aside"]) == (5, 0, 1)
    assert shown["last_set_aside"] == [{"device": "kitchen-pi", "sequence": 5, "kind": "update", "reason": "planted"}]
    assert "device kitchen-pi  sequence 5  kind update  reason planted" in operator.told("tasks", "show", TASK)
    assert operator.json("tasks", "show", TASK, "--last", 0)["last_set_aside"] == []
    assert versions_replayed(operator.bench.journal, TASK) == 2


def test_tasks_are_listed_and_shown(operator) -> None:
    (listed,) = operator.json("tasks", "list")
    assert (listed["task"], listed["paused"], listed["version"]) == (TASK, False, 2)
    assert (listed["accepted"], listed["waiting"]) == (5, 1)
    shown = operator.json("tasks", "show", TASK, "--last", 2)
    assert {name: shown[name] for name in listed} == listed
    assert [(each["number"], each["updates"], each["mean_loss"]) for each in shown["versions"]] == [
        (1, 2, 0.5),
        (2, 2, 0.5),
    ]
    header, line = operator.told("tasks", "list").splitlines()
    assert header.split() == ["TASK", "VERSION", "GENERATION", "WAITING", "ACCEPTED", "PAUSED", "BUNDLE"]
    assert line.split()[:6] == [TASK, "2", "0", "1", "5", "no"]
    assert "number 2" in operator.told("tasks", "show", TASK)


def test_task_is_paused_resumed_and_rolled_back_while_the_coordinator_runs(operator) -> None:
    device = SigningDevice("garden-pi")
    operator.bench.handle(device, device.enrolment())
    operator.bench.said()
    assert operator.json("tasks", "pause", TASK)[0]["paused"]
    operator.bench.handle(device, device.update(1))
    assert [receipt.reason for receipt in operator.bench.receipts()] == ["task_paused"]
    assert not operator.json("tasks", "resume", TASK)[0]["paused"]
    made = operator.json("tasks", "rollback", TASK, 1)
    assert (made["version"], made["restored"]) == (3, 1)
    operator.bench.coordinator.reload_if_changed()
    assert [manifest.version for manifest in operator.bench.manifests()] == [3]
    assert operator.json("tasks", "show", TASK)["versions"][-1]["restored"] == 1
    assert "already" in operator.refused("tasks", "rollback", TASK, 3)


def test_removed_task_that_is_renewed_is_not_shown_as_served(operator) -> None:
    assert operator.json("tasks", "remove", TASK) == {"task": TASK, "removed": True, "generation": 1}
    assert operator.json("tasks", "renew", TASK, "--after-generation", 4) == {
        "task": TASK,
        "removed": True,
        "generation": 5,
    }
    assert operator.json("tasks", "list") == []


def test_bundle_is_published_and_exported(operator, tmp_path) -> None:
    other = write_bundle(tmp_path / "other", task="roses")
    assert operator.json("tasks", "publish", tmp_path / "other")[0]["bundle"] == other.hash
    told = operator.json("tasks", "export", "roses", tmp_path / "roses.safetensors")
    zero = version_zero(other)
    assert (tmp_path / "roses.safetensors").read_bytes() == zero.weights
    assert told["bytes"] == len(zero.weights)
    changed = write_bundle(tmp_path / "other", task="roses", aggregation=AggregationPlan(buffer_size=7))
    (published,) = operator.json("tasks", "publish", tmp_path / "other")
    assert (published["bundle"], published["generation"], published["version"]) == (changed.hash, 1, 1)
    assert "serves no task 'tulips'; it serves roses, tiny" in operator.refused("tasks", "show", "tulips")


def test_device_is_shown_with_what_became_of_its_messages(operator) -> None:
    shown = operator.json("devices", "show", "kitchen-pi")
    assert (shown["state"], shown["accepted"], shown["refused"]) == ("approved", {TASK: 5}, {"out_of_bounds": 1})
    operator.json("devices", "revoke", "kitchen-pi")
    newcomer = SigningDevice("kitchen-pi")
    operator.json("devices", "approve", "kitchen-pi", bytes(newcomer.key.verify_key).hex())
    keys = operator.json("devices", "show", "kitchen-pi")["keys"]
    assert [key["state"] for key in keys] == ["revoked", "approved"]
    assert "kitchen-pi" in operator.told("devices", "show", "kitchen-pi")
    assert "devices list" in operator.refused("devices", "show", "attic-pi")


def test_password_comes_from_its_file_and_is_never_told(tmp_path) -> None:
    path = tmp_path / "coordinator.toml"
    text = CONFIGURATION.format("postgresql+psycopg://edgeflock@127.0.0.1:1/flock")
    path.write_text('database_password_file = "database.password"\n' + text)
    with pytest.raises(ConfigurationError, match=r"database\.password"):
        load_configuration(path).journal()
    (tmp_path / "database.password").write_text("s3cret\n")
    assert load_configuration(path).journal().password == "s3cret"
    with pytest.raises(ConfigurationError) as caught:
        Bench(load_configuration(path).journal(), None)
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("database", "complaint"),
    [
        ("postgresql+psycopg://edgeflock:s3cret@localhost/flock", "database_password_file"),
        ("mysql://localhost/flock", r"mysql://.*postgresql\+psycopg"),
        ("postgresql+psycopg://localhost:port/flock", "no URL"),
    ],
)
def test_database_of_another_kind_is_refused(tmp_path, database, complaint) -> None:
    path = tmp_path / "coordinator.toml"
    path.write_text(CONFIGURATION.format(database))
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_configuration(path).journal()
    assert "s3cret" not in str(caught.value)


def test_invitation_that_no_broker_takes_is_refused_with_what_to_compare(operator, tmp_path) -> None:
    port = free_port()
    text = operator.configuration.read_text().replace('host = "localhost"', f'host = "127.0.0.1"\nport = {port}')
    operator.configuration.write_text(text)
    assert cli.main(["keygen", str(tmp_path / "key")]) == 0
    said = operator.refused("tasks", "invite", TASK)
    assert f"broker 127.0.0.1:{port} did not take the invitation" in said
    assert "compare [broker]" in said
    assert "nowhere" in operator.refused("tasks", "invite", "nowhere")
