"""Prompts, styles, sounds, pictures and the report of synthesised data."""

import io
from importlib.metadata import EntryPoint

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.consumers.prompts import moments_of
from bundle_runtime.bundle import Bundle
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.training.prompts import prompts_of
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Prompts
from fleet_protocol.prompt_plan import PromptPlan
from prompt_synthesis import generators
from prompt_synthesis.generator import GeneratorError
from prompt_synthesis.generators import make_generator
from prompt_synthesis.progress import ProgressBar
from prompt_synthesis.prompt import Prompt, allotted, combined
from prompt_synthesis.sound import Place, recorded, resampled, trimmed
from prompt_synthesis.style import Style
from tests.support.prompts import CENTRES, bundle_with_prompts, stored

PLAN = PromptPlan(names=["ant", "bee", "cat", "dog"])
TWO = Prompts("class", bytes([4, 0, 4, 0]), "small")


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return bundle_with_prompts(tmp_path / "bundle", PLAN)


def test_prompts_of_all_devices_are_one_for_each_class_and_style(bundle):
    other = msgspec.structs.replace(TWO, style="large", magnitudes=bytes([20, 1, 0, 0]))
    found = combined({"a": (TWO, None), "b": (TWO, None), "c": (other, None)}, PLAN)
    assert [(each.word, each.style, each.devices) for each in found] == [
        ("ant", "large", 1),
        ("ant", "small", 2),
        ("bee", "large", 1),
        ("cat", "small", 2),
    ]


def test_device_counts_once_however_many_samples_it_claims(tmp_path):
    plan = PromptPlan("moments", largest_feature=2.0)
    task = bundle_with_prompts(tmp_path, plan).description
    told = {}
    for name, labels in (("few", [0] * 6), ("many", [0] * 600)):
        prompts = prompts_of(stored(labels), plan, PromptSettings(most="moments"), task)
        told[name] = (prompts, moments_of(prompts, task))
    (prompt,) = combined(told, plan)
    assert prompt.mixture.weights.tolist() == [0.5, 0.5]


@given(
    devices=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1000)), min_size=1, max_size=30),
    count=st.integers(1, 500),
)
def test_every_class_has_its_samples_however_many_prompts_speak_of_it(devices, count):
    prompts = [Prompt(label, "", str(place), number) for place, (label, number) in enumerate(devices)]
    numbers = allotted(prompts, count)
    for label in {prompt.label for prompt in prompts}:
        assert sum(n for n, prompt in zip(numbers, prompts, strict=True) if prompt.label == label) == count
    assert min(numbers) >= 0


def test_features_are_drawn_by_the_moments_that_devices_told(tmp_path):
    plan = PromptPlan("moments", largest_feature=2.0)
    task = bundle_with_prompts(tmp_path, plan).description
    prompts = prompts_of(stored([0] * 50 + [3] * 50), plan, PromptSettings(most="moments"), task)
    asked = combined({"a": (prompts, moments_of(prompts, task))}, plan)
    generator = make_generator("features", task)
    data = generator.generate(asked, 400, seed=1)
    assert data.features
    for label in (0, 3):
        drawn = data.inputs[data.labels == label]
        np.testing.assert_allclose(drawn.mean(axis=0), CENTRES[label], atol=0.05)
        assert drawn.std(axis=0).max() < 0.1
    assert (generator.generate(asked, 400, seed=1).inputs == data.inputs).all()


def test_features_of_devices_that_told_none_are_refused_in_words(bundle):
    with pytest.raises(GeneratorError, match="their owners allow the level class at most"):
        make_generator("features", bundle.description).generate([Prompt(0, "ant", "", 1)], 5, 0)


def test_generator_of_no_such_name_is_refused_with_those_there_are(bundle):
    with pytest.raises(ConfigurationError, match="name one of speech, glyphs, features, diffusers"):
        make_generator("nope", bundle.description)


@pytest.mark.parametrize("made", [None, {"generate": 1}])
def test_generator_that_a_package_does_not_make_is_refused_with_what_it_makes(bundle, monkeypatch, made):
    brought = EntryPoint("birds", "my_package.birds:make", generators.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: lambda _task, _argument: made)
    monkeypatch.setattr(generators, "entry_points", lambda group: [brought])
    with pytest.raises(ConfigurationError, match=rf"'birds' \(my_package.birds:make\) makes a {type(made).__name__},"):
        make_generator("birds", bundle.description)


@given(st.text(max_size=160))
def test_style_of_a_stranger_gives_bounded_numbers_and_known_names_alone(words):
    style = Style(words)
    generator = np.random.default_rng(0)
    assert 0 <= style.around("pitch", (0, 99), 10, generator) <= 99
    assert style.name("voice", ["slt"]) in (None, "slt")


@pytest.mark.parametrize(
    ("words", "number"),
    [("pitch=20", 20), ("pitch=1e999", None), ("pitch=nan", None), ("pitch=-7", 0), ("pitch=low", 25), ("pitch", None)],
)
def test_number_in_a_style_is_cut_to_its_limits(words, number):
    assert Style(words).number("pitch", 0, 99, {"low": 25.0}) == number


def test_silence_around_a_word_is_cut_off_and_silence_alone_is_left():
    quiet = np.full(10, 0.001)
    assert trimmed(np.concatenate([quiet, [0.03, -0.001, -1.0], quiet])).tolist() == [0.03, -0.001, -1.0]
    assert trimmed(np.zeros(10)).size == 10


@given(
    length=st.integers(2, 400), room=st.floats(0, 0.4), noise=st.floats(5, 50), band=st.sampled_from([2000.0, 8000.0])
)
def test_recorded_sound_has_its_length_and_fits_a_sample(length, room, noise, band):
    speech = np.sin(np.arange(length) / 3)
    place = Place(room, noise, band, 1.1)
    heard = recorded(speech, 8_000, place, length=1_600, wanted_hz=16_000, generator=np.random.default_rng(1))
    assert heard.shape == (1_600,)
    assert np.abs(heard).max() <= 1


def test_silence_stays_without_numbers_that_are_none():
    heard = recorded(
        np.zeros(100), 8_000, Place(0.1, 20, 8_000), length=800, wanted_hz=8_000, generator=np.random.default_rng(1)
    )
    assert np.isfinite(heard).all()


def test_narrow_band_holds_hardly_any_high_frequencies():
    speech = np.random.default_rng(0).standard_normal(8_000)
    heard = recorded(
        speech, 16_000, Place(0.0, 40, 8_000), length=16_000, wanted_hz=16_000, generator=np.random.default_rng(1)
    )
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.square(spectrum[4_100:]).sum() < 0.001 * np.square(spectrum).sum()


def test_tone_keeps_its_pitch_at_another_rate():
    tone = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    assert np.abs(np.fft.rfft(resampled(tone, 8_000, 16_000))).argmax() == 440


def test_progress_is_a_line_for_each_tenth_where_there_is_no_terminal():
    out = io.StringIO()
    bar = ProgressBar("data", 100, out)
    for done in range(101):
        bar.show(done)
    assert out.getvalue().splitlines()[-1] == "data: 100 of 100"
    assert len(out.getvalue().splitlines()) == 11
