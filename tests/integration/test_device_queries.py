"""Queries at a device, with real databases: it answers once, keeps account, and holds a query to its terms."""

import asyncio
import itertools
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

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
from fleet_protocol.kinds import (
    ANALYTICS_REPORT,
    AnalyticsReport,
    AnswerOutcome,
    Condition,
    Queries,
    Query,
    decode_payload,
)
from fleet_protocol.task_description import TaskDescription
from tests.support.device import SigningDevice
from tests.support.queries import TASK, asked, numbered, stored

ALLOWED = AnalyticsSettings(
    [AskableField("tiny", "label", exact=True), AskableField("tiny", "text", exact=True)], epsilon_budget=1.0
)


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


LABELS_8 = numbered(LABELS, 8)


async def test_query_is_answered_once_whatever_comes_again(device, tmp_path) -> None:
    await device.hears(LABELS)
    await device.hears(LABELS, LABELS_8)
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


def given_answer(query: int, day: int, epsilon: float, *, whole: float = 0.0, answered: bool = True) -> QueryAnswer:
    """To the first round of a query, which costs this, or `whole` in all its rounds."""
    return QueryAnswer(query, 0, day, answered, epsilon, b"terms", max(epsilon, whole))


def test_what_was_spent_is_forgotten_after_the_budgets_days_and_not_by_a_clock_that_goes_back(tmp_path) -> None:
    database = DeviceDatabase(tmp_path / "agent.db")
    row = OutboxRow(0, ANALYTICS_REPORT.number, "tiny", "", 0, b"", b"")
    sign = SigningDevice("pi").identity.sign_row
    for day, epsilon in ((100, 0.25), (110, 0.5), (110, 0.0)):
        database.answer_query(given_answer(day * 10 + int(epsilon > 0), day, epsilon), row, sign)
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
            database.answer_query(given_answer(next(numbers), day, epsilon, answered=answers), row, sign)

    told(100, answers=True, epsilon=0.75)
    told(120, answers=True)
    told(*[120] * 20)
    assert database.spent_on_queries(1, 120, 30) == Spent(
        0.75, 0.0, 1, is_begun=True, epsilon_of_query=0.75, terms=b"terms"
    )
    assert database.query_use(120, 30).refused == 5
    told(*[1000] * 20)
    assert database.spent_on_queries(1, 1000, 366) == Spent(), "what counts no more makes room, with its terms"
    database.close()


def test_later_rounds_are_promised_their_part_until_they_come_or_the_budgets_days_have_gone(tmp_path) -> None:
    database = DeviceDatabase(tmp_path / "agent.db")
    row = OutboxRow(0, ANALYTICS_REPORT.number, "tiny", "", 0, b"", b"")
    sign = SigningDevice("pi").identity.sign_row
    database.answer_query(given_answer(5, day=100, epsilon=0.25, whole=0.75), row, sign)
    assert database.spent_on_queries(6, 100, 30).promised == 0.5
    assert database.spent_on_queries(5, 100, 30).promised == 0.0, "to itself"
    database.answer_query(replace(given_answer(5, day=110, epsilon=0.25), round=1), row, sign)
    assert (database.query_use(110, 30).epsilon, database.query_use(110, 30).promised) == (0.5, 0.25)
    assert database.query_use(139, 30).promised == 0.25
    assert database.query_use(140, 30).promised == 0.0
    database.close()


ROUNDS = stored("quantiles", field="label", epsilon=0.6, rounds=3, lower=0.0, upper=3.0)


async def test_later_round_that_asks_otherwise_is_refused_and_counted(device) -> None:
    second = ROUNDS.in_round(edges=(0.0, 1.0, 2.0)).query
    third = msgspec.structs.replace(second, round=2)
    await device.hears(ROUNDS.query, numbered(LABELS, 8, epsilon=0.5))
    await device.hears(numbered(second, 7, where=(Condition("label", 1.0, 1.0),)))
    await device.hears(second, third)
    outcomes = [(report.query, report.round, report.outcome) for report in device.said()]
    assert outcomes == [
        (7, 0, AnswerOutcome.ANSWERED),
        (8, 0, AnswerOutcome.BUDGET_SPENT),
        (7, 1, AnswerOutcome.CHANGED),
        (7, 2, AnswerOutcome.ANSWERED),
    ]
    assert device.questions.use == QueryUse(2, 2, epsilon=pytest.approx(0.4), promised=pytest.approx(0.2))


async def test_answers_of_layout_5_and_terms_outlast_an_update_and_a_copy_that_is_put_back(device, tmp_path) -> None:
    await device.hears(ROUNDS.query, LABELS_8)
    device.close()
    path = tmp_path / "agent.db"
    copy = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE begun_queries")
        connection.execute("DELETE FROM seals WHERE name = 'begun_queries'")
        connection.execute("PRAGMA user_version = 5")
        connection.commit()
    second = ROUNDS.in_round(edges=(0.0, 1.0, 2.0)).query
    otherwise = numbered(second, 7, round=2, minimum_devices=20)
    for content, outcomes in ((path.read_bytes(), ["answered", "changed"]), (copy, ["answered", "changed"])):
        path.write_bytes(content)
        again = Answering(tmp_path)
        assert again.questions.use == QueryUse(2, 0, epsilon=pytest.approx(0.2), promised=again.questions.use.promised)
        await again.hears(ROUNDS.query, LABELS_8, second, otherwise)
        assert [report.outcome.value for report in again.said()][2:] == outcomes
        assert again.questions.use.promised == pytest.approx(0.2)
        again.close()


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
