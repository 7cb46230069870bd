"""What the answers to a query say, once enough devices have given one, as fields to be shown. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from broker_coordinator.aggregation.analytics import bins
from broker_coordinator.aggregation.analytics.reports import ReportFacts, RoundAnswers
from broker_coordinator.aggregation.analytics.stored_query import QueryState, StoredQuery
from broker_coordinator.aggregation.analytics.trie import next_prefixes
from fleet_protocol.analytics import laplace
from fleet_protocol.analytics.distinct import SLOTS
from fleet_protocol.analytics.moments import NUMBERS
from fleet_protocol.kinds import Query

Shown = dict[str, object]


def result(stored: StoredQuery, state: QueryState, answers: RoundAnswers) -> Shown:
    """What a query has found so far; nothing but how much is missing while too few devices have answered."""
    found = len(answers.answered)
    if found < stored.query.minimum_devices:
        return {"result": f"{found} devices have answered; shown from {stored.query.minimum_devices}"}
    return _RESULTS[stored.query.ask](stored, state, answers.answered)


def _count(stored: StoredQuery, _: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    counts = bins.pooled(stored.query, reports)
    return {"count": counts[0]} | _with_noise(stored.query, counts, len(reports))


def _histogram(stored: StoredQuery, state: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    query = stored.query
    if query.rounds > 1 and query.round == 0 and state is QueryState.OPEN:
        return {"result": "the range is being negotiated; the histogram follows in the next round"}
    counts = bins.pooled(query, reports)
    rows = []
    for number, count in enumerate(counts):
        least, below = bins.bounds_of(number, query.edges)
        rows.append({"from": least, "below": below, "count": count})
    return {"bins": rows, "samples": math.fsum(counts)} | _with_noise(query, counts, len(reports))


def _labels(stored: StoredQuery, _: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    counts = bins.pooled(stored.query, reports)
    total = math.fsum(counts)
    rows = [
        {"label": label, "count": count, "share": count / total if total > 0 else None}
        for label, count in enumerate(counts)
    ]
    return {"labels": rows, "samples": total} | _with_noise(stored.query, counts, len(reports))


def _quantiles(stored: StoredQuery, _: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    query, counts = stored.query, bins.pooled(stored.query, reports)
    rows: list[Shown] = []
    for probability in stored.aims.probabilities:
        place = bins.bin_of(probability, counts)
        least, most = (None, None) if place is None else bins.bounds_of(place, query.edges)
        middle = (least + most) / 2 if least is not None and most is not None else None
        rows.append({"probability": probability, "value": middle, "from": least, "to": most})
    return {"quantiles": rows, "samples": math.fsum(counts)} | _with_noise(query, counts, len(reports))


def _moments(stored: StoredQuery, _: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    """With noise, its error is that of the noise alone, to first order (the delta method)."""
    query = stored.query
    weight, first, *second = (math.fsum(column) for column in zip(*(each.numbers for each in reports), strict=True))
    if weight <= 0:
        return {"samples": weight, "result": "no device has a sample that counts, or noise hides it"}
    width, mean = query.upper - query.lower, first / weight
    noise = _noise_of_sums(query, len(reports))
    if query.ask == "sum":
        found, error = query.lower * weight + width * first, noise * math.hypot(query.lower, width)
    elif query.ask == "mean":
        found, error = query.lower + width * mean, noise * width * math.hypot(1.0, mean) / weight
    else:
        square = second[0] / weight
        found = width * width * max(0.0, square - mean * mean)
        error = noise * width * width * math.hypot(1.0, 2 * mean, square - 2 * mean * mean) / weight
    shown: Shown = {"samples": weight, query.ask: found}
    return shown | ({"standard_error": error} if query.epsilon else {})


def _noise_of_sums(query: Query, devices: int) -> float:
    """The standard error of each number that devices send, added up over so many of them."""
    if not query.epsilon:
        return 0.0
    return query.samples_per_device * laplace.standard_error(devices, query.epsilon_of_round / NUMBERS[query.ask])


def _distinct(stored: StoredQuery, _: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    filled = len({number for each in reports for number in each.numbers})
    if filled == SLOTS:
        return {"result": "more different values than can be counted; narrow the filter"}
    load = -math.log(1.0 - filled / SLOTS)
    # Whang, Vander-Zanden and Taylor 1990, theorem 1.
    error = math.sqrt(SLOTS * max(0.0, math.exp(load) - load - 1.0))
    return {"distinct": SLOTS * load, "standard_error": error}


def _words(stored: StoredQuery, state: QueryState, reports: Sequence[ReportFacts]) -> Shown:
    """With epsilon, those of rounds that are over: what is private is a round's result, not how it comes about."""
    is_under_way = state is QueryState.OPEN and stored.query.epsilon > 0
    ended = () if is_under_way or state is QueryState.DONE else next_prefixes(stored, reports)[1]
    found = sorted((*stored.found, *ended), key=lambda each: (-each.votes, each.word))
    share = stored.query.share
    rows = [{"word": each.word, "votes": each.votes, "devices": each.votes / share} for each in found]
    shown: Shown = {"words": rows, "fewest_votes": stored.aims.votes}
    return shown | ({"delta": stored.aims.delta} if stored.query.epsilon else {})


def _with_noise(query: Query, counts: Sequence[float], devices: int) -> Shown:
    shown: Shown = {"one_device_moves": bins.one_device_moves(query)}
    if query.epsilon:
        shown["standard_error"] = max(bins.standard_errors(query, counts, devices))
    return shown


_RESULTS: Final[Mapping[str, Callable[[StoredQuery, QueryState, Sequence[ReportFacts]], Shown]]] = {
    "count": _count,
    "histogram": _histogram,
    "labels": _labels,
    "quantiles": _quantiles,
    "sum": _moments,
    "mean": _moments,
    "variance": _moments,
    "distinct": _distinct,
    "heavy_hitters": _words,
}
