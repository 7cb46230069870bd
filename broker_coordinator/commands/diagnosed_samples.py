"""What answers to queries say of how alike devices' samples are, and whether they move: for `tasks diagnose`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import Engine

from broker_coordinator.aggregation.analytics import bins
from broker_coordinator.aggregation.analytics.divergence import (
    Divergence,
    divergence,
    earth_mover,
    jensen_shannon,
    shares_of,
)
from broker_coordinator.aggregation.analytics.reports import RoundAnswers
from broker_coordinator.storage.query_registry import QueryRegistry, RegisteredQuery
from fleet_protocol.analytics.answers import BINNED
from fleet_protocol.kinds import Query

HOW_TO = (
    'no samples to compare yet: `analytics publish` a query with ask = "labels" for divergence between devices, and two'
    ' with ask = "histogram" of one field and edges for drift (docs/analytics.md)'
)


@dataclass(frozen=True, slots=True)
class SamplesDiagnosed:
    """Fields of `tasks diagnose`, and which share of devices has labels `unlike` the fleet's by the last query; 0 where
    there is none.
    """

    fields: dict[str, object]
    unlike: float = 0.0


def samples_diagnosed(engine: Engine, task: str) -> SamplesDiagnosed:
    """Divergence between devices of every query about labels, and drift of every field that was asked about twice.

    Raises:
        JournalUnavailableError: the database can't be read.
    """
    registry = QueryRegistry(engine)
    found = [(each, registry.answers(each)) for each in registry.all() if each.task == task]
    shown = [(each, answers) for each, answers in found if len(answers.answered) >= each.query.minimum_devices]
    labels = [(each.query, _divergence(each.query, answers)) for each, answers in shown if each.query.ask == "labels"]
    drifts = list(_drift_rows(shown))
    if not labels and not drifts:
        return SamplesDiagnosed({"samples": HOW_TO})
    told = [each.unlike_the_fleet / each.devices for _, each in labels if isinstance(each, Divergence)]
    rows = [_row(query, each) for query, each in labels]
    return SamplesDiagnosed({"labels": rows, "drift": drifts}, told[-1] if told else 0.0)


def _row(query: Query, found: Divergence | str) -> dict[str, object]:
    told: dict[str, object] = asdict(found) if isinstance(found, Divergence) else {"result": found}
    return {"query": query.name, "field": query.field} | told


def _divergence(query: Query, answers: RoundAnswers) -> Divergence | str:
    """Between devices, or why it is not told."""
    if query.epsilon:
        return "answers with noise say nothing of one device; ask without epsilon"
    measured = divergence([each.numbers for each in answers.answered])
    if measured is None or measured.devices < query.minimum_devices:
        return f"fewer than {query.minimum_devices} devices have labels"
    return measured


def _drift_rows(shown: Iterable[tuple[RegisteredQuery, RoundAnswers]]) -> Iterable[dict[str, object]]:
    """From each query to the next that divides the same field into the same bins, by the time of publishing."""
    last: dict[tuple[object, ...], tuple[RegisteredQuery, RoundAnswers]] = {}
    for registered, answers in shown:
        query = registered.query
        if query.ask not in BINNED or not query.edges:
            continue
        same = (query.field, query.edges)
        if before := last.get(same):
            yield _drift_row(before, (registered, answers))
        last[same] = registered, answers


def _drift_row(
    before: tuple[RegisteredQuery, RoundAnswers], after: tuple[RegisteredQuery, RoundAnswers]
) -> dict[str, object]:
    row: dict[str, object] = {
        "field": before[0].query.field,
        "from": before[0].query.name,
        "to": after[0].query.name,
    }
    first, second = (shares_of(bins.pooled(each.query, answers.answered)) for each, answers in (before, after))
    if first is None or second is None:
        return row | {"result": "one of them found no samples"}
    return row | {"jensen_shannon": jensen_shannon(first, second), "earth_mover": earth_mover(first, second)}
