"""Digits said by espeak-ng, as `edgeflock demo --speech` has them."""

import numpy as np
import pytest

from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.speech_programs import ESPEAK, Voice
from workbench.data import voices
from workbench.data.recordings import DIGITS
from workbench.data.voices import MOST_SPEAKERS, Take, planned, recording_of, speak_digits


def test_every_speaker_says_every_digit_the_same_for_the_same_seed(monkeypatch):
    monkeypatch.setattr(voices, "TAKES", 1)
    said = speak_digits(2, np.random.default_rng(3))
    assert [(each.speaker, each.word) for each in said] == [
        (f"voice{number:02}", word) for number in range(2) for word in DIGITS
    ]
    assert all(0.15 < len(each.sound) / each.rate_hz < 1.5 for each in said)
    assert all(np.abs(each.sound.astype(int)).max() > 3_000 for each in said)
    again = speak_digits(2, np.random.default_rng(3))
    assert all(np.array_equal(one.sound, other.sound) for one, other in zip(said, again, strict=True))


def test_no_two_speakers_sound_alike_where_pitch_and_pace_are_the_same():
    """The program takes a voice that it does not have for another one, and does not tell."""
    of_each_speaker = planned(MOST_SPEAKERS, np.random.default_rng(0))[:: len(DIGITS) * voices.TAKES]
    names = [take.voice.name for take in of_each_speaker]
    takes = [Take("seven", f"anna{number}", 0, Voice(name, 50, 150), 0.0) for number, name in enumerate(names)]
    assert len({recording_of(take, 0).sound.tobytes() for take in takes}) == MOST_SPEAKERS


def test_where_espeak_is_missing_or_fails_the_remedy_is_named_and_flite_is_not_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"sudo apt-get install espeak-ng; recordings .* --data-dir"):
        speak_digits(1, np.random.default_rng(0))
    program = tmp_path / ESPEAK
    program.write_text("#!/bin/sh\necho no sound today >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"espeak-ng does not say 'zero': no sound today; .*--data-dir FOLDER"):
        speak_digits(1, np.random.default_rng(0))


def test_more_speakers_than_there_are_voices_are_refused():
    with pytest.raises(ConfigurationError, match="--agents 66: espeak-ng has 65 voices"):
        speak_digits(66, np.random.default_rng(0))
