"""Hears what the coordinator asks about samples, and answers each round of each query once.

The answer waits in the outbox like an update. It and what it costs are committed together, so that a device that is
killed in between neither answers twice nor forgets what it has told.
"""

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.core.analytics.policy import QueryUse, judge, refused_unseen
from edge_agent.core.analytics.settings import AnalyticsSettings
from edge_agent.core.analytics.terms import terms_of
from edge_agent.core.daily_use import DAY_SECONDS
from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.samples.field_values import field_values
from edge_agent.shell.storage.device_database import UNNUMBERED, DeviceDatabase
from edge_agent.shell.storage.query_answers import QueryAnswer
from edge_agent.sources.text_file import TextFile, read_words
from fleet_host.backoff import delay_seconds
from fleet_host.log_lines import log_line
from fleet_host.wall_clock import local_time
from fleet_protocol.analytics.answers import answered
from fleet_protocol.analytics.draws import Draws
from fleet_protocol.analytics.fields import find_field
from fleet_protocol.kinds import (
    ANALYTICS_REPORT,
    AnalyticsReport,
    AnswerOutcome,
    PayloadKind,
    Queries,
    Query,
    encode_payload,
)
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)


class Described(Protocol):
    """The versions of tasks, as far as a query needs them."""

    def description(self, task: str) -> TaskDescription | None:
        """The task's description; None until it is here."""
        ...

    async def fetch_description(self, task: str) -> None:
        """Fetch it. Raises VersionUnavailableError or LinkDownError."""
        ...


@dataclass(frozen=True, slots=True)
class AskedAbout:
    """What queries are answered from, and by which rules. `texts` are the owner's files of words."""

    allowed: AnalyticsSettings
    texts: Sequence[TextFile]
    samples: Path


class Questions:
    """`take_manifest` waits for a task's manifest, `judge` stores the samples that waited for its description,
    `address` and `sign` are as for any payload in the outbox, and `spooled` is called when one waits there.
    """

    def __init__(
        self,
        asked_about: AskedAbout,
        database: DeviceDatabase,
        versions: Described,
        *,
        take_manifest: Callable[[str], Awaitable[None]],
        judge: Callable[[TaskDescription], object],
        address: Callable[[PayloadKind], tuple[int, bytes]],
        sign: SignRow,
        spooled: Callable[[], None],
        draws: Draws | None = None,
    ) -> None:
        self._allowed = asked_about.allowed
        self._texts = {text.name: text.file for text in asked_about.texts}
        self._samples = asked_about.samples
        self._database = database
        self._versions = versions
        self._take_manifest = take_manifest
        self._judge = judge
        self._kind, self._recipient = address(ANALYTICS_REPORT)
        self._sign = sign
        self._spooled = spooled
        self._draws = draws or random.SystemRandom()
        self._open: dict[str, tuple[Query, ...]] = {}
        self._changed = asyncio.Event()

    @property
    def use(self) -> QueryUse:
        """What this device has answered, for its owner."""
        return self._database.query_use(self._today(), self._allowed.budget_days)

    def receive(self, task: str, queries: Queries) -> None:
        """Take all queries that are open about a task's samples."""
        self._open[task] = queries.asked
        self._changed.set()

    async def run(self) -> None:
        """Answer until cancelled. What can't be answered yet, as the task's description is not here, is tried again."""
        attempt = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            done = [await self._answer_all(task) for task in list(self._open)]
            attempt = 0 if all(done) else attempt + 1
            if attempt:
                await asyncio.sleep(delay_seconds(attempt, random.random()))  # noqa: S311 - jitter, not a secret
                self._changed.set()

    async def _answer_all(self, task: str) -> bool:
        """Whether every open query about a task is answered now. One that can't be holds up no other."""
        done = True
        for query in self._open[task]:
            try:
                if not self._database.was_answered(query.number, query.round):
                    await self._answer(task, query)
            except (VersionUnavailableError, LinkDownError):
                done = False
            except (sqlite3.Error, OSError) as error:
                logger.error(log_line("query_not_answered", task=task, query=query.name, error=error))
                done = False
        return done

    async def _answer(self, task: str, query: Query) -> None:
        if refused := refused_unseen(query, task, self._allowed):
            self._spool(task, query, AnalyticsReport(query.number, query.round, refused))
            return
        description = self._versions.description(task) or await self._fetched(task)
        today = self._today()
        spent = self._database.spent_on_queries(query.number, today, self._allowed.budget_days)
        outcome = judge(query, description, self._allowed, self._texts.keys(), spent)
        if outcome is not AnswerOutcome.ANSWERED:
            self._spool(task, query, AnalyticsReport(query.number, query.round, outcome))
            return
        place = find_field(query.field, description)
        if place.store == "text":
            words = await asyncio.to_thread(read_words, self._texts[place.name])
            self._spool(task, query, answered(query, (), words, self._draws))
        else:
            self._judge(description)
            values = await asyncio.to_thread(field_values, self._samples, description, query)
            self._spool(task, query, answered(query, values, (), self._draws))

    async def _fetched(self, task: str) -> TaskDescription:
        await self._take_manifest(task)
        await self._versions.fetch_description(task)
        description = self._versions.description(task)
        if description is None:
            raise VersionUnavailableError(f"{task} has no description that this release reads")
        return description

    def _spool(self, task: str, query: Query, report: AnalyticsReport) -> None:
        is_answer = report.outcome is AnswerOutcome.ANSWERED
        epsilon = query.epsilon_of_round if is_answer else 0.0
        terms = terms_of(query, task)
        answer = QueryAnswer(query.number, query.round, self._today(), is_answer, epsilon, terms, query.epsilon)
        unsigned = OutboxRow(UNNUMBERED, self._kind, task, "", 0, self._recipient, encode_payload(report))
        self._database.answer_query(answer, unsigned, self._sign)
        self._spooled()
        logger.info(
            log_line(
                "query_answered",
                task=task,
                query=query.name,
                round=query.round,
                outcome=report.outcome.value,
                epsilon=epsilon,
            )
        )

    @staticmethod
    def _today() -> int:
        """Days since 1970; 0 where the machine does not know the time."""
        return int(time.time() // DAY_SECONDS) if local_time() else 0
