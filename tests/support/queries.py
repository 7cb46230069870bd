"""Queries, and whole fleets that answer them without a network."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from broker_coordinator.aggregation.analytics.reports import ReportFacts, RoundAnswers, answers_of
from broker_coordinator.aggregation.analytics.rounds import next_round
from broker_coordinator.aggregation.analytics.stored_query import StoredQuery
from broker_coordinator.commands.new_query import query_of
from broker_coordinator.commands.query_file import QueryFile
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.analytics.answers import answered, check_report
from fleet_protocol.kinds import AnalyticsReport, Query
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import BUNDLE_FORMAT, TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bundles import PARAMETERS


def described(label: LabelSchema, **fields: Any) -> TaskDescription:
    """A task of which only what its samples are counts here: four inputs, unless `fields` says otherwise."""
    usual: dict[str, Any] = {
        "format": BUNDLE_FORMAT,
        "task": "tiny",
        "title": "A tiny task",
        "input": InputSchema([4], -100.0, 100.0),
        "parameters": PARAMETERS,
        "training": TrainingPlan(steps=25, batch_size=4, learning_rate=0.1),
        "update": UpdatePlan(keep_fraction=0.5),
        "aggregation": AggregationPlan(buffer_size=3, max_staleness=2, max_delta_norm=10.0, averaged_versions=1),
        "files": {},
    }
    return TaskDescription(label=label, **usual | fields)


TASK = described(LabelSchema(3))


def stored(ask: str, *, task: TaskDescription = TASK, field: str = "input[0]", **keys: Any) -> StoredQuery:
    """A query as `analytics publish` makes it."""
    written = {"name": "asked", "task": task.task, "ask": ask, "field": field} | keys
    return query_of(msgspec.convert(written, QueryFile), task, number=7)


def asked(ask: str, **keys: Any) -> Query:
    """What devices see of it."""
    return stored(ask, **keys).query


def numbered(query: Query, number: int, **changed: object) -> Query:
    """The same under another number, with these fields changed."""
    return msgspec.structs.replace(query, number=number, **changed)


def facts_of(report: AnalyticsReport) -> ReportFacts:
    """As the journal has it."""
    return ReportFacts(report.query, report.round, report.outcome, report.numbers, report.word)


def answers_from(
    query: Query, devices: Iterable[Sequence[float]], *, words: bool = False, seed: int = 1
) -> RoundAnswers:
    """What a round has found where each device has these values, or these `words`; every answer is one that passes."""
    draws = random.Random(seed)
    reports = []
    for number, has in enumerate(devices):
        report = answered(query, () if words else has, has if words else (), draws)  # type: ignore[arg-type]
        check_report(query, report)
        reports.append((f"device-{number}", facts_of(report)))
    return answers_of(reports, query.round)


def through_all_rounds(
    begun: StoredQuery, devices: Sequence[Sequence[Any]], *, words: bool = False, seed: int = 1
) -> tuple[StoredQuery, RoundAnswers]:
    """The query in its last round, and the answers to that."""
    follows, now = True, begun
    while follows:
        answers = answers_from(now.query, devices, words=words, seed=seed + now.query.round)
        now, follows = next_round(now, answers)
    return now, answers
