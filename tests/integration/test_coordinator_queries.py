"""Queries at the coordinator, with a real database: round follows round, and no report hurts another query."""

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from broker_coordinator.aggregation.analytics.results import result
from broker_coordinator.aggregation.analytics.stored_query import QueryState, StoredQuery
from broker_coordinator.commands.diagnosed_samples import samples_diagnosed
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.query_registry import QueryRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.analytics.answers import answered
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import (
    ANALYTICS_REPORT,
    QUERIES,
    AnalyticsReport,
    AnswerOutcome,
    Outcome,
    Queries,
    Query,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import MAX_OPEN_QUERIES
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK as TINY
from tests.support.bundles import write_bundle
from tests.support.device import SigningDevice
from tests.support.queries import numbered, stored

DEVICES = [SigningDevice(f"pi-{number}") for number in range(5)]
HALVES = stored("quantiles", lower=0.0, upper=8.0, bins=2, rounds=3, minimum_devices=4, round_hours=1.0)


def another(number: int, name: str) -> StoredQuery:
    return msgspec.structs.replace(HALVES, query=numbered(HALVES.query, number, name=name))


class Asking:
    """A coordinator with five approved devices, each with values of its own."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder / "fleet.db", write_bundle(folder / "bundle"), replace(OPEN, keys=(KEY,)))
        for device in DEVICES:
            self.bench.handle(device, device.enrolment())
        self._sequence = 0
        self.bench.said()

    @property
    def registry(self) -> QueryRegistry:
        return QueryRegistry(self.bench.journal.engine)

    def publish(self, query: StoredQuery, now: int = 1_800_000_000) -> None:
        self.registry.publish(TINY, query, now)
        self.bench.make_versions()

    def heard(self) -> list[Queries]:
        """What devices are told that they are asked, since the last time."""
        return [decode_payload(each.payload, Queries) for each in self.bench._envelopes(QUERIES)]

    def report(self, device: SigningDevice, report: AnalyticsReport) -> tuple[Outcome, str]:
        self._sequence += 1
        message = device.sign(ANALYTICS_REPORT, encode_payload(report), sequence=self._sequence, task=TINY)
        self.bench.receipts()
        self.bench.handle(device, message)
        (receipt,) = self.bench.receipts()
        return receipt.outcome, receipt.detail

    def answer(self, device: SigningDevice, query: Query, *values: float) -> tuple[Outcome, str]:
        return self.report(device, answered(query, values, (), random.Random(1)))

    def next_round(self) -> None:
        self.bench.now += 2
        self.bench.make_versions()


@pytest.fixture
def asking(tmp_path):
    asking = Asking(tmp_path)
    yield asking
    asking.bench.journal.close()


def test_rounds_follow_each_other_through_restarts_and_every_answer_counts_once(asking) -> None:
    asking.publish(HALVES)
    for expected_edges in ((0.0, 4.0, 8.0), (0.0, 4.0, 6.0, 8.0), (0.0, 4.0, 5.0, 6.0, 8.0)):
        (heard,) = asking.heard()
        (query,) = heard.asked
        assert query.edges == expected_edges
        for device, value in zip(DEVICES, (1.0, 3.0, 5.5, 7.0, 7.5), strict=True):
            assert asking.answer(device, query, value)[0] is Outcome.ACCEPTED
            assert asking.answer(device, query, 0.5)[0] is Outcome.ACCEPTED, "taken, and counts no more"
        asking.bench.restart()
        asking.next_round()
    assert asking.heard() == [Queries(())]
    found = asking.registry.named("asked")
    shown = result(found.stored, found.state, asking.registry.answers(found))
    assert (found.state, shown["samples"]) == (QueryState.DONE, 5.0)
    (row,) = shown["quantiles"]
    assert (row["from"], row["to"]) == (5.0, 6.0)
    assert asking.answer(DEVICES[0], found.query, 1.0) == (
        Outcome.REJECTED,
        f"query 7 about {TINY} is not open",
    )
    asking.bench.make_versions()
    assert asking.bench.journal.newest_aggregate(TINY, ANALYTICS_REPORT.number).number == 0, "nothing is aggregated"


def test_answer_to_a_round_that_is_over_is_refused_with_the_present_one(asking) -> None:
    asking.publish(HALVES)
    query = HALVES.query
    for device in DEVICES:
        asking.answer(device, query, 1.0)
    asking.next_round()
    outcome, detail = asking.answer(DEVICES[0], query, 1.0)
    assert (outcome, detail) == (Outcome.REJECTED, "query 'asked' is in round 1; the answer is to 0")


def test_refusals_count_as_reports_and_too_few_answers_end_no_round(asking) -> None:
    asking.publish(HALVES)
    for device in DEVICES[:3]:
        asking.answer(device, HALVES.query, 1.0)
    for device in DEVICES[3:]:
        report = AnalyticsReport(7, 0, AnswerOutcome.BUDGET_SPENT)
        assert asking.report(device, report)[0] is Outcome.ACCEPTED
    asking.next_round()
    found = asking.registry.named("asked")
    assert (asking.registry.reported(found), found.query.round) == (5, 0)
    answers = asking.registry.answers(found)
    assert answers.refusals == {"budget_spent": 2}
    assert result(found.stored, found.state, answers) == {"result": "3 devices have answered; shown from 4"}


def test_stopped_query_and_one_of_a_removed_task_are_asked_no_more(asking) -> None:
    asking.publish(HALVES)
    asking.publish(another(8, "other"))
    assert [len(heard.asked) for heard in asking.heard()] == [2]
    asking.registry.stop("asked")
    asking.bench.make_versions()
    assert [[each.name for each in heard.asked] for heard in asking.heard()] == [["other"]]
    TaskRegistry(asking.bench.journal.engine).remove(TINY)
    asking.bench.make_versions()
    assert asking.heard() == [Queries(())]
    assert {each.state for each in asking.registry.all()} == {QueryState.STOPPED}


def test_open_queries_are_bounded_and_a_name_is_free_again_once_its_query_is_closed(asking) -> None:
    for number in range(MAX_OPEN_QUERIES):
        asking.publish(another(1 + number, f"query-{number}"))
    with pytest.raises(ConfigurationError, match="is open; stop it"):
        asking.publish(another(50, "query-3"))
    with pytest.raises(ConfigurationError, match=f"the limit is {MAX_OPEN_QUERIES}"):
        asking.publish(HALVES)
    asking.registry.stop("query-3")
    asking.publish(another(50, "query-3"), now=1_800_000_001)
    assert asking.registry.named("query-3").query.number == 50


def test_name_means_one_open_query_whatever_its_task_and_however_short_it_was_open(asking) -> None:
    asking.publish(HALVES)
    with pytest.raises(ConfigurationError, match=f"a query 'asked' of {TINY} is open; stop it"):
        asking.registry.publish("another", another(8, "asked"), 1_800_000_000)
    asking.registry.stop("asked")
    asking.registry.publish("another", another(1, "asked"), 1_800_000_000)
    assert (asking.registry.named("asked").task, asking.registry.named("asked").query.number) == ("another", 1)
    assert asking.registry.stop("asked").state is QueryState.STOPPED
    assert {each.state for each in asking.registry.all()} == {QueryState.STOPPED}


def test_query_is_stopped_whose_next_round_begins_meanwhile_and_a_round_begins_once(asking) -> None:
    asking.publish(HALVES)
    as_read = asking.registry.named("asked")
    second = HALVES.in_round(edges=(1.0, 2.0))
    asking.registry.go_on(as_read, second, follows=True, now=as_read.round_begun + 1)
    asking.registry.go_on(as_read, HALVES.in_round(edges=(3.0, 4.0)), follows=True, now=as_read.round_begun + 1)
    assert asking.registry.named("asked").stored == second
    asking.registry.close(as_read)
    assert asking.registry.named("asked").state is QueryState.STOPPED
    asking.registry.go_on(as_read, second, follows=True, now=1_900_000_000)
    assert asking.registry.named("asked").state is QueryState.STOPPED


def test_damaged_report_is_left_out_and_a_query_that_fails_is_stopped_alone(asking, caplog) -> None:
    asking.publish(HALVES)
    asking.publish(another(8, "other"))
    for device in DEVICES:
        asking.answer(device, HALVES.query, 1.0)
        asking.answer(device, another(8, "other").query, 5.0)
    damaged = {7: '{"query":7,"round":0,"outcome":"answered","numbers":[1.0]}', 8: "{"}
    with writing(asking.bench.journal.engine) as connection:
        for query, facts in damaged.items():
            change = "UPDATE payloads SET facts = ? WHERE aggregate = ? AND device = 'pi-0'"
            connection.exec_driver_sql(change, (facts, query))
    asking.next_round()
    states = {each.query.name: (each.state, each.query.round) for each in asking.registry.all()}
    assert states == {"asked": (QueryState.STOPPED, 0), "other": (QueryState.OPEN, 1)}
    assert "query_failed" in caplog.text
    assert [each.name for each in asking.heard()[-1].asked] == ["other"]


def test_diagnosis_shows_how_far_devices_labels_are_apart_and_how_far_a_field_has_moved(asking) -> None:
    assert "no samples to compare yet" in str(samples_diagnosed(asking.bench.journal.engine, TINY).fields["samples"])
    bins = stored("histogram", edges=[1.0, 2.0, 3.0], minimum_devices=3)
    labels = stored("labels", field="label", minimum_devices=3)
    for number, (query, values) in enumerate([(bins, (0.5, 1.5)), (labels, (0.0, 2.0)), (bins, (1.5, 3.5))], start=20):
        name = f"query-{number}"
        renamed = msgspec.structs.replace(query, query=numbered(query.query, number, name=name))
        asking.publish(renamed, now=1_800_000_000 + number)
        for place, device in enumerate(DEVICES[:4]):
            asking.answer(device, renamed.query, values[place % 2])
        asking.registry.stop(name)
    diagnosed = samples_diagnosed(asking.bench.journal.engine, TINY)
    found = diagnosed.fields
    assert diagnosed.unlike == 1.0
    (drift,) = found["drift"]
    assert (drift["from"], drift["to"], drift["jensen_shannon"]) == ("query-20", "query-22", pytest.approx(0.5))
    assert drift["earth_mover"] == pytest.approx(0.5)
    (divergence,) = found["labels"]
    assert (divergence["devices"], divergence["unlike_the_fleet"]) == (4, 4)
    assert divergence["mean_jensen_shannon"] == pytest.approx(0.311, abs=0.001)


def test_report_that_is_none_costs_nobody_else_an_answer(asking) -> None:
    asking.publish(HALVES)
    absurd = [
        AnalyticsReport(7, 0, AnswerOutcome.ANSWERED, (1e300, 0.0, 0.0, 0.0)),
        AnalyticsReport(7, 0, AnswerOutcome.ANSWERED, (float("inf"),) * 4),
        AnalyticsReport(7, 0, AnswerOutcome.ANSWERED, (1.0,)),
        AnalyticsReport(7, 0, AnswerOutcome.ANSWERED, (0.0,) * 4, "word"),
        AnalyticsReport(8, 0, AnswerOutcome.ANSWERED, (0.0,) * 4),
    ]
    for report in absurd:
        assert asking.report(DEVICES[0], report)[0] is Outcome.REJECTED
    assert asking.report(DEVICES[1], answered(HALVES.query, [1.0], (), random.Random(1)))[0] is Outcome.ACCEPTED
    found = asking.registry.named("asked")
    assert len(asking.registry.answers(found).answered) == 1
