"""Makes a query of query.toml: checked against its task, with the edges, rounds and votes that follow from the keys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker_coordinator.aggregation.analytics.bins import evenly_spaced, in_order
from broker_coordinator.aggregation.analytics.edges import UNKNOWN_RANGE
from broker_coordinator.aggregation.analytics.stored_query import Aims, StoredQuery
from broker_coordinator.aggregation.analytics.trie import share_for, votes_for
from broker_coordinator.commands.query_file import Ask, QueryFile
from fleet_protocol.analytics.answers import BINNED, DISTINCT, WORDS
from fleet_protocol.analytics.fields import UnknownFieldError, class_count, find_field
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Condition, Query
from fleet_protocol.limits import MAX_ANSWER_NUMBERS, SMALLEST_EPSILON
from fleet_protocol.task_description import TaskDescription

MAX_EDGES: Final = MAX_ANSWER_NUMBERS - 1
SECONDS_OF_AN_HOUR: Final = 3600
FIRST_YEAR: Final = 1970
"""From which seconds are counted."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What follows from the way of asking; the fields are those of `Query` and `Aims`."""

    edges: Sequence[float] = ()
    rounds: int = 1
    prefixes: tuple[str, ...] = ()
    share: float = 1.0
    probabilities: tuple[float, ...] = ()
    votes: int = 0
    delta: float = 0.0


def query_of(file: QueryFile, task: TaskDescription, number: int) -> StoredQuery:
    """What devices are asked, under a `number` drawn at random.

    Raises:
        ConfigurationError: the task has no such field, or keys that do not go together.
    """
    _check_fields(file, task)
    _check_bounds(file)
    plan = _PLANS[file.ask](file, task)
    _check_noise(file, plan)
    if len(plan.edges) > MAX_EDGES:
        raise _wrong(file, f"{len(plan.edges)} edges between bins; the limit is {MAX_EDGES}")
    query = Query(
        number=number,
        name=file.name,
        ask=file.ask,
        field=file.field,
        where=tuple(Condition(each.field, each.at_least, each.at_most) for each in file.where),
        since=_seconds(file, file.since),
        until=_seconds(file, file.until),
        lower=file.lower or 0.0,
        upper=file.upper or 0.0,
        samples_per_device=file.samples_per_device,
        epsilon=file.epsilon,
        minimum_devices=file.minimum_devices,
        rounds=plan.rounds,
        round=0,
        edges=in_order(plan.edges),
        prefixes=plan.prefixes,
        share=plan.share,
    )
    round_seconds = SECONDS_OF_AN_HOUR * file.round_hours
    return StoredQuery(query, Aims(file.bins, plan.probabilities, plan.votes, plan.delta, round_seconds))


def _wrong(file: QueryFile, why: str) -> ConfigurationError:
    return ConfigurationError(f"query {file.name!r}: {why}")


def _check_fields(file: QueryFile, task: TaskDescription) -> None:
    try:
        place = find_field(file.field, task)
        filtered = [find_field(each.field, task) for each in file.where]
    except UnknownFieldError as error:
        raise _wrong(file, str(error)) from None
    is_text = place.store == "text"
    if not {WORDS: is_text, DISTINCT: True}.get(file.ask, not is_text):
        why = "heavy_hitters are of text.NAME, distinct of anything, and all others of numbers"
        raise _wrong(file, f"a {file.ask} of {file.field}: {why}")
    is_filtered = filtered or file.since or file.until
    if any(each.store == "text" for each in filtered) or (is_text and is_filtered):
        raise _wrong(file, "text.NAME is no property of a sample: nothing filters it, and it filters nothing")


def _check_bounds(file: QueryFile) -> None:
    for each in file.where:
        if each.at_least is not None and each.at_most is not None and each.at_least > each.at_most:
            raise _wrong(file, f"where: no {each.field} is from {each.at_least:g} to {each.at_most:g}; swap them")
    if file.since and file.until and _seconds(file, file.since) >= _seconds(file, file.until):
        raise _wrong(file, "since is not before until; swap them")


def _check_noise(file: QueryFile, plan: _Plan) -> None:
    if not file.epsilon:
        return
    if file.ask == DISTINCT:
        raise _wrong(file, "a distinct count takes no epsilon: its slots have no room for noise; ask for a histogram")
    if file.ask in BINNED and file.samples_per_device > 1:
        raise _wrong(file, f"with epsilon a device answers a {file.ask} for one sample: leave samples_per_device out")
    if plan.edges == UNKNOWN_RANGE:
        raise _wrong(file, f"a {file.ask} with epsilon needs lower and upper: noise would hide where the values are")
    if file.epsilon / plan.rounds < SMALLEST_EPSILON:
        raise _wrong(file, f"epsilon {file.epsilon:g} in {plan.rounds} rounds; a round takes {SMALLEST_EPSILON:g}")


def _seconds(file: QueryFile, moment: datetime | None) -> int:
    """In seconds since 1970; a time without a zone is local."""
    if moment is None:
        return 0
    seconds = int(moment.timestamp()) if moment.year >= FIRST_YEAR else 0  # a local time of the year 1 has none
    if seconds <= 0:
        raise _wrong(file, f"{moment.isoformat()}: no sample came before {FIRST_YEAR}")
    return seconds


def _count(_file: QueryFile, _task: TaskDescription) -> _Plan:
    return _Plan()


def _moments(file: QueryFile, _: TaskDescription) -> _Plan:
    if _range_of(file) is None:
        raise _wrong(file, f"a {file.ask} needs lower and upper: values beyond them are clipped")
    return _Plan()


def _histogram(file: QueryFile, _: TaskDescription) -> _Plan:
    found = _range_of(file)
    if file.edges:
        if found or list(in_order(file.edges)) != file.edges:
            raise _wrong(file, "edges ascend, and stand without lower and upper")
        return _Plan(file.edges)
    return _Plan(evenly_spaced(*found, file.bins)) if found else _Plan(UNKNOWN_RANGE, rounds=2)


def _labels(file: QueryFile, task: TaskDescription) -> _Plan:
    classes = class_count(file.field, task)
    if classes < 2:
        raise _wrong(file, f"{file.field} of {task.task} has no classes; ask for a histogram")
    return _Plan([number + 0.5 for number in range(classes - 1)])


def _quantiles(file: QueryFile, _: TaskDescription) -> _Plan:
    found, quantiles = _range_of(file), len(file.probabilities)
    if 2 + quantiles * (file.bins + 1) > MAX_EDGES:
        raise _wrong(file, f"{quantiles} quantiles of {file.bins} bins are too many; take fewer of either")
    edges = evenly_spaced(*found, file.bins) if found else UNKNOWN_RANGE
    return _Plan(edges, file.rounds, probabilities=file.probabilities)


def _distinct(file: QueryFile, _: TaskDescription) -> _Plan:
    if file.samples_per_device > MAX_ANSWER_NUMBERS:
        raise _wrong(file, f"samples_per_device {file.samples_per_device}; a distinct count takes {MAX_ANSWER_NUMBERS}")
    return _Plan()


def _heavy_hitters(file: QueryFile, _: TaskDescription) -> _Plan:
    rounds = file.longest + 1
    if not file.epsilon:
        return _Plan(rounds=rounds, prefixes=("",), votes=file.votes or file.minimum_devices)
    votes = max(file.votes or 0, votes_for(file.delta, rounds))
    share = share_for(file.epsilon / rounds, votes)
    return _Plan(rounds=rounds, prefixes=("",), share=share, votes=votes, delta=file.delta)


def _range_of(file: QueryFile) -> tuple[float, float] | None:
    lower, upper = file.lower, file.upper
    if lower is None and upper is None:
        return None
    if lower is None or upper is None or lower >= upper:
        raise _wrong(file, f"lower {lower} and upper {upper}: write both, the lower one first")
    return lower, upper


_PLANS: Final[Mapping[Ask, Callable[[QueryFile, TaskDescription], _Plan]]] = {
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
