"""What one sample of a task holds: its inputs and its labels. Pure.

Stores, workers and graphs handle a sample as two rows of numbers, inputs and labels. Of several inputs or heads, each
is a run of values in its row, in the order of `task.toml` (docs/decisions/samples-are-rows.md).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from fleet_protocol.configuration import PositiveInt
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SETTING


class InputSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one sample's inputs are: float32 values."""

    shape: list[PositiveInt]
    """Without the batch axis: `[64]` for 64 numbers, `[1, 28, 28]` for a grey picture."""
    minimum: float
    """The smallest value that a sample may hold."""
    maximum: float
    """The largest value that a sample may hold."""
    missing: Literal["refuse", "mean"] = "refuse"
    """What becomes of a sample that lacks a value (null in JSON, NaN): it is refused, or the value is taken for the
    mean of its column, which needs scaled inputs."""
    whole: bool = False
    """Whole numbers that name something, such as token ids: never scaled, whatever [scaling] says."""

    @property
    def size(self) -> int:
        """Values in one sample."""
        return math.prod(self.shape)


LabelKind = Literal["class", "multi_label", "regression", "reconstruction", "none", "heads"]


class LabelSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sample is labelled with."""

    classes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 0
    """Number of classes; for the kinds `class` and `multi_label` alone."""
    kind: LabelKind = "class"
    """`class`: an index from 0 to `classes` - 1. `multi_label`: `classes` values, each 0 or 1. `regression`: `values`
    finite numbers. `reconstruction`: no label, the model learns to give back its inputs. `none`: no label, what is
    learned is up to the loss in model.py. `heads` stands in a bundle alone, for the labels of all heads in one row."""
    values: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 0
    """How many numbers; for the kind `regression` alone."""
    shape: list[PositiveInt] = []
    """Positions that are labelled each by itself, such as `[64, 64]` pixels: scores are [N, classes or values, *shape],
    labels [N, *shape] of kind `class`, else as the scores. Left out: one label for the whole sample."""

    @property
    def channels(self) -> int:
        """Values that the model gives for each position; 0 where they are as many as its inputs, or any number."""
        return self.classes or self.values

    @property
    def outputs(self) -> int:
        """Values that the model gives per sample; 0 as in `channels`."""
        return self.channels * math.prod(self.shape)

    @property
    def is_index(self) -> bool:
        """Whether a label is the number of one class, which is stored and trained on as an integer."""
        return self.kind == "class" and not self.shape

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Of one sample's label: () for a class."""
        return tuple(self.shape) if self.kind == "class" else (self.channels, *self.shape)

    @property
    def size(self) -> int:
        """Values in one sample's label."""
        return math.prod(self.value_shape)


FieldName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,47}\Z",
        description="1 to 48 characters of a-z, A-Z, 0-9 and '_', the first no digit",
    ),
]
"""One of several inputs, which a parameter of forward() is called too, or one of several heads."""

Schema = TypeVar("Schema", InputSchema, LabelSchema)

WHOLE_ROW: Final = ""
"""The name of the only input or head."""


def qualified(what: str, name: str) -> str:
    """What an input, a label or a head's scores are called among several: `scores.digit`; the only one `scores`."""
    return f"{what}.{name}" if name else what


def runs(schemas: Mapping[str, Schema]) -> Iterator[tuple[str, Schema, slice]]:
    """Each input or head with its name, and where its values stand in the row."""
    start = 0
    for name, schema in schemas.items():
        yield name, schema, slice(start, start + schema.size)
        start += schema.size


def inputs_as_one(inputs: Mapping[str, InputSchema]) -> InputSchema:
    """The row of several inputs."""
    return InputSchema(
        [sum(schema.size for schema in inputs.values())],
        min(schema.minimum for schema in inputs.values()),
        max(schema.maximum for schema in inputs.values()),
        "mean" if any(schema.missing == "mean" for schema in inputs.values()) else "refuse",
    )


def labels_as_one(heads: Mapping[str, LabelSchema]) -> LabelSchema:
    """The row of the labels of several heads."""
    return LabelSchema(kind="heads", values=sum(schema.size for schema in heads.values()))


_SIZES: Final[Mapping[LabelKind, str]] = {
    "class": "classes",
    "multi_label": "classes",
    "regression": "values",
    "reconstruction": "",
    "none": "",
}


def check_label(label: LabelSchema, name: str) -> None:
    """Raise `ConfigurationError` if the sizes don't go with the kind; `name` says where the label is described."""
    if label.kind not in _SIZES:
        raise ConfigurationError(f"{name}: label.kind {label.kind!r} is for bundles; write a table [heads.NAME] a head")
    wanted = _SIZES[label.kind]
    given = [size for size in ("classes", "values") if getattr(label, size)]
    if given != [wanted] * bool(wanted):
        raise ConfigurationError(
            f"{name}: label.kind {label.kind!r} needs {f'label.{wanted}' if wanted else 'no size'} and nothing else;"
            f" given: {', '.join(f'label.{size}' for size in given) or 'nothing'}"
        )
    if label.shape and not wanted:
        raise ConfigurationError(f"{name}: label.kind {label.kind!r} takes no label.shape; leave it out")
