"""What answers to queries say of how alike devices' samples are, and whether they move: for `tasks diagnose`."""

from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import Engine

from broker_coordinator.aggregation.analytics import bins
from broker_coordinator.aggregation.analytics.divergence import divergence, earth_mover, jensen_shannon, shares_of
from broker_coordinator.aggregation.analytics.reports import RoundAnswers
from broker_coordinator.storage.query_registry import QueryRegistry, RegisteredQuery
from fleet_protocol.analytics.answers import BINNED

HOW_TO = (
    'no samples to compare yet: `analytics publish` a query with ask = "labels" for divergence between devices, and two'
    ' with ask = "histogram" of one field and edges for drift (docs/analytics.md)'
)


def samples_diagnosed(engine: Engine, task: str) -> dict[str, object]:
    """Divergence between devices of every query about labels, and drift of every field that was asked about twice.

    Raises:
        JournalUnavailableError: the database can't be read.
    """
    registry = QueryRegistry(engine)
    found = [(each, registry.answers(each)) for each in registry.all() if each.task == task]
    shown = [(each, answers) for each, answers in found if len(answers.answered) >= each.query.minimum_devices]
    labels = [_divergence_row(each, answers) for each, answers in shown if each.query.ask == "labels"]
    drifts = list(_drift_rows(shown))
    if not labels and not drifts:
        return {"samples": HOW_TO}
    return {"labels": labels, "drift": drifts}


def _divergence_row(registered: RegisteredQuery, answers: RoundAnswers) -> dict[str, object]:
    query = registered.query
    row: dict[str, object] = {"query": query.name, "field": query.field}
    if query.epsilon:
        return row | {"result": "answers with noise say nothing of one device; ask without epsilon"}
    measured = divergence([each.numbers for each in answers.answered])
    if measured is None or measured.devices < query.minimum_devices:
        return row | {"result": f"fewer than {query.minimum_devices} devices have labels"}
    return row | asdict(measured)


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
