"""Asks devices what operators want to know of their samples: publishes open queries, and begins their next rounds.

What it knows is in the database, which `analytics publish` and `analytics stop` change beside it. Reports come in
through the intake, like any payload.
"""

import logging
import time
from collections.abc import Callable

from broker_coordinator.aggregation.analytics.rounds import is_over, next_round
from broker_coordinator.aggregation.analytics.stored_query import QueryState
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.announcements import Announcements
from broker_coordinator.storage.change_counters import QUERIES, read_change_counters
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.query_registry import QueryRegistry, RegisteredQuery
from fleet_host.log_lines import log_line
from fleet_protocol.kinds import Queries

LOOK_SECONDS = 1.0
"""Between two looks at whether a round of several is over: each counts the devices that have reported."""

logger = logging.getLogger(__name__)


class QueryRounds:
    """`clock` tells seconds since 1970: a round that lasts days outlives the process.

    Raises:
        JournalUnavailableError: the database can't be read.
    """

    def __init__(self, journal: Journal, signer: MessageSigner, clock: Callable[[], float] = time.time) -> None:
        self._engine = journal.engine
        self._registry = QueryRegistry(journal.engine)
        self._devices = DeviceRegistry(journal.engine)
        self._helpers = HelperRegistry(journal.engine)
        self._signer = signer
        self._clock = clock
        self._announcements = Announcements()
        self._counter = -1
        self._queries: list[RegisteredQuery] = []
        self._messages: dict[str, Queries] = {}
        self._look_at = 0.0
        self._load_if_changed()

    def advance(self, now: float) -> None:
        """Take in what operators have changed, and begin every round that is due; `now` as in `publications`.

        Raises:
            JournalUnavailableError: call again later; what was committed before stands.
        """
        self._load_if_changed()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        for registered in self._in_rounds():
            try:
                self._look_at_round(registered)
            except JournalUnavailableError:
                raise
            except Exception:  # a defect that one query brings out must not stop the rest
                self._registry.close(registered)
                remedy = "see the journal's rows of the query, and publish it again"
                logger.exception(log_line("query_failed", query=registered.query.name, remedy=remedy))
        self._load_if_changed()

    def announce(self) -> None:
        """Publish what is asked of every task next: the broker may have lost it."""
        for task in self._messages:
            self._announcements.announce(task)

    def repeat(self, now: float) -> None:
        """Publish it again, soon, for a device that has just come."""
        self._announcements.repeat(self._messages, now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` of the messages that are to be published now, in seconds on any one clock."""
        taken: list[Publication] = []
        while len(taken) < limit and (task := self._announcements.next_name(now)) is not None:
            if message := self._messages.get(task):  # none where another database has taken the place of this one
                taken.append(self._signer.queries(task, message))
            self._announcements.done(task, now)
        return taken

    def next_due(self) -> float | None:
        """When `advance` or `publications` will next have something to look at, or None."""
        looks = [self._look_at] if self._in_rounds() else []
        return min((due for due in (self._announcements.next_due(), *looks) if due is not None), default=None)

    def _in_rounds(self) -> list[RegisteredQuery]:
        """Those that go on by themselves."""
        return [each for each in self._queries if each.state is QueryState.OPEN and each.query.rounds > 1]

    def _look_at_round(self, registered: RegisteredQuery) -> None:
        stored, lasted = registered.stored, self._clock() - registered.round_begun
        fleet = len(self._devices.approved_presences().keys() - set(self._helpers.allowed()))
        reported = self._registry.reported(registered)
        if not is_over(stored, reported, reported, fleet, lasted):  # even if nobody refused: no need to read answers
            return
        answers = self._registry.answers(registered)
        if not is_over(stored, len(answers.answered), reported, fleet, lasted):
            return
        after, follows = next_round(stored, answers)
        self._registry.go_on(registered, after, follows=follows, now=int(self._clock()))
        logger.info(
            log_line(
                "query_round_over",
                task=registered.task,
                query=registered.query.name,
                round=registered.query.round,
                devices=len(answers.answered),
                refused=sum(answers.refusals.values()),
                goes_on=follows,
            )
        )

    def _load_if_changed(self) -> None:
        counter = read_change_counters(self._engine).get(QUERIES, 0)
        if counter == self._counter:
            return
        self._queries = self._registry.all()
        found = {task: Queries(tuple(by_number.values())) for task, by_number in self._registry.asked().items()}
        for task, message in found.items():
            if self._messages.get(task) != message:
                self._announcements.announce(task)
        self._messages, self._counter = found, counter
