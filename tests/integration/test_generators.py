"""The generators that need programs or fonts of this machine."""

import os

import msgspec
import numpy as np
import pytest

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis import speech_programs
from prompt_synthesis.generator import GeneratorError
from prompt_synthesis.generators import make_generator
from prompt_synthesis.generators.speech import MOST_HANGS
from prompt_synthesis.prompt import Prompt
from prompt_synthesis.speech_programs import ESPEAK_VARIANTS, Voice, espeak_voice, spoken
from tests.support.agent import copy_digits_bundle


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


def test_program_that_hangs_is_waited_for_three_times_and_the_other_goes_on(task, tmp_path, monkeypatch):
    calls, flite = tmp_path / "calls", tmp_path / "flite"
    flite.write_text(f"#!/bin/sh\necho >> {calls}\nexec sleep 60\n")
    flite.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(speech_programs, "LONGEST_SECONDS", 2.0)  # a busy machine starts the other in less
    speech = make_generator("speech", of_shape(task, [16_000]))
    data = speech.generate([Prompt(3, "three", "", 1)], 20, seed=5)
    assert 0 < len(data.labels) < 20
    assert all("espeak-ng" in origin for origin in data.origins)
    assert len(calls.read_text().splitlines()) == MOST_HANGS
    with pytest.raises(GeneratorError, match="flite is not asked for 'three' any more: it has hung 3 times"):
        speech.generate([Prompt(3, "three", "voice=slt", 1)], 5, seed=5)


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


@pytest.mark.parametrize("word", ["", "A" * 13, "\n", "  ", "漢", "A漢"])
def test_sign_that_no_font_draws_is_refused_in_words(task, word):
    with pytest.raises(GeneratorError, match="no font here draws"):
        make_generator("glyphs", of_shape(task, [1, 8, 8], 0.0)).generate([Prompt(0, word, "", 1)], 4, seed=1)


def test_machine_without_fonts_is_told_what_brings_them(task, monkeypatch, tmp_path):
    monkeypatch.setattr("prompt_synthesis.generators.glyphs.FONT_FOLDER", tmp_path)
    with pytest.raises(ConfigurationError, match="apt-get install fonts-dejavu"):
        make_generator("glyphs", of_shape(task, [1, 8, 8], 0.0))
