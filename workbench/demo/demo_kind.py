"""What a demo shows: a fleet of equals; one in which every second device leaves blocks of the model to a helper; or one
that learns to tell spoken words from one message of each device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.speech_programs import ESPEAK
from workbench.data.digits import FleetData, large_digits, split_digits
from workbench.data.recordings import RECIPE, WORDS, one_speaker_each, read_recordings, speakers_of
from workbench.data.two_domains import digits_and_letters
from workbench.data.voices import speak_digits
from workbench.demo.fleet_files import TASK, WHOLE
from workbench.privacy_modes.modes import Mode
from workbench.recipe_folder import find_bundle
from workbench.report.history import DIGITS, Subject

SplitOverDevices = Callable[[int, np.random.Generator], FleetData]


@dataclass(frozen=True, slots=True)
class DemoKind:
    """The recipe `task` with its data; `cuts` are those of the devices, in turn, and `cpu_shares` what is left to them.
    So many `new_samples` wake an agent; None: all that it will get, so that it speaks once. They are delivered in
    `sensing_seconds`, and the fleet is stopped after `longest_seconds` even if updates wait: they stay in the outboxes.

    Where a cut is a helper's, there is one.
    """

    task: str
    data: SplitOverDevices
    cuts: Sequence[str] = (WHOLE,)
    cpu_shares: Sequence[float] = (1.0,)
    new_samples: int | None = 6
    sensing_seconds: float = 47.0
    longest_seconds: float = 56.0
    subject: Subject = DIGITS
    keeps_training: bool = False
    """Whether devices train at every version, until the longest time is over."""
    draws: bool = False
    """Whether the model draws pictures, as the data have several domains."""
    bundle: str = ""
    """A folder, where it is not the recipe's."""
    privacy: Mode | None = None
    """What nobody shall learn from updates or versions; None: as the task has it."""

    @property
    def has_helper(self) -> bool:
        """Whether any device needs one."""
        return any(cut != WHOLE for cut in self.cuts)

    @property
    def speaks_once(self) -> bool:
        """Whether each device sends one message, when it has all of its samples."""
        return self.new_samples is None


PLAIN = DemoKind(TASK, split_digits)
SPLIT = DemoKind("mnist_cnn", large_digits, cuts=(WHOLE, "1-2"), cpu_shares=(1.0, 0.4), new_samples=20)
"""A convolutional network, whose second convolution every weak device leaves to the helper."""
GAN = DemoKind(
    "mnist_gan",
    digits_and_letters,
    cuts=("g3-d3",),
    cpu_shares=(1.0,),
    new_samples=24,
    sensing_seconds=40.0,
    longest_seconds=300.0,
    keeps_training=True,
    draws=True,
    subject=Subject(
        "draw digits and letters",
        "pictures",
        "Digits are scikit-learn's, letters are drawn by code.",
        "the classifier has seen the devices' own pictures",
    ),
)
"""A generator and its discriminator, which nobody trains whole."""
USUAL_AGENTS = 8
PRIVATE_SECONDS = 110.0
"""Of a demo with a mode of privacy: making its bundle, or mask helpers and their keys, takes a part of it."""


def _require_bundle() -> None:
    try:
        find_bundle(RECIPE)
    except ConfigurationError as error:
        raise ConfigurationError(
            "the recipe speech_commands has no bundle yet, as Google's speech embedding (2.4 MB, Apache License 2.0) is"
            " not in this repository; in a checkout, fetch it and run this demo with: make demo-speech"
        ) from error


def speech_of(recordings: Path | None) -> DemoKind:
    """Ten words, a speaker for each device: of a folder of `recordings`, or digits said by espeak-ng."""
    source = f"recorded: {recordings.name}" if recordings else f"said by {ESPEAK}, a synthesiser, in many voices"
    return DemoKind(
        RECIPE,
        lambda devices, generator: one_speaker_each(
            read_recordings(recordings) if recordings else speak_digits(devices, generator), devices
        ),
        new_samples=None,
        sensing_seconds=8.0,
        longest_seconds=150.0,
        subject=Subject(f"tell {WORDS} spoken words apart", "recordings", f"The words were {source}."),
    )


def chosen(
    *, split: bool, speech: bool, gan: bool = False, recordings: Path | None = None, privacy: Mode | None = None
) -> tuple[DemoKind, int]:
    """What the command line asks for, and how many agents it has where nobody says it.

    Raises:
        ConfigurationError: the options contradict each other, or the recordings can't be read.
    """
    options = {"--split": split, "--speech": speech, "--gan": gan}
    asked = [name for name, is_asked in options.items() if is_asked]
    if len(asked) > 1:
        raise ConfigurationError(f"{' and '.join(asked)} are {len(asked)} demos; keep one of these options")
    if recordings and not speech:
        raise ConfigurationError("--data-dir is for --speech; leave it out, or add --speech")
    if privacy and asked:
        raise ConfigurationError(
            f"--privacy is for the demo of equals, and {asked[0]} takes from devices what no mode hides; keep one of"
            " these options"
        )
    if split:
        return SPLIT, 6
    if gan:
        return GAN, 6
    if not speech:
        return (replace(PLAIN, privacy=privacy, longest_seconds=PRIVATE_SECONDS) if privacy else PLAIN), USUAL_AGENTS
    _require_bundle()
    speakers = speakers_of(read_recordings(recordings)) if recordings else USUAL_AGENTS
    return speech_of(recordings), min(USUAL_AGENTS, speakers)
