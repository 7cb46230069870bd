"""How pictures are drawn from a task's model: the table `[drawing]`. Pure."""

import math
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from fleet_protocol.configuration import Text
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import FieldName, InputSchema

MAX_DRAWN_CLASSES: Final = 1000
MAX_PICTURE_VALUES: Final = 1 << 20
MAX_LATENT: Final = 1 << 16
CHANNELS: Final = (1, 3)
"""Grey, or red, green and blue."""


class DrawingPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of the model draws pictures, from what, and what they are like (docs/split-gan.md)."""

    module: Text
    """Name of the submodule that draws: its forward() takes latent numbers f32[N, latent] and, with `label`, classes
    i64[N]."""
    latent: Annotated[int, msgspec.Meta(ge=1, le=MAX_LATENT)]
    """From how many numbers a picture is drawn, each of mean 0 and deviation 1."""
    picture: FieldName
    """The input that pictures are like: its minimum is black, its maximum white, and its shape `[1, H, W]` or `[H, W]`
    for grey, or `[3, H, W]` for red, green and blue."""
    label: FieldName | None = None
    """The input that says which class a picture is of: one whole number, whose bounds are the first class and the last
    one. Left out: pictures have no classes, and count as class 0."""


def drawn_classes(plan: DrawingPlan, inputs: Mapping[str, InputSchema]) -> range:
    """The classes that pictures can be asked for of; 0 alone where they have none."""
    return range(1) if plan.label is None else _whole_numbers(inputs[plan.label])


def _whole_numbers(schema: InputSchema) -> range:
    return range(math.ceil(schema.minimum), math.floor(schema.maximum) + 1)


def check_drawing(plan: DrawingPlan, inputs: Mapping[str, InputSchema], name: str, *, scaled: bool) -> None:
    """Raise `ConfigurationError` if nothing could be drawn that is like the inputs; `name` is where they are."""
    if missing := [field for field in (plan.picture, plan.label) if field is not None and field not in inputs]:
        raise ConfigurationError(
            f"{name}: [drawing] names the input {missing[0]!r}, and there is none; describe it in a table"
            f" [inputs.{missing[0]}]"
        )
    _check_picture(inputs[plan.picture], f"{name}: inputs.{plan.picture}")
    if plan.label is not None:
        _check_classes(inputs[plan.label], f"{name}: inputs.{plan.label}")
    if scaled:
        raise ConfigurationError(
            f'{name}: [drawing] goes with inputs as they are, not with scaled ones; write [scaling] inputs = "off"'
        )


def _check_picture(picture: InputSchema, name: str) -> None:
    if len(picture.shape) not in (2, 3) or (len(picture.shape) == 3 and picture.shape[0] not in CHANNELS):
        raise ConfigurationError(
            f"{name}.shape is {picture.shape}, which is no picture; write [H, W], [1, H, W] or [3, H, W]"
        )
    height, width = picture.shape[-2:]
    if height * width > MAX_PICTURE_VALUES:
        raise ConfigurationError(
            f"{name}: a picture of {height} by {width} exceeds MAX_PICTURE_VALUES ({MAX_PICTURE_VALUES}); draw smaller"
            " ones"
        )
    if not 0 < picture.maximum - picture.minimum < math.inf:
        raise ConfigurationError(
            f"{name}.minimum is {picture.minimum:g} and its maximum {picture.maximum:g}, but one is to be black and the"
            " other white; write two finite numbers, the smaller one first"
        )


def _check_classes(label: InputSchema, name: str) -> None:
    is_bounded = 0 <= label.minimum <= label.maximum <= MAX_DRAWN_CLASSES - 1
    if label.size != 1 or not label.whole or not is_bounded or not _whole_numbers(label):
        raise ConfigurationError(
            f"{name} has to be one whole number from 0 to at most {MAX_DRAWN_CLASSES - 1}; write"
            " shape = [1], whole = true, and as minimum and maximum the first class and the last"
        )
