"""Which rounds of which queries were answered, and what that has cost of epsilon: a table of agent.db.

Days are counted from 1970. A machine that does not know the time is still on the last day that it knew: what was spent
then stays spent.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from edge_agent.core.analytics.policy import Spent
from edge_agent.core.analytics.settings import MAX_BUDGET_DAYS
from edge_agent.shell.storage.begun_queries import forget_unanswered, note_begun, read_promised, read_terms

TABLE: Final = """CREATE TABLE IF NOT EXISTS query_answers (
    number INTEGER PRIMARY KEY, query INTEGER NOT NULL, round INTEGER NOT NULL, day INTEGER NOT NULL,
    answered INTEGER NOT NULL, epsilon REAL NOT NULL
)"""

ANSWERS_KEPT = 20_000
"""Rounds that are remembered at least, and refusals that are at most: whoever asks can provoke any number of these."""
_SURPLUS: Final = """DELETE FROM query_answers WHERE number <= (SELECT MAX(number) FROM query_answers) - :kept
    AND NOT (answered AND (day >= :last OR (epsilon > 0 AND day > :last - :days)))"""


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The round of a query that was answered or refused, on which day, and what it cost. `terms` are the query's
    (`edge_agent.core.analytics.terms`), and `epsilon_of_query` is what all its rounds cost.
    """

    query: int
    round: int
    day: int
    answered: bool
    epsilon: float
    terms: bytes
    epsilon_of_query: float


def was_answered(connection: sqlite3.Connection, query: int, round_number: int) -> bool:
    """Whether it was answered, or refused."""
    found = "SELECT 1 FROM query_answers WHERE query = ? AND round = ?"
    return connection.execute(found, (query, round_number)).fetchone() is not None


def write_answer(connection: sqlite3.Connection, answer: QueryAnswer) -> None:
    """Store it, inside the transaction that is open; the oldest make room, but none that still counts against what the
    owner allows: the budget bounds how many have cost epsilon, and `queries_per_day` those of the last day.
    """
    connection.execute(
        "INSERT INTO query_answers (query, round, day, answered, epsilon) VALUES (?, ?, ?, ?, ?)",
        (answer.query, answer.round, answer.day, answer.answered, answer.epsilon),
    )
    if answer.answered:
        note_begun(connection, answer.query, answer.terms, answer.epsilon_of_query)
    surplus = {"kept": ANSWERS_KEPT, "last": _last_day(connection), "days": MAX_BUDGET_DAYS}
    if connection.execute(_SURPLUS, surplus).rowcount:
        forget_unanswered(connection)


def count_answers(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many rounds were answered, and how many refused, as far back as is remembered."""
    found = "SELECT IFNULL(SUM(answered), 0), IFNULL(SUM(NOT answered), 0) FROM query_answers"
    answered, refused = connection.execute(found).fetchone()
    return answered, refused


def read_spent(connection: sqlite3.Connection, query: int, today: int, days: int) -> Spent:
    """What answers have cost on the last so many days up to `today`, or up to the last day on which there was one, and
    what is promised to other queries than this one.
    """
    now = max(today, _last_day(connection))
    epsilon, queries = connection.execute(
        "SELECT IFNULL(SUM(epsilon), 0), COUNT(DISTINCT CASE WHEN day = ? THEN query END)"
        " FROM query_answers WHERE answered AND day > ?",
        (now, now - days),
    ).fetchone()
    rounds, of_query = connection.execute(
        "SELECT COUNT(*), IFNULL(SUM(epsilon), 0) FROM query_answers WHERE query = ? AND answered", (query,)
    ).fetchone()
    promised = read_promised(connection, query, now - days)
    return Spent(epsilon, promised, queries, rounds > 0, of_query, read_terms(connection, query))


def _last_day(connection: sqlite3.Connection) -> int:
    """On which there was an answer or a refusal."""
    return connection.execute("SELECT MAX(day) FROM query_answers").fetchone()[0] or 0
