"""Spoken digits where nobody has recorded any: said by espeak-ng, a program of Debian, in many voices.

A speaker is an accent, a voice, a pitch and a pace; each take differs a little in pitch and pace, and has noise behind
it. What is said is the same for the same seed.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.generator import GeneratorError
from prompt_synthesis.sound import trimmed
from prompt_synthesis.speech_programs import (
    ESPEAK,
    ESPEAK_ACCENTS,
    ESPEAK_VARIANTS,
    LOUDEST,
    Voice,
    check_programs,
    espeak_voice,
    spoken,
)
from workbench.data.recordings import DIGITS, Recording

MOST_SPEAKERS = len(ESPEAK_ACCENTS) * len(ESPEAK_VARIANTS)
"""No two alike: their numbers have no common divisor."""
TAKES = 10


@dataclass(frozen=True, slots=True)
class Take:
    """How a word is said once, with `noise` behind it, a share of the loudest value."""

    word: str
    speaker: str
    number: int
    voice: Voice
    noise: float


def speak_digits(speakers: int, generator: np.random.Generator) -> list[Recording]:
    """`TAKES` takes of each digit by each speaker.

    Raises:
        ConfigurationError: espeak-ng is missing or fails, or has not so many voices.
    """
    if speakers > MOST_SPEAKERS:
        raise ConfigurationError(f"--agents {speakers}: {ESPEAK} has {MOST_SPEAKERS} voices for them, one for each")
    takes = planned(speakers, generator)
    noises = generator.integers(0, 2**32, len(takes))
    try:
        check_programs("a demo with no recordings", [ESPEAK])
        with ThreadPoolExecutor() as pool:
            return list(pool.map(recording_of, takes, noises))
    except (ConfigurationError, GeneratorError) as error:
        raise ConfigurationError(f"{error}; recordings of your own do instead: --data-dir FOLDER") from error


def planned(speakers: int, generator: np.random.Generator) -> list[Take]:
    """How each word will be said: who speaks it fixes the voice, and pitch and pace up to a little."""
    takes = []
    for number in range(speakers):
        accent = ESPEAK_ACCENTS[number % len(ESPEAK_ACCENTS)]
        name = espeak_voice(accent, ESPEAK_VARIANTS[number % len(ESPEAK_VARIANTS)])
        usual_pitch, usual_pace = int(generator.integers(25, 75)), int(generator.integers(120, 190))
        for word in DIGITS:
            for take in range(TAKES):
                pitch = usual_pitch + int(generator.integers(-8, 9))
                pace = usual_pace + int(generator.integers(-15, 16))
                noise = float(generator.uniform(0.0, 0.05))
                takes.append(Take(word, f"voice{number:02}", take, Voice(name, pitch, pace), noise))
    return takes


def recording_of(take: Take, noise_seed: int) -> Recording:
    """The take, said and without silence at its ends.

    Raises:
        GeneratorError: espeak-ng does not say it.
    """
    sound, rate_hz = spoken(take.word, take.voice)
    word = trimmed(sound)
    noise = np.random.default_rng(noise_seed).standard_normal(len(word)) * take.noise * np.abs(word).max()
    values = ((word + noise) * LOUDEST).clip(-LOUDEST, LOUDEST - 1).astype(np.int16)
    return Recording(take.word, take.speaker, take.number, values, rate_hz)
