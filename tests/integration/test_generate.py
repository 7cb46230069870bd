"""`broker-coordinator generate`: what it answers and publishes, and how it goes on where it was."""

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from broker_coordinator import cli
from broker_coordinator.configuration import load_configuration
from broker_coordinator.consumers.prompts import moments_of
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.training.prompts import prompts_of
from edge_agent.training.stored_samples import StoredSamples
from fleet_protocol.keys import write_signing_key
from fleet_protocol.kinds import PROMPTS, encode_payload
from fleet_protocol.prompt_plan import PromptPlan
from prompt_synthesis import worker
from prompt_synthesis.__main__ import main
from prompt_synthesis.folder_lock import alone_in
from prompt_synthesis.generators import make_generator
from prompt_synthesis.replay import replay
from prompt_synthesis.told_prompts import told_prompts
from tests.support.agent import copy_digits_bundle
from tests.support.bench import KEY, OPEN, Bench
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET
from tests.support.process import environment
from tests.support.waiting import until
from workbench.data.digits import read_digits

DEVICE = SigningDevice("kitchen-pi")
MOMENTS = PromptPlan("moments")


class Server:
    """A coordinator's folder, whose one device has told what it has of the digits."""

    def __init__(self, folder: Path, *, tells: bool = True) -> None:
        self.folder = folder
        copy_digits_bundle(folder / "bundle", prompts=MOMENTS, buffer_size=1)
        self.bench = Bench(folder / "coordinator.db", load_bundle(folder / "bundle"), replace(OPEN, keys=(KEY,)))
        self.configuration = folder / "coordinator.toml"
        key = folder / "coordinator.key"
        key.touch(mode=0o600)
        key.write_text(write_signing_key(KEY))
        self.configuration.write_text(
            f'fleet = "{FLEET}"\nkey_file = "coordinator.key"\ndatabase = "coordinator.db"\n[broker]\nhost = "x"\n'
        )
        self.bench.handle(DEVICE, DEVICE.enrolment())
        if tells:
            self.tell(slice(0, 1400))

    def tell(self, rows: slice, sequence: int = 1) -> None:
        """The device tells prompts of these samples."""
        samples = read_digits().take(rows)
        stored = StoredSamples(samples, samples.take(slice(0, 0)), len(samples), len(samples))
        prompts = prompts_of(stored, MOMENTS, PromptSettings(most="moments"), self.bench.description)
        assert moments_of(prompts, self.bench.description) is not None
        told = DEVICE.sign(PROMPTS, encode_payload(prompts), sequence=sequence, task="digits")
        self.bench.handle(DEVICE, told)
        self.bench.make_versions()

    def train(self, base_version: int, sequence: int) -> None:
        """The device's update makes the next version."""
        shapes = self.bench.description.trained_shapes
        update = DEVICE.update(sequence, task="digits", base_version=base_version, shapes=shapes)
        self.bench.handle(DEVICE, update)
        self.bench.make_versions()

    def ask(self, capsys, monkeypatch, *options: str) -> dict | str:
        """What `generate` answers, in this process."""
        status = main(self._job(monkeypatch, *options))
        out, err = capsys.readouterr()
        return json.loads(out) if status == 0 else err

    def start(self, monkeypatch, *options: str) -> "subprocess.Popen[bytes]":
        """The process that `generate` starts."""
        command = [sys.executable, "-P", "-m", "prompt_synthesis", *self._job(monkeypatch, *options)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment())

    def _job(self, monkeypatch, *options: str) -> list[str]:
        jobs = []
        started = "broker_coordinator.commands.generate.bound"
        monkeypatch.setattr(started, lambda command: jobs.append(command) or ["true"])
        assert cli.main(["generate", "--config", str(self.configuration), "digits", *options, "--json"]) == 0
        return jobs[0][-2:]


def test_features_that_a_device_told_of_make_a_version_that_knows_real_digits(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    told = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "100")
    assert (told["version"], told["failed_parts"], told["classes_without_data"]) == (1, 0, "")
    assert told["accuracy_on_synthetic"] > 0.9
    assert accuracy_on_real(server) > 0.8
    again = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "100")
    assert again["version"] == 2


def test_prompts_that_were_told_of_other_classes_are_left_out_and_said(tmp_path, caplog):
    server = Server(tmp_path)
    task, keys = server.bench.description, load_configuration(server.configuration).keys()
    assert list(told_prompts(server.bench.journal, task, keys)) == [DEVICE.name]
    label = msgspec.structs.replace(task.label, classes=12)
    assert told_prompts(server.bench.journal, msgspec.structs.replace(task, label=label), keys) == {}
    assert "prompts of 10 classes; digits has 12" in caplog.text


def accuracy_on_real(server: Server) -> float:
    bundle = load_bundle(server.folder / "bundle")
    weights = server.bench.journal.newest_version("digits").state(bundle.description.parameters, {}).weights
    return (
        BundleRunner(bundle.description, bundle.files).evaluate(weights, read_digits().take(slice(1400, None))).accuracy
    )


def test_one_command_replays_behind_the_fleets_own_version(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)

    def fleet_makes_one() -> None:
        bench = server.bench
        until(lambda: bench.journal.newest_number("digits") == 1, "there is a version to train from")
        shapes = bench.description.trained_shapes
        bench.handle(DEVICE, DEVICE.update(2, task="digits", base_version=1, shapes=shapes))
        bench.make_versions()

    fleet = threading.Thread(target=fleet_makes_one)
    fleet.start()
    options = ("--count", "20", "--epochs", "2", "--replays", "1")
    told = server.ask(capsys, monkeypatch, str(tmp_path / "data"), *options)
    fleet.join()
    assert (told["version"], told["replays"]) == (1, "3")
    assert [each.given is None for each in server.bench.journal.overview.version_summaries("digits", 9)] == [
        True,
        False,
        True,
        False,
    ]


def test_command_that_was_killed_goes_on_behind_what_it_has_published(tmp_path, capsys, monkeypatch):
    """Killed behind its first version, and behind its first replay: each is published once."""
    server, data = Server(tmp_path), str(tmp_path / "data")
    options = ("--count", "20", "--epochs", "2", "--replays", "2")

    def fleet_makes_one(sequence: int, base: int) -> None:
        shapes = server.bench.description.trained_shapes
        server.bench.handle(DEVICE, DEVICE.update(sequence, task="digits", base_version=base, shapes=shapes))
        server.bench.make_versions()

    class KilledError(BaseException):
        pass

    def killed(*_arguments: object, **_named: object) -> list[int]:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(worker, "replay", killed)
        server.ask(capsys, monkeypatch, data, *options)
    fleet_makes_one(2, 1)
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(worker, "replay", partial(replay_and_die, killed))
        server.ask(capsys, monkeypatch, data, *options)
    fleet_makes_one(3, 3)
    told = server.ask(capsys, monkeypatch, data, *options)
    assert (told["version"], told["replays"], told["accuracy_on_synthetic"] > 0.5) == (1, "3,5", True)
    assert server.bench.journal.newest_number("digits") == 5
    again = server.ask(capsys, monkeypatch, data, *options[:-1], "0")
    assert (again["version"], again["replays"]) == (6, ""), "another command begins anew"
    assert server.ask(capsys, monkeypatch, data, *options[:-1], "0")["version"] == 7, "and so does one that had ended"


def test_killed_command_goes_on_with_its_data_where_devices_tell_other_prompts_by_now(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    options = (str(tmp_path / "data"), "--count", "20", "--epochs", "2", "--replays", "1")
    with server.start(monkeypatch, *options) as killed:
        until(lambda: server.bench.journal.newest_number("digits") == 1, "its first version is there")
        killed.kill()
    server.tell(slice(0, 300), sequence=2)
    server.train(1, sequence=3)
    told = server.ask(capsys, monkeypatch, *options)
    assert (told["version"], told["replays"]) == (1, "3")
    assert "devices tell other prompts since it was made" in server.ask(capsys, monkeypatch, *options), "it had ended"


def replay_and_die(killed, journal, task, after, replays, **rest) -> list[int]:
    replay(journal, task, after, 1, **rest)
    return killed()


def test_data_alone_publishes_nothing(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    told = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "3", "--data-only")
    assert "version" not in told
    assert server.bench.journal.newest_number("digits") == 0
    assert "30 samples by the generator features" in Path(told["report"]).read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--generator", "nope"], "there is no generator 'nope'"),
        (["--generator", "speech"], "the generator speech makes sound"),
        (["--count", "5", "--seed", "1"], "made with seed 0, not features with seed 1"),
    ],
)
def test_what_can_not_be_generated_is_said_in_words(tmp_path, capsys, monkeypatch, options, words):
    server = Server(tmp_path)
    server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "5", "--data-only")
    assert words in server.ask(capsys, monkeypatch, str(tmp_path / "data"), *options)


def test_second_command_in_the_same_folder_is_refused_while_the_first_is_at_work(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    with alone_in(tmp_path / "data"):
        said = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "5", "--data-only")
        assert "data is in use by another generate; wait until that ends" in said
    assert server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "5", "--data-only")["samples"] == 50


def test_generator_that_prints_and_changes_the_folder_spoils_no_answer(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    usual = make_generator("features", server.bench.description)

    class Loud:
        def generate(self, prompts, count, seed):
            os.chdir(tmp_path / "elsewhere")
            sys.stdout.write("loading...\n")
            return usual.generate(prompts, count, seed)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "make_generator", lambda *_: Loud())
    assert server.ask(capsys, monkeypatch, "data", "--count", "5", "--data-only")["samples"] == 50
    assert (tmp_path / "data" / "report.html").exists()


def test_report_that_has_no_room_is_said_with_the_remedy(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)

    def full(*_arguments: object) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(worker, "write_report", full)
    said = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "5", "--data-only")
    assert "No space left on device; make room on that disk" in said


def test_fleet_that_has_told_nothing_is_said(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path, tells=False)
    assert "no device has told a prompt for digits" in server.ask(capsys, monkeypatch, str(tmp_path / "data"))


def test_task_that_asks_for_none_is_said(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path, tells=False)
    copy_digits_bundle(tmp_path / "other")
    TaskRegistry(server.bench.journal.engine).publish(load_bundle(tmp_path / "other"))
    assert "asks its devices for no prompts" in server.ask(capsys, monkeypatch, str(tmp_path / "data"))
