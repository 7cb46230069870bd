"""Words, said by espeak-ng and flite in voices, rooms and noise as the style says, or as they come."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generator import Generator, GeneratorError, Synthetic
from prompt_synthesis.prompt import Prompt
from prompt_synthesis.sound import Place, Sound, recorded
from prompt_synthesis.speech_programs import (
    ESPEAK,
    ESPEAK_LANGUAGES,
    ESPEAK_VARIANTS,
    FLITE,
    FLITE_VOICES,
    SilentProgramError,
    Voice,
    check_programs,
    espeak_voice,
    spoken,
)
from prompt_synthesis.style import Style

FLITE_SHARE: Final = 0.5
"""Of the samples whose style names no voice. Its voices are recorded ones, espeak-ng's are computed."""
PITCHES: Final = {"low": 25.0, "middle": 50.0, "high": 80.0}
SPEEDS: Final = {"slow": 110.0, "middle": 160.0, "fast": 220.0}
PITCH_STEP: Final = 10
SPEED_STEP: Final = 20
"""Voices are asked for in such steps, so that a word is said once for many samples."""
MOST_SAYINGS: Final = 4096
"""That are remembered, some 30 KiB each."""
MOST_HANGS: Final = 3
"""Of one program and one word, before that word is no longer left to it."""


class Speech:
    """Of a task whose samples are `length` values of sound at `rate_hz`, in this `shape`."""

    def __init__(self, shape: Sequence[int], rate_hz: int) -> None:
        self._shape = tuple(shape)
        self._rate_hz = rate_hz
        self._said = lru_cache(MOST_SAYINGS)(spoken)
        self._hangs: Counter[tuple[str, str]] = Counter()

    def generate(self, prompts: Sequence[Prompt], count: int, seed: int) -> Synthetic:
        """As `Generator.generate`. What one voice can't say, others do."""
        generator = np.random.default_rng(seed)
        made: list[tuple[Sound, int, str]] = []
        failed: list[str] = []
        for prompt in prompts:
            for _ in range(count):
                try:
                    made.append(self._one(prompt, Style(prompt.style), generator))
                except GeneratorError as error:
                    failed.append(str(error))
        if not made:
            raise GeneratorError(failed[0] if failed else "nothing is asked for")
        inputs = np.stack([sound for sound, _, _ in made]).astype(np.float32).reshape(-1, *self._shape)
        return Synthetic(inputs, np.array([label for _, label, _ in made]), [origin for _, _, origin in made])

    def _one(self, prompt: Prompt, style: Style, generator: np.random.Generator) -> tuple[Sound, int, str]:
        voice, place = _voice(style, generator), _place(style, generator, self._rate_hz)
        sound, rate_hz = self._saying(prompt.word, voice)
        length = int(np.prod(self._shape))
        heard = recorded(sound, rate_hz, place, length=length, wanted_hz=self._rate_hz, generator=generator)
        return heard, prompt.label, f"{voice}; {place}"

    def _saying(self, word: str, voice: Voice) -> tuple[Sound, int]:
        pair = (voice.program, word)
        if self._hangs[pair] >= MOST_HANGS:
            raise GeneratorError(f"{voice.program} is not asked for {word!r} any more: it has hung {MOST_HANGS} times")
        try:
            return self._said(word, voice)
        except SilentProgramError:
            self._hangs[pair] += 1
            raise


def _voice(style: Style, generator: np.random.Generator) -> Voice:
    is_flite = generator.random() < FLITE_SHARE
    variant = str(generator.choice(ESPEAK_VARIANTS))
    name = style.name("voice", [*ESPEAK_LANGUAGES, *FLITE_VOICES])
    if name is None:
        name = str(generator.choice(FLITE_VOICES if is_flite else ESPEAK_LANGUAGES))
    pitch = style.around("pitch", (0, 99), 12, generator, PITCHES)
    speed = style.around("speed", (90, 260), 20, generator, SPEEDS)
    full_name = name if name in FLITE_VOICES else espeak_voice(name, variant)
    return Voice(full_name, _stepped(pitch, PITCH_STEP, 99), _stepped(speed, SPEED_STEP, 260))


def _stepped(value: float, step: int, most: int) -> int:
    return min(round(value / step) * step, most)


def _place(style: Style, generator: np.random.Generator, rate_hz: int) -> Place:
    band = style.number("band", 2_000, rate_hz)
    return Place(
        room=style.around("room", (0.0, 0.4), 0.05, generator),
        noise=style.around("noise", (5.0, 50.0), 5.0, generator),
        band_hz=float(generator.choice([min(8_000, rate_hz), rate_hz])) if band is None else band,
        speed=float(generator.uniform(0.85, 1.2)),
    )


def make(task: TaskDescription, _argument: str) -> Generator:
    """For a task whose samples are sound.

    Raises:
        ConfigurationError: a program is missing, or the samples are no sound.
    """
    check_programs("the generator speech", [ESPEAK, FLITE])
    rate_hz = task.prompts.sample_rate_hz if task.prompts else 0
    if task.inputs or task.input.size < rate_hz // 10 or task.input.minimum > -1 or task.input.maximum < 1:
        raise ConfigurationError(
            f"the generator speech makes sound from -1 to 1, of a tenth of a second at least; {task.task} takes"
            f" {task.input.shape} from {task.input.minimum:g} to {task.input.maximum:g} at {rate_hz} Hz; name another"
            " generator, or correct prompts.sample_rate_hz"
        )
    return Speech(task.input.shape, rate_hz)
