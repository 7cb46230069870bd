"""What a device's owner lets it tell a coordinator that synthesises training data: settings. Pure."""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.configuration import one_line
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE, MAX_STYLE_CHARACTERS
from fleet_protocol.prompt_plan import LEVELS, Level


class PromptSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this device tells where a task asks for prompts (docs/federated-generation.md); never a sample."""

    most: Literal["nothing", "class", "moments", "instance"] = "class"
    """The most that it tells, whatever the task asks for. `class`: which labels it has, about how many of each, and
    `style`. `moments` and `instance`: also means and variances of features, of each class or of groups in it."""
    style: Annotated[str, one_line(MAX_STYLE_CHARACTERS, least=0)] = ""
    """How its samples look or sound, in words: which ones help is up to what synthesises. For sound
    `voice=en-gb pitch=low noise=20 band=8000`, for letters `font=serif weight=bold`."""
    minimum_samples: Annotated[int, msgspec.Meta(ge=2, le=MAX_SAMPLES_PER_UPDATE)] = 5
    """A class, or a group of its samples, with fewer is not spoken of."""

    def __post_init__(self) -> None:
        """Refuse what no coordinator takes; raises ValueError."""
        if not self.style.isprintable():
            raise ValueError(f"style = {self.style!r} holds characters that can't be printed; leave them out")

    def level(self, asked: Level) -> Level | None:
        """What is told where a task asks for so much; None for nothing."""
        return None if self.most == "nothing" else min(asked, self.most, key=LEVELS.index)
