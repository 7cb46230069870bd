"""Recordings of spoken words as a fleet's data: each device has one speaker's, and some takes of each are held out.

A recording is a WAV file, int16, that is called WORD_SPEAKER_TAKE.wav, such as `7_jackson_32.wav`: so the Free Spoken
Digit Dataset (CC BY-SA 4.0) is named.
"""

import re
import runpy
import wave
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from fleet_protocol.errors import ConfigurationError, why_unreadable
from workbench.data.digits import FleetData
from workbench.recipe_folder import find_recipe

RECIPE = "speech_commands"
WORDS = 10
"""That the recipe tells apart."""
MOST_TAKES = 10
"""Of a word by a speaker: more would only make a demo longer."""
HELD_OUT_EVERY = 5
"""Of the takes of each word and speaker."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(?P<word>[^_]+)_(?P<speaker>[^_]+)_(?P<take>[0-9]{1,9})")
RATES_HZ = range(4_000, 192_001)
LONGEST_SECONDS = 10.0
"""Of a recording: what is longer is no spoken word."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One word, said once: `sound` int16[N] at `rate_hz`."""

    word: str
    speaker: str
    take: int
    sound: NDArray[np.int16]
    rate_hz: int


def read_recordings(folder: Path) -> list[Recording]:
    """All WAV files of a folder, in the order of their names.

    Raises:
        ConfigurationError: there is none, or one is called otherwise or can't be read.
    """
    files = sorted(folder.glob("*.wav"))
    if not files:
        raise ConfigurationError(f"--data-dir {folder}: holds no WAV file; name a folder of WORD_SPEAKER_TAKE.wav")
    return [_read(file) for file in files]


def _read(file: Path) -> Recording:
    named = NAME.fullmatch(file.stem)
    if named is None:
        raise ConfigurationError(f"{file}: call it WORD_SPEAKER_TAKE.wav, such as seven_anna_3.wav")
    return Recording(named["word"], named["speaker"], int(named["take"]), *_read_sound(file))


def _read_sound(file: Path) -> tuple[NDArray[np.int16], int]:
    """The sound of a WAV file, int16[N], the mean of its channels, and its rate in Hz.

    Raises:
        ConfigurationError: it is none, is empty or too long, or has numbers of another size.
    """
    try:
        with wave.open(str(file)) as source:
            channels, size, rate, frames = source.getparams()[:4]
            if size != 2 or rate not in RATES_HZ or not 0 < frames <= LONGEST_SECONDS * rate:
                raise ConfigurationError(
                    f"{file}: {frames} values of {8 * size} bits at {rate} Hz; a recording has 16 bits, 4 to 192 kHz,"
                    f" and at most {LONGEST_SECONDS:g} s"
                )
            sound = np.frombuffer(source.readframes(frames), "<i2")
    except OSError as error:
        raise ConfigurationError(f"{file}: {why_unreadable(error, 'name a file that exists')}") from error
    except EOFError as error:
        raise ConfigurationError(f"{file}: no WAV file of PCM: it ends too early") from error
    except wave.Error as error:
        raise ConfigurationError(f"{file}: no WAV file of PCM: {error}") from error
    whole = sound[: sound.size // channels * channels].reshape(-1, channels)
    if not len(whole):
        raise ConfigurationError(f"{file}: holds no sound")
    return whole.mean(axis=1).astype(np.int16), rate


def ordered_words(recordings: Iterable[Recording]) -> list[str]:
    """Digits from zero on, then other words by the alphabet."""
    words = {each.word for each in recordings}
    return sorted(words, key=lambda word: (DIGITS.index(word) if word in DIGITS else len(DIGITS), word))


def speakers_of(recordings: Iterable[Recording]) -> int:
    """How many have said something."""
    return len({each.speaker for each in recordings})


def one_speaker_each(recordings: Sequence[Recording], devices: int) -> FleetData:
    """A part for each device, of one speaker, all of one length; some takes of all words are held out. Labels are the
    places of the words in `ordered_words`.

    Raises:
        ConfigurationError: there are other than ten words, or too few speakers or takes.
    """
    words = ordered_words(recordings)
    if len(words) != WORDS:
        raise ConfigurationError(
            f"{len(words)} different words ({', '.join(words[:12])}); the recipe speech_commands tells {WORDS} apart:"
            " record ten, or leave some out"
        )
    speakers = sorted({each.speaker for each in recordings})[:devices]
    if len(speakers) < devices:
        raise ConfigurationError(f"--agents {devices}: there are recordings of {len(speakers)} speakers, one for each")
    kept = {speaker: _takes(recordings, speaker, held_out=False) for speaker in speakers}
    if not (fewest := min(map(len, kept.values()))):
        poorest = min(kept, key=lambda speaker: len(kept[speaker]))
        raise ConfigurationError(f"{poorest} has at most one take of each word; record two at least, better ten")
    parts = [_samples(_evenly(own, fewest), words) for own in kept.values()]
    pooled = Samples(np.concatenate([part.inputs for part in parts]), np.concatenate([part.labels for part in parts]))
    held_out = [each for speaker in speakers for each in _takes(recordings, speaker, held_out=True)]
    return FleetData(parts, pooled, _samples(held_out, words))


def _takes(recordings: Iterable[Recording], speaker: str, *, held_out: bool) -> list[Recording]:
    """Of the first `MOST_TAKES` of each word by one speaker, those that are held out, the first and every fifth; or the
    others.
    """
    by_word: dict[str, list[Recording]] = defaultdict(list)
    for each in sorted(recordings, key=lambda each: (each.word, each.take)):
        if each.speaker == speaker:
            by_word[each.word].append(each)
    return [
        each
        for of_word in by_word.values()
        for place, each in enumerate(of_word[:MOST_TAKES])
        if (place % HELD_OUT_EVERY == 0) == held_out
    ]


def _evenly(recordings: Sequence[Recording], count: int) -> list[Recording]:
    """So many of them, of all words alike."""
    return [recordings[place] for place in np.linspace(0, len(recordings) - 1, count).round().astype(int)]


def _samples(recordings: Sequence[Recording], words: Sequence[str]) -> Samples:
    inputs_from_sound = runpy.run_path(str(find_recipe(RECIPE) / "samples.py"))["inputs_from_sound"]
    inputs = [inputs_from_sound(each.sound, each.rate_hz) for each in recordings]
    return Samples(np.stack(inputs), np.array([words.index(each.word) for each in recordings], np.int64))
