"""What a soak has to show at its end: the devices' databases, the journal and the versions agree."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.server_step import initial_state, next_state
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import JournalledPayload
from edge_agent.producers.update import returned_update
from edge_agent.training.compression import remember
from edge_agent.training.feedback import ErrorFeedback
from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES
from fleet_protocol.task_description import TaskDescription
from tests.soak.fleet import TASK, Fleet, SoakAgent
from tests.support.replay import versions_replayed
from workbench.demo.audit import audit


@dataclass(frozen=True, slots=True)
class Verdict:
    """`estimates_equal` is None where the strategy keeps none."""

    updates: int
    rejected: int
    versions: int
    lost: int
    duplicated: int
    undelivered: int
    replay_equal: bool
    estimates_equal: bool | None
    problems: list[str]


def judge(fleet: Fleet) -> Verdict:
    """Look at everything. Only once all agents and the coordinator have ended."""
    problems: list[str] = []
    keeps_estimates = fleet.bundle.description.aggregation.strategy in KEEPS_ESTIMATES
    with fleet.coordinator.journal() as journal:
        rows = list(journal.updates(TASK))
        found = audit({agent.name: agent.ledger() for agent in fleet.agents}, rows)
        newest = journal.newest_number(TASK)
        try:
            compared = versions_replayed(journal, TASK)
            if compared != newest:
                problems.append(f"{compared} of {newest} versions could be compared")
        except AssertionError as error:
            problems.append(f"replay: {error}")
        replay_equal = not problems
        _count_versions(fleet, rows, newest, problems)
        estimates_equal = _compare_estimates(fleet, journal, problems) if keeps_estimates else None
    counts = {"lost": found.lost, "applied twice": found.duplicated, "not delivered": found.waiting}
    problems += [f"{count} updates {what}" for what, count in counts.items() if count]
    return Verdict(
        updates=len(rows),
        rejected=found.rejected,
        versions=newest,
        lost=found.lost,
        duplicated=found.duplicated,
        undelivered=found.waiting,
        replay_equal=replay_equal,
        estimates_equal=estimates_equal,
        problems=problems,
    )


def _count_versions(fleet: Fleet, rows: Sequence[JournalledPayload], newest: int, problems: list[str]) -> None:
    """Each version holds a full buffer, and too few updates for another one wait."""
    buffer = fleet.bundle.description.aggregation.smallest_buffer
    counted = [row for row in rows if row.set_aside is None]
    held = Counter(row.aggregate for row in counted if row.aggregate is not None)
    if newest != len(counted) // buffer or held != dict.fromkeys(range(1, newest + 1), buffer):
        problems.append(f"{len(counted)} updates should make {len(counted) // buffer} versions, there are {newest}")


def _compare_estimates(fleet: Fleet, journal: JournalReader, problems: list[str]) -> bool:
    """With these both sides keep a sum of what was applied: equal, bit for bit, once nothing is on its way."""
    description = fleet.bundle.description
    updates = (row.item(description, ()) for row in journal.updates(TASK))
    plan, nothing = description.aggregation, np.zeros(description.version.size, np.float32)
    estimates = next_state(initial_state(nothing, plan), list(updates), plan).remembered
    unequal = []
    for agent in fleet.agents:
        believed, held = _device_memory(agent, description), estimates.get(agent.name)
        if held is None or held.lives != (believed.life,) or held.delta.tobytes() != believed.state()[8:]:
            unequal.append(agent.name)
    if unequal:
        problems.append(f"the estimates of {', '.join(unequal)} differ from the coordinator's")
    return not unequal


def _device_memory(agent: SoakAgent, description: TaskDescription) -> ErrorFeedback:
    """What it counts as applied, without rejected updates that no round has taken back yet."""
    with closing(sqlite3.connect(agent.folder / "state" / "agent.db")) as connection:
        (state,) = connection.execute("SELECT residual FROM tasks WHERE task = ?", (TASK,)).fetchone()
        returned = connection.execute("SELECT payload FROM outbox WHERE returned AND task = ?", (TASK,)).fetchall()
    return remember(description, state, [returned_update(payload) for (payload,) in returned], life=0)
