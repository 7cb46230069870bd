"""`broker-coordinator generate` and the generators that need programs or fonts of this machine."""

import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_coordinator import cli
from broker_coordinator.consumers.prompts import moments_of
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.training.prompts import prompts_of
from edge_agent.training.stored_samples import StoredSamples
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_signing_key
from fleet_protocol.kinds import PROMPTS, encode_payload
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis import worker
from prompt_synthesis.__main__ import main
from prompt_synthesis.generator import GeneratorError
from prompt_synthesis.generators import make_generator
from prompt_synthesis.prompt import Prompt
from prompt_synthesis.replay import replay
from prompt_synthesis.speech_programs import ESPEAK_VARIANTS, Voice, espeak_voice, spoken
from tests.support.agent import copy_digits_bundle
from tests.support.bench import KEY, OPEN, Bench
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET
from tests.support.waiting import until
from workbench.data.digits import read_digits

DEVICE = SigningDevice("kitchen-pi")
MOMENTS = PromptPlan("moments")


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    return copy_digits_bundle(tmp_path / "digits", prompts=PromptPlan(names=list("0123456789"))).description


def of_shape(task: TaskDescription, shape: list[int], least: float = -1.0) -> TaskDescription:
    return msgspec.structs.replace(task, input=InputSchema(shape, least, 1.0))


def test_words_are_said_in_the_voice_of_the_style_the_same_for_the_same_seed(task):
    speech = make_generator("speech", of_shape(task, [16_000]))
    prompts = [Prompt(3, "three", "voice=slt band=8000", 1), Prompt(7, "seven", "voice=en-gb", 1)]
    data = speech.generate(prompts, 3, seed=5)
    assert data.inputs.shape == (6, 16_000)
    assert data.labels.tolist() == [3, 3, 3, 7, 7, 7]
    assert all("flite slt" in origin for origin in data.origins[:3])
    assert all("espeak-ng en-gb, pitch" in origin for origin in data.origins[3:])
    again = make_generator("speech", of_shape(task, [16_000])).generate(prompts, 3, seed=5)
    assert again.inputs.tobytes() == data.inputs.tobytes()


def test_no_variant_is_named_of_a_language_whose_voice_it_does_not_change():
    assert {espeak_voice("en-gb", variant) for variant in ESPEAK_VARIANTS} == {"en-gb"}
    as_it_is, with_variant = (spoken("oh", Voice(name, 50, 160)) for name in ("en-gb", "en-gb+f1"))
    assert np.array_equal(as_it_is[0], with_variant[0])


def test_higher_voice_is_higher():
    low, high = (spoken("oh", Voice("en-us+m1", pitch, 160)) for pitch in (10, 90))
    assert strongest_hz(*low) < strongest_hz(*high)


def strongest_hz(sound, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound))[: 400 * len(sound) // rate_hz]
    return float((np.arange(len(spectrum)) * spectrum).sum() / spectrum.sum())


@pytest.mark.parametrize("word", ["", "a\x1b[2Jb", "x" * 201])
def test_what_is_nothing_to_say_is_refused_in_words(word):
    with pytest.raises(GeneratorError, match=r"nothing to say|does not say"):
        spoken(word, Voice("en-us+m1", 50, 160))


@pytest.mark.parametrize("word", ["--version", "-w /tmp/x", "$(id)", "<mark>", "`id`; id", "@/etc/passwd"])
def test_word_that_looks_like_an_option_is_said_as_it_stands(word):
    for name in ("en-us+m1", "slt"):
        sound, _ = spoken(word, Voice(name, 50, 160))
        assert np.abs(sound).max() > 0.01


def test_programs_that_are_missing_are_named_with_what_brings_them(task, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="apt-get install espeak-ng flite"):
        make_generator("speech", of_shape(task, [16_000]))
    with pytest.raises(GeneratorError, match="flite does not say"):
        spoken("one", Voice("slt", 50, 160))


def test_generator_that_does_not_fit_the_task_is_refused_with_what_the_task_takes(task):
    with pytest.raises(ConfigurationError, match=r"makes sound .* digits takes \[64\]"):
        make_generator("speech", task)
    with pytest.raises(ConfigurationError, match=r"draws grey pictures .* digits takes \[3, 8, 8\]"):
        make_generator("glyphs", of_shape(task, [3, 8, 8], 0.0))


@pytest.mark.parametrize("shape", [[64], [8, 8], [1, 28, 28], [20, 30]])
def test_signs_are_drawn_within_the_bounds_of_the_task(task, shape):
    glyphs = make_generator("glyphs", of_shape(task, shape, 0.0))
    data = glyphs.generate([Prompt(0, "A", "font=serif weight=bold", 1), Prompt(1, "I", "", 1)], 4, seed=1)
    assert data.inputs.shape == (8, *shape)
    assert 0 <= data.inputs.min() < 0.2
    assert 0.8 < data.inputs.max() <= 1
    assert all("Bold" in origin for origin in data.origins[:4])
    assert (
        data.inputs.tobytes()
        == glyphs.generate(
            [Prompt(0, "A", "font=serif weight=bold", 1), Prompt(1, "I", "", 1)], 4, seed=1
        ).inputs.tobytes()
    )


@pytest.mark.parametrize("word", ["", "A" * 13, "\n", "  "])
def test_sign_that_no_font_draws_is_refused_in_words(task, word):
    with pytest.raises(GeneratorError, match="no font here draws"):
        make_generator("glyphs", of_shape(task, [1, 8, 8], 0.0)).generate([Prompt(0, word, "", 1)], 4, seed=1)


def test_machine_without_fonts_is_told_what_brings_them(task, monkeypatch, tmp_path):
    monkeypatch.setattr("prompt_synthesis.generators.glyphs.FONT_FOLDER", tmp_path)
    with pytest.raises(ConfigurationError, match="apt-get install fonts-dejavu"):
        make_generator("glyphs", of_shape(task, [1, 8, 8], 0.0))


class Server:
    """A coordinator's folder, whose one device has told what it has of the digits."""

    def __init__(self, folder: Path, *, tells: bool = True) -> None:
        self.folder = folder
        bundle = copy_digits_bundle(folder / "bundle", prompts=MOMENTS, buffer_size=1)
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
            samples = read_digits().take(slice(0, 1400))
            stored = StoredSamples(samples, samples.take(slice(0, 0)), len(samples), len(samples))
            prompts = prompts_of(stored, MOMENTS, PromptSettings(most="moments"), bundle.description)
            assert moments_of(prompts, bundle.description) is not None
            self.bench.handle(DEVICE, DEVICE.sign(PROMPTS, encode_payload(prompts), task="digits"))
            self.bench.make_versions()

    def ask(self, capsys, monkeypatch, *options: str) -> dict | str:
        """What `generate` answers, in this process."""
        jobs = []
        started = "broker_coordinator.commands.generate.bound"
        monkeypatch.setattr(started, lambda command: jobs.append(command) or ["true"])
        assert cli.main(["generate", "--config", str(self.configuration), "digits", *options, "--json"]) == 0
        status = main(jobs[0][-2:])
        out, err = capsys.readouterr()
        return json.loads(out) if status == 0 else err


def test_features_that_a_device_told_of_make_a_version_that_knows_real_digits(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path)
    told = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "100")
    assert (told["version"], told["failed_prompts"], told["classes_without_data"]) == (1, 0, "")
    assert told["accuracy_on_synthetic"] > 0.9
    assert accuracy_on_real(server) > 0.8
    again = server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "100")
    assert again["version"] == 2


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
        (["--count", "5", "--seed", "1"], "holds data of other prompts"),
    ],
)
def test_what_can_not_be_generated_is_said_in_words(tmp_path, capsys, monkeypatch, options, words):
    server = Server(tmp_path)
    server.ask(capsys, monkeypatch, str(tmp_path / "data"), "--count", "5", "--data-only")
    assert words in server.ask(capsys, monkeypatch, str(tmp_path / "data"), *options)


def test_fleet_that_has_told_nothing_is_said(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path, tells=False)
    assert "no device has told a prompt for digits" in server.ask(capsys, monkeypatch, str(tmp_path / "data"))


def test_task_that_asks_for_none_is_said(tmp_path, capsys, monkeypatch):
    server = Server(tmp_path, tells=False)
    copy_digits_bundle(tmp_path / "other")
    TaskRegistry(server.bench.journal.engine).publish(load_bundle(tmp_path / "other"))
    assert "asks its devices for no prompts" in server.ask(capsys, monkeypatch, str(tmp_path / "data"))
