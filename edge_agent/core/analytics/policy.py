"""Whether a device answers a query: what its owner allows, by field, by epsilon and by how often. Pure."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from edge_agent.core.analytics.settings import AnalyticsSettings, AskableField
from edge_agent.core.analytics.terms import terms_of
from fleet_protocol.analytics.answers import SEEN, WORDS, is_understood
from fleet_protocol.analytics.fields import RECEIVED_AT, UnknownFieldError, find_field, is_covered
from fleet_protocol.kinds import AnswerOutcome, Query
from fleet_protocol.task_description import TaskDescription

ROUNDING = 1e-9
"""Of epsilon, by which a sum of equal parts may be more than the whole."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Of the days that still count: epsilon of all answers, what the rounds to come of other queries that are begun
    will cost (`promised`), and how many queries were answered today. `is_begun`: an earlier round of this query was
    answered, on whichever day; `epsilon_of_query` is what those rounds have cost, and `terms` are those on which it was
    begun, empty where they are not known.
    """

    epsilon: float = 0.0
    promised: float = 0.0
    queries_today: int = 0
    is_begun: bool = False
    epsilon_of_query: float = 0.0
    terms: bytes = b""


class QueryUse(msgspec.Struct, frozen=True):
    """What a device remembers of queries, for its owner: rounds answered and refused, epsilon that counts now, and what
    is promised to rounds to come.
    """

    answered: int = 0
    refused: int = 0
    epsilon: float = 0.0
    promised: float = 0.0


def refused_unseen(query: Query, task: str, allowed: AnalyticsSettings) -> AnswerOutcome | None:
    """Why a device does not answer, where that is so whatever the task's samples are."""
    if not is_understood(query):
        return AnswerOutcome.NOT_UNDERSTOOD
    covering = _covering(query, task, allowed)
    if not all(covering):
        return AnswerOutcome.NOT_ALLOWED
    if not all(any(_bears(query, each) for each in fields) for fields in covering):
        return AnswerOutcome.NOT_PRIVATE_ENOUGH
    return AnswerOutcome.TOO_FEW_DEVICES if query.minimum_devices < allowed.minimum_devices else None


def judge(
    query: Query, task: TaskDescription, allowed: AnalyticsSettings, texts: Collection[str], spent: Spent
) -> AnswerOutcome:
    """`ANSWERED` where the device may answer this round; else why not. `texts` are the names that its owner gave."""
    if refused := refused_unseen(query, task.task, allowed):
        return refused
    if not _all_known(query, task, texts):
        return AnswerOutcome.UNKNOWN_FIELD
    if spent.terms and spent.terms != terms_of(query, task.task):
        return AnswerOutcome.CHANGED
    return _refused_for_what_is_spent(query, allowed, spent) or AnswerOutcome.ANSWERED


def fields_of(query: Query) -> Iterator[str]:
    """Every field that the query looks at, in its filter and its window too."""
    if query.field:
        yield query.field
    yield from (condition.field for condition in query.where)
    if query.since or query.until:
        yield RECEIVED_AT


def _refused_for_what_is_spent(query: Query, allowed: AnalyticsSettings, spent: Spent) -> AnswerOutcome | None:
    if not spent.is_begun and spent.queries_today >= allowed.queries_per_day:
        return AnswerOutcome.TOO_OFTEN
    if spent.epsilon_of_query + query.epsilon_of_round > query.epsilon * (1 + ROUNDING):
        return AnswerOutcome.NOT_PRIVATE_ENOUGH  # the terms on which it was begun are not known, and were others
    this_and_later_rounds = query.epsilon - spent.epsilon_of_query
    if spent.epsilon + spent.promised + this_and_later_rounds > allowed.epsilon_budget * (1 + ROUNDING):
        return AnswerOutcome.BUDGET_SPENT
    return None


def _covering(query: Query, task: str, allowed: AnalyticsSettings) -> list[list[AskableField]]:
    """What its owner says of each field that the query looks at; one empty list where it names none."""
    askable = [each for each in allowed.fields if each.task == task]
    return [[each for each in askable if is_covered(name, each.field)] for name in fields_of(query)] or [[]]


def _bears(query: Query, field: AskableField) -> bool:
    """Whether the owner allows this much to be told of the field."""
    needs_exact = query.epsilon == 0 or query.ask in SEEN
    return (field.exact or not needs_exact) and query.epsilon <= field.largest_epsilon * (1 + ROUNDING)


def _all_known(query: Query, task: TaskDescription, texts: Collection[str]) -> bool:
    try:
        places = [find_field(name, task) for name in fields_of(query)]
    except UnknownFieldError:
        return False
    if not any(place.store == "text" for place in places):
        return query.ask != WORDS
    # Words are no property of a sample: they are filtered by nothing, and nothing is filtered by them.
    return len(places) == 1 and places[0].name in texts and query.ask in SEEN
