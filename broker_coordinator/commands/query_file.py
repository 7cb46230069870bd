"""The file that `analytics publish` reads: what an operator wants to know of devices' samples."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from fleet_host.configuration_file import read_configuration
from fleet_protocol.analytics.fields import FieldText
from fleet_protocol.configuration import Name
from fleet_protocol.limits import (
    MAX_ANSWER_NUMBERS,
    MAX_EPSILON,
    MAX_QUERY_CONDITIONS,
    MAX_SAMPLES_PER_UPDATE,
    MAX_WORD_CHARACTERS,
)
from fleet_protocol.sample_rules import LARGEST_FLOAT32

Ask = Literal["count", "sum", "mean", "variance", "histogram", "quantiles", "labels", "heavy_hitters", "distinct"]
Samples = Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)]
Number = Annotated[float, msgspec.Meta(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]
"""What a stored value can be."""
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]

FEWEST_DEVICES: Final = 3
"""Of two, each would know the other's answer."""
Devices = Annotated[int, msgspec.Meta(ge=FEWEST_DEVICES, le=MAX_SAMPLES_PER_UPDATE)]


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only samples count whose field is from `at_least` to `at_most`."""

    field: FieldText
    at_least: Number | None = None
    at_most: Number | None = None


class QueryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What query.toml holds (docs/analytics.md)."""

    name: Name
    """What `analytics show` calls it."""
    task: Name
    """Whose samples it is about."""
    ask: Ask
    """What is to be found."""
    field: FieldText
    """Of which field (`fleet_protocol.analytics.fields`)."""
    where: Annotated[list[Filter], msgspec.Meta(max_length=MAX_QUERY_CONDITIONS)] = []
    """All of these have to hold of a sample."""
    since: datetime | None = None
    """Samples that came from then on."""
    until: datetime | None = None
    """Samples that came before."""
    lower: Number | None = None
    """Values below count as this; of histogram and quantiles, where the bins begin."""
    upper: Number | None = None
    """Values above count as this; of histogram and quantiles, where the bins end."""
    bins: Annotated[int, msgspec.Meta(ge=2, le=200)] = 20
    """Of a histogram; of quantiles, into how many each round divides an interval."""
    edges: Annotated[list[Number], msgspec.Meta(max_length=MAX_ANSWER_NUMBERS - 1)] = []
    """Of a histogram, in place of `lower`, `upper` and `bins`."""
    probabilities: Annotated[tuple[Probability, ...], msgspec.Meta(min_length=1, max_length=8)] = (0.5,)
    """Of quantiles: 0.5 is the median."""
    longest: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORD_CHARACTERS)] = 16
    """Of heavy hitters: letters of the longest word that is found."""
    votes: Devices | None = None
    """Of heavy hitters: fewer count as none. With epsilon, there are at least as many as `delta` needs."""
    delta: Annotated[float, msgspec.Meta(ge=1e-30, le=1e-3)] = 1e-6
    """Of heavy hitters with epsilon."""
    samples_per_device: Samples = 1
    """Of one device at most so many samples count: with 1, each device has one vote."""
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=MAX_EPSILON)] = 0.0
    """What all rounds together may cost a device; 0: answers without noise."""
    minimum_devices: Devices = 10
    """Answers of fewer are shown to nobody."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """Of quantiles: each makes the intervals narrower."""
    round_hours: Annotated[float, msgspec.Meta(gt=0, le=24 * 366)] = 24.0
    """A round that is not over then ends with the devices that have answered, if they are enough."""


def read_query_file(path: Path) -> QueryFile:
    """Read query.toml.

    Raises:
        ConfigurationError: it can't be read, or a key of it is wrong.
    """
    return read_configuration(path, QueryFile)
