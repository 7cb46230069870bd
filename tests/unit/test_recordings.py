"""Recordings of words as a fleet's data: one speaker a device, nothing held out that is trained on, hostile files."""

import wave
from pathlib import Path

import numpy as np
import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.data.recordings import Recording, one_speaker_each, ordered_words, read_recordings, speakers_of
from workbench.data.voices import DIGITS, MOST_SPEAKERS, TAKES, planned

RATE = 8_000


def write(file: Path, sound: np.ndarray, *, channels: int = 1, size: int = 2) -> None:
    with wave.open(str(file), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(size)
        out.setframerate(RATE)
        out.writeframes(sound.tobytes())


def recordings(speakers: int, takes: int, words: tuple[str, ...] = DIGITS) -> list[Recording]:
    """Each has a sound of its own: the numbers of speaker, word and take as a constant."""
    return [
        Recording(word, f"s{speaker}", take, np.full(16_000, 1000 * speaker + 20 * label + take, np.int16), 16_000)
        for speaker in range(speakers)
        for label, word in enumerate(words)
        for take in range(takes)
    ]


def test_files_are_read_with_what_their_names_say(tmp_path):
    write(tmp_path / "seven_anna_3.wav", np.arange(100, dtype="<i2"))
    write(tmp_path / "two_bert_12.wav", np.array([[1, 3], [5, 7]], "<i2"), channels=2)
    one, other = read_recordings(tmp_path)
    assert (one.word, one.speaker, one.take, one.rate_hz) == ("seven", "anna", 3, RATE)
    assert one.sound.tolist() == list(range(100))
    assert (other.take, other.sound.tolist()) == (12, [2, 6]), "the mean of both channels"
    assert speakers_of([one, other]) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("seven.wav", b"", "call it WORD_SPEAKER_TAKE.wav"),
        ("se_ven_anna_3.wav", b"", "call it WORD_SPEAKER_TAKE.wav"),
        ("seven_anna_x.wav", b"", "call it WORD_SPEAKER_TAKE.wav"),
        ("seven_anna_3.wav", b"", "no WAV file of PCM: it ends too early"),
        ("seven_anna_3.wav", b"RIFF\xff\xff\xff\xffWAVE", "no WAV file of PCM"),
        ("seven_anna_3.wav", b"\x00" * 400, "no WAV file of PCM"),
        ("seven_anna_3.mp3", b"", "holds no WAV file"),
    ],
)
def test_file_that_is_no_recording_is_told_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        read_recordings(tmp_path)


@pytest.mark.parametrize(
    ("sound", "size", "rate", "words"),
    [
        (
            np.zeros(0, "<i2"),
            2,
            RATE,
            "0 values of 16 bits at 8000 Hz; a recording has 16 bits, 4 to 192 kHz, and at most",
        ),
        (np.zeros(11 * RATE, "<i2"), 2, RATE, "88000 values of 16 bits"),
        (np.zeros(100, "u1"), 1, RATE, "100 values of 8 bits"),
        (np.zeros(100, "<i4"), 4, RATE, "100 values of 32 bits"),
        (np.zeros(100, "<i2"), 2, 0, "at 0 Hz"),
        (np.zeros(100, "<i2"), 2, 2**32 - 1, "at 4294967295 Hz"),
    ],
)
def test_sound_of_another_size_rate_or_length_is_refused_with_what_a_recording_has(tmp_path, sound, size, rate, words):
    write(tmp_path / "seven_anna_3.wav", sound, size=size)
    with (tmp_path / "seven_anna_3.wav").open("r+b") as file:
        file.seek(24)  # of the header
        file.write(rate.to_bytes(4, "little"))
    with pytest.raises(ConfigurationError, match=words):
        read_recordings(tmp_path)


def test_folder_that_is_not_there_holds_no_recordings(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no WAV file"):
        read_recordings(tmp_path / "nowhere")


def test_each_device_has_one_speaker_and_what_is_held_out_is_trained_on_by_nobody():
    data = one_speaker_each(recordings(3, 6), 3)
    speakers = [np.unique(np.round(part.inputs[:, 0] * 32_768) // 1000).tolist() for part in data.parts]
    assert speakers == [[0], [1], [2]]
    assert [len(part) for part in data.parts] == [40, 40, 40], "four of six takes of ten words"
    assert len(data.held_out) == 60
    trained, tested = ({values.tobytes() for values in part.inputs} for part in (data.pooled, data.held_out))
    assert not trained & tested
    for part in (*data.parts, data.held_out):
        assert set(part.labels.tolist()) == set(range(10))


def test_devices_get_as_many_recordings_as_the_poorest_speaker_has_and_all_words():
    rich, poor = recordings(2, 6)[:60], recordings(2, 3)[30:]
    parts = one_speaker_each([*rich, *poor], 2).parts
    assert [len(part) for part in parts] == [20, 20]
    assert set(parts[0].labels.tolist()) == set(range(10))


def test_words_are_digits_in_their_order_and_others_by_the_alphabet():
    assert ordered_words(recordings(1, 1, ("stop", "one", "zero", "go"))) == ["zero", "one", "go", "stop"]


@pytest.mark.parametrize(
    ("given", "devices", "words"),
    [
        (recordings(2, 3, DIGITS[:9]), 2, "9 different words .*tells 10 apart"),
        (recordings(2, 3), 3, "--agents 3: there are recordings of 2 speakers"),
        (recordings(2, 1), 2, "s0 has at most one take of each word"),
    ],
)
def test_recordings_that_make_no_fleet_are_refused_with_what_to_change(given, devices, words):
    with pytest.raises(ConfigurationError, match=words):
        one_speaker_each(given, devices)


def test_voices_are_as_many_as_agents_may_be_and_no_two_alike():
    takes = planned(64, np.random.default_rng(0))
    assert MOST_SPEAKERS >= 64
    assert len({take.voice.name for take in takes}) == 64
    assert len(takes) == 64 * len(DIGITS) * TAKES
    assert all(0 <= take.voice.pitch <= 99 and 80 <= take.voice.speed <= 450 for take in takes)
