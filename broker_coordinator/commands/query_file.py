"""The file that `analytics publish` reads: what an operator wants to know of devices' samples."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from broker_coordinator.aggregation.analytics.bins import evenly_spaced, in_order
from broker_coordinator.aggregation.analytics.edges import UNKNOWN_RANGE
from broker_coordinator.aggregation.analytics.stored_query import Aims, StoredQuery
from broker_coordinator.aggregation.analytics.trie import share_for, votes_for
from fleet_host.configuration_file import read_configuration
from fleet_protocol.analytics.fields import UnknownFieldError, class_count, find_field
from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Condition, Query
from fleet_protocol.limits import (
    MAX_ANSWER_NUMBERS,
    MAX_EPSILON,
    MAX_FIELD_CHARACTERS,
    MAX_QUERY_CONDITIONS,
    MAX_SAMPLES_PER_UPDATE,
    MAX_WORD_CHARACTERS,
    SMALLEST_EPSILON,
)
from fleet_protocol.sample_rules import LARGEST_FLOAT32
from fleet_protocol.task_description import TaskDescription

Ask = Literal["count", "sum", "mean", "variance", "histogram", "quantiles", "labels", "heavy_hitters", "distinct"]
FieldText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_FIELD_CHARACTERS)]
Samples = Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)]
Number = Annotated[float, msgspec.Meta(ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32)]
"""What a stored value can be."""
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]

FEWEST_DEVICES: Final = 3
"""Of two, each would know the other's answer."""
DEFAULT_DELTA: Final = 1e-6


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only samples count whose field is from `at_least` to `at_most`."""

    field: FieldText
    at_least: Number | None = None
    at_most: Number | None = None


class QueryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What query.toml holds (docs/analytics.md)."""

    name: Name
    task: Name
    ask: Ask
    field: FieldText
    where: Annotated[list[Filter], msgspec.Meta(max_length=MAX_QUERY_CONDITIONS)] = []
    since: datetime | None = None
    until: datetime | None = None
    lower: Number | None = None
    upper: Number | None = None
    bins: Annotated[int, msgspec.Meta(ge=2, le=200)] = 20
    edges: Annotated[list[Number], msgspec.Meta(max_length=MAX_ANSWER_NUMBERS - 1)] = []
    probabilities: Annotated[tuple[Probability, ...], msgspec.Meta(max_length=8)] = (0.5,)
    longest: Annotated[int, msgspec.Meta(ge=1, le=MAX_WORD_CHARACTERS)] = 16
    votes: Samples | None = None
    delta: Annotated[float, msgspec.Meta(ge=1e-30, le=1e-3)] = DEFAULT_DELTA
    samples_per_device: Samples = 1
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=MAX_EPSILON)] = 0.0
    minimum_devices: Annotated[int, msgspec.Meta(ge=FEWEST_DEVICES, le=MAX_SAMPLES_PER_UPDATE)] = 10
    rounds: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    round_hours: Annotated[float, msgspec.Meta(gt=0, le=24 * 366)] = 24.0


def read_query_file(path: Path) -> QueryFile:
    """Read query.toml.

    Raises:
        ConfigurationError: it can't be read, or a key of it is wrong.
    """
    return read_configuration(path, QueryFile)


def query_of(file: QueryFile, task: TaskDescription, number: int) -> StoredQuery:
    """What devices are asked, under a `number` drawn at random.

    Raises:
        ConfigurationError: the task has no such field, or keys that do not go together.
    """
    _check_fields(file, task)
    _check_bounds(file)
    if file.epsilon and file.samples_per_device > 1 and file.ask in _ANSWERED_FOR_ONE_SAMPLE:
        raise _wrong(file, f"with epsilon a device answers a {file.ask} for one sample: leave samples_per_device out")
    asked = _ASKED[file.ask](file, task)
    if file.epsilon and asked.query.epsilon_of_round < SMALLEST_EPSILON:
        raise _wrong(
            file, f"epsilon {file.epsilon:g} in {asked.query.rounds} rounds; a round takes {SMALLEST_EPSILON:g}"
        )
    if len(asked.query.edges) > MAX_ANSWER_NUMBERS - 1:
        raise _wrong(file, f"{len(asked.query.edges)} edges; the limit is {MAX_ANSWER_NUMBERS - 1}")
    return msgspec.structs.replace(asked, query=msgspec.structs.replace(asked.query, number=number))


_ANSWERED_FOR_ONE_SAMPLE: Final = frozenset({"count", "histogram", "quantiles", "labels"})


def _wrong(file: QueryFile, why: str) -> ConfigurationError:
    return ConfigurationError(f"query {file.name!r}: {why}")


def _check_fields(file: QueryFile, task: TaskDescription) -> None:
    try:
        place = find_field(file.field, task)
        filtered = [find_field(each.field, task) for each in file.where]
    except UnknownFieldError as error:
        raise _wrong(file, str(error)) from None
    is_of_words = file.ask in {"heavy_hitters", "distinct"}
    if (place.store == "text") > is_of_words or (file.ask == "heavy_hitters" and place.store != "text"):
        raise _wrong(
            file, f"a {file.ask} of {file.field}: heavy_hitters and distinct are for text.NAME, the rest for numbers"
        )
    is_filtered = filtered or file.since or file.until
    if any(each.store == "text" for each in filtered) or (place.store == "text" and is_filtered):
        raise _wrong(file, "text.NAME is no property of a sample: nothing filters it, and it filters nothing")


def _check_bounds(file: QueryFile) -> None:
    for each in file.where:
        if each.at_least is not None and each.at_most is not None and each.at_least > each.at_most:
            raise _wrong(file, f"where: no {each.field} is from {each.at_least:g} to {each.at_most:g}; swap them")
    if file.since and file.until and _seconds(file, file.since) >= _seconds(file, file.until):
        raise _wrong(file, "since is not before until; swap them")


def _stored(
    file: QueryFile, *, edges: Sequence[float] = (), rounds: int = 1, share: float = 1.0, aims: Aims | None = None
) -> StoredQuery:
    lower, upper = file.lower or 0.0, file.upper or 0.0
    query = Query(
        number=1,
        name=file.name,
        ask=file.ask,
        field=file.field,
        where=tuple(Condition(each.field, each.at_least, each.at_most) for each in file.where),
        since=_seconds(file, file.since),
        until=_seconds(file, file.until),
        lower=lower,
        upper=upper,
        samples_per_device=file.samples_per_device,
        epsilon=file.epsilon,
        minimum_devices=file.minimum_devices,
        rounds=rounds,
        round=0,
        edges=in_order(edges),
        prefixes=("",) if file.ask == "heavy_hitters" else (),
        share=share,
    )
    return StoredQuery(query, aims or Aims(bins=file.bins, round_seconds=3600 * file.round_hours))


def _seconds(file: QueryFile, moment: datetime | None) -> int:
    """In seconds since 1970; a time without a zone is local."""
    if moment is None:
        return 0
    seconds = int(moment.timestamp())
    if seconds <= 0:
        raise _wrong(file, f"{moment.isoformat()}: no sample came before 1970")
    return seconds


def _count(file: QueryFile, _: TaskDescription) -> StoredQuery:
    return _stored(file)


def _moments(file: QueryFile, _: TaskDescription) -> StoredQuery:
    if _range_of(file) is None:
        raise _wrong(
            file, f"a {file.ask} needs lower and upper: values beyond them are clipped, so no device moves it far"
        )
    return _stored(file)


def _histogram(file: QueryFile, _: TaskDescription) -> StoredQuery:
    found = _range_of(file)
    if file.edges:
        if found or list(in_order(file.edges)) != file.edges:
            raise _wrong(file, "edges ascend, and stand without lower and upper")
        return _stored(file, edges=file.edges)
    if found:
        return _stored(file, edges=evenly_spaced(*found, file.bins))
    return _stored(file, edges=UNKNOWN_RANGE, rounds=2)


def _labels(file: QueryFile, task: TaskDescription) -> StoredQuery:
    classes = class_count(file.field, task)
    if classes < 2:
        raise _wrong(file, f"{file.field} of {task.task} has no classes; ask for a histogram")
    return _stored(file, edges=[number + 0.5 for number in range(classes - 1)])


def _quantiles(file: QueryFile, _: TaskDescription) -> StoredQuery:
    found = _range_of(file)
    if not file.probabilities:
        raise _wrong(file, "quantiles need probabilities, such as [0.5, 0.9]")
    if 2 + len(file.probabilities) * (file.bins + 1) > MAX_ANSWER_NUMBERS:
        raise _wrong(
            file, f"{len(file.probabilities)} quantiles of {file.bins} bins are too many; take fewer of either"
        )
    edges = evenly_spaced(*found, file.bins) if found else UNKNOWN_RANGE
    aims = Aims(file.bins, file.probabilities, round_seconds=3600 * file.round_hours)
    return _stored(file, edges=edges, rounds=file.rounds, aims=aims)


def _distinct(file: QueryFile, _: TaskDescription) -> StoredQuery:
    if file.epsilon:
        raise _wrong(file, "a distinct count takes no epsilon: its slots have no room for noise; ask for a histogram")
    if file.samples_per_device > MAX_ANSWER_NUMBERS:
        raise _wrong(file, f"samples_per_device {file.samples_per_device}; a distinct count takes {MAX_ANSWER_NUMBERS}")
    return _stored(file)


def _heavy_hitters(file: QueryFile, _: TaskDescription) -> StoredQuery:
    rounds = file.longest + 1
    if not file.epsilon:
        votes = file.votes or file.minimum_devices
        return _stored(file, rounds=rounds, aims=Aims(votes=votes, round_seconds=3600 * file.round_hours))
    votes = max(file.votes or 0, votes_for(file.delta, rounds))
    aims = Aims(votes=votes, delta=file.delta, round_seconds=3600 * file.round_hours)
    return _stored(file, rounds=rounds, share=share_for(file.epsilon / rounds, votes), aims=aims)


def _range_of(file: QueryFile) -> tuple[float, float] | None:
    lower, upper = file.lower, file.upper
    if lower is None and upper is None:
        return None
    if lower is None or upper is None or lower >= upper:
        raise _wrong(file, f"lower {lower} and upper {upper}: write both, the lower one first")
    return lower, upper


_ASKED: Final[dict[Ask, Callable[[QueryFile, TaskDescription], StoredQuery]]] = {
    "count": _count,
    "sum": _moments,
    "mean": _moments,
    "variance": _moments,
    "histogram": _histogram,
    "labels": _labels,
    "quantiles": _quantiles,
    "distinct": _distinct,
    "heavy_hitters": _heavy_hitters,
}
