"""Which demo the options ask for, and what is said where there is none."""

from pathlib import Path

import numpy as np
import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.demo import demo_kind
from workbench.demo.demo_kind import GAN, PLAIN, SPLIT, chosen


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": True, "speech": True, "recordings": None}, "--split and --speech are 2 demos"),
        (
            {"split": True, "speech": True, "gan": True, "recordings": None},
            "--split and --speech and --gan are 3 demos",
        ),
        ({"split": False, "speech": False, "gan": True, "recordings": Path()}, "--data-dir is for --speech"),
        ({"split": False, "speech": False, "recordings": Path()}, "--data-dir is for --speech"),
        ({"split": True, "speech": False, "recordings": Path()}, "--data-dir is for --speech"),
    ],
)
def test_options_that_contradict_each_other_are_told(options, words):
    with pytest.raises(ConfigurationError, match=words):
        chosen(**options)


def test_each_option_has_its_demo_and_its_usual_number_of_agents():
    assert chosen(split=False, speech=False, recordings=None) == (PLAIN, 8)
    assert chosen(split=True, speech=False, recordings=None) == (SPLIT, 6)
    assert chosen(split=False, speech=False, gan=True, recordings=None) == (GAN, 6)


def test_speech_without_its_bundle_says_how_to_make_it(monkeypatch):
    def missing(task: str) -> Path:
        raise ConfigurationError(f"{task}: has no bundle")

    monkeypatch.setattr(demo_kind, "find_bundle", missing)
    with pytest.raises(ConfigurationError, match="fetch it and run this demo with: make demo-speech"):
        chosen(split=False, speech=True, recordings=None)


def test_speech_says_who_spoke_and_wakes_no_agent_before_it_has_all_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_kind, "find_bundle", lambda _: tmp_path)
    kind, agents = chosen(split=False, speech=True, recordings=None)
    assert (agents, kind.speaks_once, kind.subject.learned) == (8, True, "tell 10 spoken words apart")
    assert "espeak-ng, a synthesiser" in kind.subject.source
    with pytest.raises(ConfigurationError, match="holds no WAV file"):
        chosen(split=False, speech=True, recordings=tmp_path)


def test_recordings_that_are_gone_when_the_run_begins_are_told(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no WAV file"):
        demo_kind.speech_of(tmp_path / "gone").data(2, np.random.default_rng(0))
