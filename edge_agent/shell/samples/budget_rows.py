"""The budgets that samples in `samples.db` name, and how many of them rest."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from edge_agent.core.budget_rules import SpentBudget, rests
from edge_agent.worker.usable_samples import BUDGETS_OF_TASK, FIRST_NUMBERS_OF_TASK


def name_budget(connection: sqlite3.Connection, sample: int, budget: str) -> None:
    """Note the budget that a sample has come with, inside the transaction that is open."""
    if budget:
        connection.execute("INSERT INTO budgets VALUES (?, ?)", (sample, budget))


def count_resting(connection: sqlite3.Connection, task: str, budgets: Sequence[SpentBudget]) -> Counter[str]:
    """How many samples of a task take no part, by the name of the first budget that keeps them."""
    named = dict(connection.execute(BUDGETS_OF_TASK, (task,)))
    counted: Counter[str] = Counter()
    if not (budgets or named):
        return counted
    first = dict(connection.execute(FIRST_NUMBERS_OF_TASK, (task,)))
    query = "SELECT id, CASE typeof(label) WHEN 'integer' THEN label END FROM samples WHERE task = ?"
    for sample, label in connection.execute(query, (task,)):
        name, charged = named.get(sample, ""), first.get(sample, sample)
        if rests(budgets, charged, name, label):
            why = (budget.name for budget in budgets if budget.rests(charged, name, label))
            counted[next(why, name)] += 1
    return counted
