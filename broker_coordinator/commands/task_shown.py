"""What operators are shown of a task: `tasks list`, `tasks show`, and the dashboard."""

from dataclasses import asdict

from broker_coordinator.commands.advice import advice
from broker_coordinator.commands.cohorts_shown import cohorts_shown
from broker_coordinator.commands.gossip_told import gossip_advice, gossip_told
from broker_coordinator.commands.personal_told import personal_told
from broker_coordinator.commands.privacy_told import device_privacy_told, noise_shares_told, privacy_told
from broker_coordinator.commands.quarantine import quarantine_advice, quarantine_shown
from broker_coordinator.commands.scale import scale_shown
from broker_coordinator.commands.variety_shown import variety_shown
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import PayloadSetAside, VersionSummary
from broker_coordinator.storage.restores import last_restore
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.kinds import KINDS

OUTCOMES_LOOKED_AT = 100
"""Of the last updates, for `advice`."""

VERSIONS_LOOKED_AT = 20
"""Of the last versions, for `advice`: those that are listed may be fewer, or more."""


def task_row(task: StoredTask, journal: JournalReader) -> dict[str, object]:
    """How a task stands, in one row.

    Raises:
        JournalUnavailableError: the database fails.
    """
    accepted, waiting = journal.overview.update_counts(task.name)
    return {
        "task": task.name,
        "bundle": task.bundle,
        "paused": task.paused,
        "generation": task.generation,
        "version": journal.newest_number(task.name),
        "accepted": accepted,
        "waiting": waiting,
        "set_aside": journal.overview.set_aside_count(task.name),
    }


def task_shown(journal: JournalReader, name: str, last: int) -> dict[str, object]:
    """The row, what the task promises and has told, advice, and the `last` versions and payloads that were set aside.

    Raises:
        ConfigurationError: there is no such task.
        JournalUnavailableError: the database fails.
    """
    registry = TaskRegistry(journal.engine)
    task = registry.task(name)
    row = task_row(task, journal)
    if task.solved_last is not None:
        row["refined_from"] = task.solved_last
    description = registry.description(name)
    row |= scale_shown(journal.engine, description)
    row |= personal_told(description)
    if (plan := description.selection) is not None:
        row["selection"] = f"{plan.method}: {plan.share:g} of the devices train for a version"
    row |= gossip_told(journal.engine, description) or quarantine_shown(journal, description)
    row |= privacy_told(journal.overview, description)
    row |= device_privacy_told(journal, description)
    row |= noise_shares_told(journal.overview, description)
    row |= cohorts_shown(journal.engine, description)
    looked_at = journal.overview.version_summaries(name, max(last, VERSIONS_LOOKED_AT))
    summaries = looked_at[max(0, len(looked_at) - last) :]
    outcomes = journal.overview.last_outcomes(name, OUTCOMES_LOOKED_AT)
    begun = max([task.first_version, *journal.history(name).rollbacks])
    drawn = variety_shown(journal.engine, description, begun)
    since = [each for each in looked_at[-VERSIONS_LOOKED_AT:] if each.number >= begun]
    restored, collapse = last_restore(journal.engine), journal.overview.last_collapse(name)
    words = [*advice(since, *outcomes, restored, collapse), *drawn.advice]
    words += [*quarantine_advice(journal, description), *gossip_advice(journal.engine, description)]
    set_aside = [_set_aside(each) for each in journal.overview.payloads_set_aside(name, last)]
    listed = {"last_set_aside": set_aside, "versions": [version_row(each) for each in summaries]}
    return row | {"advice": words} | drawn.field | listed


def version_row(summary: VersionSummary) -> dict[str, object]:
    """A version, in one row."""
    return {
        "number": summary.number,
        "updates": summary.updates,
        "mean_loss": summary.mean_loss,
        "mean_staleness": summary.mean_staleness,
        "restored": summary.restored,
        "given": summary.given,
        "with_forgotten": ", ".join(summary.with_forgotten),
        "step": summary.step,
        "kept": summary.kept,
        "weights": summary.weights_hash,
        "evaluation": summary.evaluation and asdict(summary.evaluation),
    }


def _set_aside(payload: PayloadSetAside) -> dict[str, object]:
    kind = KINDS.get(payload.kind)
    return asdict(payload) | {"kind": kind.name if kind else payload.kind}
