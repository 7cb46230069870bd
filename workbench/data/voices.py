"""Spoken digits where nobody has recorded any: said by espeak-ng, a program of Debian, in many voices.

A speaker is an accent, a voice, a pitch and a pace; each take differs a little in pitch and pace, and has noise behind
it. What is said is the same for the same seed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError
from workbench.data.recordings import DIGITS, Recording, read_sound

PROGRAM = "espeak-ng"
ACCENTS = ("en-us", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
VARIANTS = ("m1", "f1", "m2", "f2", "m3", "f3", "m4", "f4", "m5", "f5", "m7", "m6", "m8")
"""Of the voice, as espeak-ng names them."""
MOST_SPEAKERS = len(ACCENTS) * len(VARIANTS)
"""No two alike: their numbers have no common divisor."""
TAKES = 10
LONGEST_CALL_SECONDS = 30.0
SILENCE = 200
"""Of int16: what is quieter at the beginning and at the end is cut off."""


@dataclass(frozen=True, slots=True)
class Take:
    """How a word is said once: `pitch` 0 to 99, `pace` in words a minute, `noise` as a share of the loudest value."""

    word: str
    speaker: str
    number: int
    voice: str
    pitch: int
    pace: int
    noise: float


def speak_digits(speakers: int, generator: np.random.Generator) -> list[Recording]:
    """`TAKES` takes of each digit by each speaker.

    Raises:
        ConfigurationError: espeak-ng is missing or fails, or has not so many voices.
    """
    if shutil.which(PROGRAM) is None:
        raise ConfigurationError(
            f"{PROGRAM} is not installed, which speaks the words: sudo apt-get install {PROGRAM}; or give recordings"
            " with --data-dir FOLDER"
        )
    if speakers > MOST_SPEAKERS:
        raise ConfigurationError(f"--agents {speakers}: {PROGRAM} has {MOST_SPEAKERS} voices for them, one for each")
    takes = planned(speakers, generator)
    noises = generator.integers(0, 2**32, len(takes))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        return list(pool.map(lambda take, noise: _spoken(take, int(noise), Path(folder)), takes, noises))


def planned(speakers: int, generator: np.random.Generator) -> list[Take]:
    """How each word will be said: who speaks it fixes the voice, and pitch and pace up to a little."""
    takes = []
    for number in range(speakers):
        voice = f"{ACCENTS[number % len(ACCENTS)]}+{VARIANTS[number % len(VARIANTS)]}"
        usual_pitch, usual_pace = int(generator.integers(25, 75)), int(generator.integers(120, 190))
        for word in DIGITS:
            for take in range(TAKES):
                pitch = usual_pitch + int(generator.integers(-8, 9))
                pace = usual_pace + int(generator.integers(-15, 16))
                noise = float(generator.uniform(0.0, 0.05))
                takes.append(Take(word, f"voice{number:02}", take, voice, pitch, pace, noise))
    return takes


def _spoken(take: Take, noise_seed: int, folder: Path) -> Recording:
    file = folder / f"{take.speaker}-{take.word}-{take.number}.wav"
    command = [PROGRAM, "-v", take.voice, "-p", str(take.pitch), "-s", str(take.pace), "-w", str(file), take.word]
    _run(command)
    sound, rate_hz = read_sound(file)
    loud = trimmed(sound).astype(np.float64)
    noise = np.random.default_rng(noise_seed).standard_normal(len(loud)) * take.noise * np.abs(loud).max()
    return Recording(
        take.word, take.speaker, take.number, (loud + noise).clip(-32_768, 32_767).astype(np.int16), rate_hz
    )


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_CALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise ConfigurationError(
            f"{' '.join(command[:3])} failed: {said.decode(errors='replace').strip() or error}; give recordings with"
            " --data-dir FOLDER"
        ) from error


def trimmed(sound: NDArray[np.int16]) -> NDArray[np.int16]:
    """Without the silence before and behind the word; all of it where there is nothing louder."""
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > SILENCE)
    return sound[loud[0] : loud[-1] + 1] if loud.size else sound
