"""Queries with real databases: a device answers once and keeps account, a coordinator goes on from round to round."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from broker_coordinator.aggregation.analytics.reports import answers_of
from broker_coordinator.aggregation.analytics.results import result
from broker_coordinator.aggregation.analytics.stored_query import QueryState, StoredQuery
from broker_coordinator.commands.diagnose import diagnosis
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.query_registry import QueryRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from edge_agent.core.analytics.policy import QueryUse, Spent
from edge_agent.core.analytics.settings import AnalyticsSettings, AskableField
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.analytics.questions import AskedAbout, Questions
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage import query_answers
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.storage.query_answers import QueryAnswer
from edge_agent.sources.text_file import TextFile
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
from fleet_protocol.task_description import TaskDescription
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK as TINY
from tests.support.bundles import write_bundle
from tests.support.device import SigningDevice
from tests.support.queries import TASK, asked, stored

ALLOWED = AnalyticsSettings(
    [AskableField("tiny", "label", exact=True), AskableField("tiny", "text", exact=True)], epsilon_budget=1.0
)
HOUR = 3600


class Answering:
    """A device's side of queries, without a network. Its task's description is there once it is `described`."""

    def __init__(self, folder: Path, allowed: AnalyticsSettings = ALLOWED, texts: Sequence[TextFile] = ()) -> None:
        self.described: TaskDescription | None = TASK
        self.fetches = 0
        self._spooled = asyncio.Event()
        self.database = DeviceDatabase(folder / "agent.db")
        self.samples = SampleStore(folder / "samples.db", 1000)
        self.signer = SigningDevice("pi")
        self.questions = Questions(
            AskedAbout(allowed, texts, self.samples.path),
            self.database,
            self,
            take_manifest=self._wait,
            judge=self.samples.judge,
            address=self.signer.identity.address,
            sign=self.sign,
            spooled=self._spooled.set,
            draws=random.Random(1),
        )
        self.sign_fails = False

    def sign(self, row: OutboxRow) -> bytes:
        if self.sign_fails:
            raise OSError("the power fails")
        return self.signer.identity.sign_row(row)

    async def _wait(self, _: str) -> None:
        pass

    def description(self, _: str) -> TaskDescription | None:
        return self.described

    async def fetch_description(self, task: str) -> None:
        self.fetches += 1
        if self.fetches == 1:
            raise VersionUnavailableError(f"no manifest of {task} has come yet")
        self.described = TASK

    def close(self) -> None:
        self.database.close()
        self.samples.close()

    async def hears(self, *queries: Query, reports: int = 0) -> None:
        """Take a message, and go on until all of it is answered, or so many `reports` wait."""
        self.questions.receive("tiny", Queries(queries))
        running = asyncio.create_task(self.questions.run())
        async with asyncio.timeout(20):
            while not self._is_done(queries, reports):
                self._spooled.clear()
                await self._spooled.wait()
        running.cancel()

    def _is_done(self, queries: Sequence[Query], reports: int) -> bool:
        if reports:
            return len(self.said()) == reports
        return all(self.database.was_answered(each.number, each.round) for each in queries)

    def said(self) -> list[AnalyticsReport]:
        """What waits in its outbox."""
        rows = [self.database.read(number) for number in self.database.waiting_numbers()]
        return [decode_payload(row.payload, AnalyticsReport) for row in rows if row is not None]


@pytest.fixture
def device(tmp_path):
    device = Answering(tmp_path)
    for label in (0, 1, 1, 2):
        device.samples.add("tiny", bytes(16), label)
    yield device
    device.close()


LABELS = asked("labels", field="label", minimum_devices=10)


def numbered(query: Query, number: int, **changed: object) -> Query:
    return msgspec.structs.replace(query, number=number, **changed)


async def test_query_is_answered_once_whatever_comes_again(device, tmp_path) -> None:
    await device.hears(LABELS)
    await device.hears(LABELS, numbered(LABELS, 8))
    assert [(report.query, report.numbers) for report in device.said()] == [
        (7, (0.25, 0.5, 0.25)),
        (8, (0.25, 0.5, 0.25)),
    ]
    device.close()
    again = Answering(tmp_path)
    await again.hears(LABELS, numbered(LABELS, 9, field="input[0]"))
    assert [report.outcome for report in again.said()][2:] == [AnswerOutcome.NOT_ALLOWED]
    assert again.questions.use == QueryUse(answered=2, refused=1, epsilon=0.0)
    again.close()


async def test_answer_and_its_cost_are_stored_together_or_not_at_all(device) -> None:
    device.sign_fails = True
    query = numbered(LABELS, 11, epsilon=0.5)
    device.questions.receive("tiny", Queries((query,)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(device.questions.run(), 0.2)
    assert device.said() == []
    assert device.database.spent_on_queries(11, 0, 30).epsilon == 0.0
    device.sign_fails = False
    await device.hears(query)
    assert device.database.spent_on_queries(11, 0, 30).epsilon == 0.5
    assert len(device.said()) == 1


async def test_budget_lasts_over_restarts_and_what_it_does_not_reach_for_is_refused(device, tmp_path) -> None:
    costly = numbered(LABELS, 1, epsilon=0.6)
    await device.hears(costly)
    device.close()
    again = Answering(tmp_path)
    await again.hears(numbered(costly, 2), numbered(costly, 3, epsilon=0.4), numbered(costly, 4, epsilon=0.01))
    outcomes = [report.outcome for report in again.said()]
    assert outcomes == [
        AnswerOutcome.ANSWERED,
        AnswerOutcome.BUDGET_SPENT,
        AnswerOutcome.ANSWERED,
        AnswerOutcome.BUDGET_SPENT,
    ]
    again.close()


def test_what_was_spent_is_forgotten_after_the_budgets_days_and_not_by_a_clock_that_goes_back(tmp_path) -> None:
    database = DeviceDatabase(tmp_path / "agent.db")
    row = OutboxRow(0, ANALYTICS_REPORT.number, "tiny", "", 0, b"", b"")
    sign = SigningDevice("pi").identity.sign_row
    for day, epsilon in ((100, 0.25), (110, 0.5), (110, 0.0)):
        answer = QueryAnswer(day * 10 + int(epsilon > 0), 0, day, True, epsilon)
        database.answer_query(answer, row, sign)
    assert database.spent_on_queries(1, 110, 30).epsilon == 0.75
    assert database.spent_on_queries(1, 110, 30).queries_today == 2
    assert database.spent_on_queries(1, 129, 30).epsilon == 0.75
    assert database.spent_on_queries(1, 130, 30).epsilon == 0.5
    assert database.spent_on_queries(1, 0, 30).epsilon == 0.75, "without the time it is the last day still"
    assert database.spent_on_queries(1101, 300, 30).is_begun
    database.close()


def test_refusals_that_somebody_provokes_push_out_no_answer_that_still_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(query_answers, "ANSWERS_KEPT", 5)
    database = DeviceDatabase(tmp_path / "agent.db")
    row = OutboxRow(0, ANALYTICS_REPORT.number, "tiny", "", 0, b"", b"")
    sign = SigningDevice("pi").identity.sign_row

    numbers = itertools.count(1)

    def told(*days: int, answers: bool = False, epsilon: float = 0.0) -> None:
        for day in days:
            database.answer_query(QueryAnswer(next(numbers), 0, day, answers, epsilon), row, sign)

    told(100, answers=True, epsilon=0.75)
    told(120, answers=True)
    told(*[120] * 20)
    assert database.spent_on_queries(1, 120, 30) == Spent(0.75, 1, is_begun=True, epsilon_of_query=0.75)
    assert database.query_use(120, 30).refused == 5
    told(*[1000] * 20)
    assert database.spent_on_queries(1, 1000, 366) == Spent(), "what counts no more makes room"
    database.close()


async def test_description_that_is_not_here_is_fetched_and_waiting_samples_count(tmp_path) -> None:
    device = Answering(tmp_path)
    device.described = None
    await device.hears(numbered(LABELS, 5, field="input[1]"))
    assert device.fetches == 0, "what is refused anyway needs no look at the task"
    await device.hears(LABELS)
    assert device.fetches == 2
    assert device.said()[1] == AnalyticsReport(7, 0, AnswerOutcome.ANSWERED, (0.0, 0.0, 0.0))
    device.close()


async def test_words_come_from_the_owners_file_and_a_missing_one_is_empty(tmp_path) -> None:
    file = tmp_path / "rooms.txt"
    file.write_bytes(b"kitchen\n\n  kitchen \r\n" + b"kitchen\xff" + b"x" * 100)
    words = asked("heavy_hitters", field="text.rooms", longest=8)
    missing = asked("distinct", field="text.gone")
    device = Answering(tmp_path, texts=[TextFile("rooms", file), TextFile("gone", tmp_path / "gone.txt")])
    await device.hears(words, numbered(missing, 8))
    assert [(report.word, report.numbers) for report in device.said()] == [("k", ()), ("", ())]
    device.close()


async def test_damaged_samples_cost_no_other_query_its_answer(device) -> None:
    device.samples._connection.execute("DROP TABLE arrivals")
    await device.hears(LABELS, numbered(LABELS, 8, field="input[0]"), reports=1)
    assert [report.query for report in device.said()] == [8]


# The coordinator's side.

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
    shown = result(found.stored, found.state, answers_of(asking.registry.reports(found), found.query.round))
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
    answers = answers_of(asking.registry.reports(found), 0)
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
    assert "nothing to compare yet" in str(diagnosis(asking.bench.journal.engine, TINY)["result"])
    bins = stored("histogram", edges=[1.0, 2.0, 3.0], minimum_devices=3)
    labels = stored("labels", field="label", minimum_devices=3)
    for number, (query, values) in enumerate([(bins, (0.5, 1.5)), (labels, (0.0, 2.0)), (bins, (1.5, 3.5))], start=20):
        name = f"query-{number}"
        renamed = msgspec.structs.replace(query, query=numbered(query.query, number, name=name))
        asking.publish(renamed, now=1_800_000_000 + number)
        for place, device in enumerate(DEVICES[:4]):
            asking.answer(device, renamed.query, values[place % 2])
        asking.registry.stop(name)
    found = diagnosis(asking.bench.journal.engine, TINY)
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
    assert len(answers_of(asking.registry.reports(found), 0).answered) == 1
