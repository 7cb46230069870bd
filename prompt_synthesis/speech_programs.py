"""Debian's espeak-ng and flite as programs: a word and a voice in, sound out."""

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.generator import GeneratorError
from prompt_synthesis.sound import Sound

LONGEST_SECONDS: Final = 20.0
"""For one word: what hangs is ended."""
MOST_CHARACTERS: Final = 200
LOUDEST: Final = 32_768.0

ESPEAK: Final = "espeak-ng"
FLITE: Final = "flite"
ESPEAK_ACCENTS: Final = ("en-us", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
"""Those of its languages that each variant makes another voice of."""
ESPEAK_LANGUAGES: Final = (*ESPEAK_ACCENTS, "en-gb")
"""`en-gb` has one voice: espeak-ng says `en-gb+f1` as `en-gb`, and does not tell."""
ESPEAK_VARIANTS: Final = ("m1", "f1", "m2", "f2", "m3", "f3", "m4", "f4", "m5", "f5", "m7", "m6", "m8")
FLITE_VOICES: Final = ("awb", "kal16", "rms", "slt")
FLITE_PITCHES_HZ: Final[Mapping[str, float]] = {"awb": 130.0, "kal16": 105.0, "rms": 105.0, "slt": 170.0}
"""Of each voice, about."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How a word is said: `name` is one of flite's voices, or one that `espeak_voice` gives.

    `pitch` is 0 to 99, 50 as the voice is made; `speed` in words a minute, 160 as it is made.
    """

    name: str
    pitch: int
    speed: int

    @property
    def program(self) -> str:
        """What says it."""
        return FLITE if self.name in FLITE_VOICES else ESPEAK

    def __str__(self) -> str:
        """For people."""
        return f"{self.program} {self.name}, pitch {self.pitch}, {self.speed} words/min"


def espeak_voice(language: str, variant: str) -> str:
    """The name of espeak-ng's voice of one of `ESPEAK_LANGUAGES`: without the variant where that changes nothing."""
    return f"{language}+{variant}" if language in ESPEAK_ACCENTS else language


class SilentProgramError(GeneratorError):
    """A program has not ended in time."""


def check_programs(what: str, programs: Sequence[str]) -> None:
    """Raise `ConfigurationError` where one that `what` needs is not installed."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        raise ConfigurationError(
            f"{what} needs {' and '.join(missing)}; install it: sudo apt-get install {' '.join(missing)}"
        )


def spoken(word: str, voice: Voice) -> tuple[Sound, int]:
    """A word as a voice says it: values from -1 to 1, and how many there are in a second.

    Raises:
        GeneratorError: the program fails or says nothing; `SilentProgramError` where it hangs.
    """
    if len(word) > MOST_CHARACTERS or not word.isprintable():
        raise GeneratorError(f"{word[:20]!r}... is nothing to say: at most {MOST_CHARACTERS} printable characters are")
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder) / "word.txt", Path(folder) / "word.wav"
        command = _flite(voice, text, out) if voice.program == FLITE else _espeak(voice, text, out)
        try:
            text.write_text(word + "\n", "utf-8")
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST_SECONDS, check=True
            )
            sound, rate_hz = _read(out)
        except subprocess.TimeoutExpired:
            raise SilentProgramError(f"{command[0]} has not said {word!r} in {LONGEST_SECONDS:g} s") from None
        except subprocess.CalledProcessError as error:
            why = _complaint(error.stderr) or f"it ended with status {error.returncode}"
            raise GeneratorError(f"{command[0]} does not say {word!r}: {why}") from error
        except (OSError, EOFError, wave.Error) as error:
            raise GeneratorError(f"{command[0]} does not say {word!r}: {error}") from error
    if not np.abs(sound).max(initial=0):
        why = _complaint(done.stderr) or "there is no sound"
        raise GeneratorError(f"{command[0]} does not say {word!r}: {why}")
    return sound, rate_hz


def _complaint(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip()[:MOST_CHARACTERS]


def _espeak(voice: Voice, text: Path, out: Path) -> list[str]:
    return [
        ESPEAK,
        "-v",
        voice.name,
        "-p",
        str(voice.pitch),
        "-s",
        str(voice.speed),
        "-f",
        str(text),
        "-w",
        str(out),
    ]


def _flite(voice: Voice, text: Path, out: Path) -> list[str]:
    pitch_hz = FLITE_PITCHES_HZ[voice.name] * 2 ** ((voice.pitch - 50) / 100)
    settings = {"int_f0_target_mean": pitch_hz, "duration_stretch": 160 / voice.speed}
    options = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.3f}")]
    return [FLITE, "-voice", voice.name, *options, "-f", str(text), "-o", str(out)]


def _read(file: Path) -> tuple[Sound, int]:
    with wave.open(str(file)) as source:
        if source.getsampwidth() != 2:
            raise wave.Error(f"{8 * source.getsampwidth()} bits in place of 16")
        values = np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.float64) / LOUDEST
        return values.reshape(-1, source.getnchannels()).mean(axis=1), source.getframerate()
