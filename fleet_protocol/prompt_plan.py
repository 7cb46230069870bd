"""What devices tell a coordinator that synthesises training data like theirs: the table `[prompts]` of a task. Pure."""

from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.configuration import Name, Text
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import KIB, MAX_CLASSES_IN_PROMPTS, MAX_SAMPLES_PER_UPDATE, MAX_UPDATE_BYTES
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.without_effect import UsedBy, check_setting, check_used

Level = Literal["class", "moments", "instance"]
LEVELS: Final[tuple[Level, ...]] = ("class", "moments", "instance")
"""What a prompt may hold, the one that tells least first: each tells all that those before it do."""

MOST_MAGNITUDE: Final = MAX_SAMPLES_PER_UPDATE.bit_length()
MAX_PACKED_PROMPTS = MAX_UPDATE_BYTES - 8 * KIB
"""Bytes of moments: an envelope, and a box, fit around them."""
NUMBER_BYTES = 2
"""Moments travel as float16."""


class PromptPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What devices say once, so that training data like theirs can be synthesised (docs/federated-generation.md)."""

    level: Level = "class"
    """The most that a prompt holds; a device's owner may allow less. `class`: which labels there are, about how many of
    each, and a style. `moments`: also mean and variance of each class's features. `instance`: also those of up to
    `components` groups of each class's samples."""
    names: list[Text] = []
    """A word for each class, in the order of their numbers: what is spoken, drawn or described. Left out: the numbers
    themselves."""
    generator: Name = "features"
    """What makes data of prompts: `speech`, `glyphs`, `features`, `diffusers`, or one that the coordinator's machine
    has installed."""
    sample_rate_hz: Annotated[int, msgspec.Meta(ge=4_000, le=192_000)] = 16_000
    """For `speech`: of the sound that a sample's inputs are."""
    components: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """For the level `instance`: most groups of one class on one device."""
    largest_feature: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1000.0
    """The largest magnitude of a feature. A device with a larger one tells the level `class`, and moments that speak of
    larger ones are refused."""
    rounds: bool = False
    """Whether devices train rounds, too, once their prompts are told."""

    def word(self, label: int) -> str:
        """What the class of that number is called."""
        return self.names[label] if self.names else str(label)

    def groups(self, level: Level) -> int:
        """How many groups of each class moments are told of; 0 for none."""
        return {"class": 0, "moments": 1, "instance": self.components}[level]


def magnitude(samples: int) -> int:
    """About how many: 0 for none, else 1 + floor(log2(samples)), so that a prompt changes when a class doubles."""
    return samples.bit_length()


def least_samples(told: int) -> int:
    """The least number of samples with that magnitude."""
    return 1 << (told - 1) if told else 0


USED_BY: Final[UsedBy] = {
    "components": ("level", ("instance",)),
    "largest_feature": ("level", ("moments", "instance")),
}
"""Settings that mean something only where another one has one of these values."""

SILENT_GENERATORS: Final = ("glyphs", "features", "diffusers")
"""Those of ours that make no sound; what others do, nobody knows here."""


def check_prompts(plan: PromptPlan, label: LabelSchema, features: int, name: str) -> None:
    """Raise `ConfigurationError` where devices can't tell such prompts; `name` is the file.

    A sample has so many `features`.
    """
    check_used(plan, USED_BY, "prompts", name)
    if plan.generator in SILENT_GENERATORS:
        check_setting(plan, "sample_rate_hz", ("generator", plan.generator), ("speech",), f"{name}: prompts")
    if not label.is_index or label.classes > MAX_CLASSES_IN_PROMPTS:
        raise ConfigurationError(
            f"{name}: [prompts] tell which of at most {MAX_CLASSES_IN_PROMPTS} classes there are, and label.kind is"
            f" {label.kind!r} with {label.classes} classes; leave [prompts] out, or label each sample with one of those"
        )
    if plan.names and len(plan.names) != label.classes:
        raise ConfigurationError(
            f"{name}: prompts.names has {len(plan.names)} words for {label.classes} classes; write one for each"
        )
    rows = label.classes * plan.groups(plan.level)
    if (size := rows * (3 + 2 * NUMBER_BYTES * features)) > MAX_PACKED_PROMPTS:
        raise ConfigurationError(
            f"{name}: moments of {features} features in {rows} groups take {size} bytes, more than fit into one message"
            f" ({MAX_PACKED_PROMPTS}); take the level 'class', fewer `components`, or a backbone with fewer features"
        )
