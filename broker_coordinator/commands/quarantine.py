"""`tasks quarantine`: which updates are suspicious, and what becomes of them; and what `tasks show` says."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import msgspec

from broker_coordinator.aggregation.harm import Tempering
from broker_coordinator.aggregation.verdicts import VERSIONS_LOOKED_AT, Verdicts
from broker_coordinator.commands.output import write_rows
from broker_coordinator.storage.held_updates import (
    HeldUpdate,
    drop,
    held_updates,
    last_verdicts,
    release,
    suspected_updates,
)
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import name_of
from fleet_protocol.aggregation_plan import check_aggregation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import check_single_updates
from fleet_protocol.task_description import TaskDescription

LISTED = ("device", "sequence", "staleness", "outcome", "suspicion")
LISTED_WHERE_TEMPERED = ("device", "sequence", "version", "counts", "suspicion")


TEMPERING = "tempering: updates that are found suspicious count together as much as one device"
TO_HOLD = (
    'to have them held until you have looked at them, write action = "hold" into [aggregation.quarantine] of task.toml'
)


def add_quarantine_options(verb: argparse.ArgumentParser) -> None:
    """What may become of what is held."""
    options = verb.add_mutually_exclusive_group()
    device = name_of("device")
    options.add_argument(
        "--release", type=device, nargs="+", default=[], metavar="DEVICE", help="let what these sent count after all"
    )
    options.add_argument(
        "--drop", type=device, nargs="+", default=[], metavar="DEVICE", help="let what these sent never count"
    )


def quarantine(journal: Journal, options: argparse.Namespace) -> None:
    """Release or drop what is held of some devices, or list what is held of all, or was tempered lately.

    Raises:
        ConfigurationError: there is no such task, or nothing is held of one of the devices.
    """
    task = TaskRegistry(journal.engine).description(options.task)
    plan = task.suspects
    if plan is not None and not task.aggregation.holds and not (options.release or options.drop):
        _list_tempered(journal, task, plan.threshold, as_json=options.json)
        return
    found = _concerned(journal, options)
    off = "" if task.aggregation.holds else f", whose quarantine is {_instead(task)}"
    write_rows(
        [asdict(each) for each in found],
        LISTED,
        as_json=options.json,
        when_empty=f"nothing is held in quarantine in task {options.task}{off}",
    )


def _list_tempered(journal: JournalReader, task: TaskDescription, threshold: float, *, as_json: bool) -> None:
    """What counted less, or was let through as most devices are suspicious; the newest last."""
    found = suspected_updates(journal.engine, task.task, _left(journal, task))
    none = (
        f"no update of task {task.task} was found suspicious since the first update of the {VERSIONS_LOOKED_AT}th last"
        f" version; quarantine is {_instead(task)}"
    )
    write_rows([asdict(each) for each in found], LISTED_WHERE_TEMPERED, as_json=as_json, when_empty=none)
    if found and not as_json:
        sys.stdout.write(
            f"{TEMPERING}; {TO_HOLD}; a device that is listed again and again: look at its samples, sensor and clock;"
            " if it is hostile or broken: broker-coordinator devices revoke DEVICE --forget; if it sees what no other"
            f" sees, raise aggregation.quarantine.threshold above {threshold:g}\n"
        )


def _concerned(journal: Journal, options: argparse.Namespace) -> Sequence[HeldUpdate]:
    if options.drop:
        return drop(journal.engine, options.task, options.drop)
    if options.release:
        task = TaskRegistry(journal.engine).description(options.task)
        return release(journal.engine, options.task, options.release, task.aggregation)
    return held_updates(journal.engine, options.task)


def quarantine_shown(journal: JournalReader, task: TaskDescription) -> dict[str, object]:
    """How many updates are held, of a task that holds suspicious ones; of others, what becomes of these instead."""
    if task.aggregation.holds:
        return {"held": len(held_updates(journal.engine, task.task))}
    tempering = journal.overview.tempering(task.task)
    is_on = tempering is not None and tempering.is_on(journal.newest_number(task.task))
    found: dict[str, object] = {"quarantine": _instead(task)}
    if tempering is not None:
        found["harmed"] = _harmed(tempering, is_on=is_on)
    if task.suspects is None or not (is_on or task.suspects.action == "temper"):
        return found
    verdicts = _verdicts(journal, task)
    return found | {"suspicious_devices": f"{verdicts.suspicious} of {len(verdicts.of_devices)} that sent lately"}


def _harmed(tempering: Tempering, *, is_on: bool) -> str:
    words = (
        f"at version {tempering.since} devices found the model much worse than it was before; suspicious updates"
        f" {'are' if is_on else 'were'} tempered up to version {tempering.until}"
    )
    if tempering.rests_until is None or tempering.rests_until == tempering.until:
        return words
    return f"{words}, which did not help: all count up to version {tempering.rests_until}"


def _instead(task: TaskDescription) -> str:
    """Of a task that holds nothing: what becomes of suspicious updates, and how to have them held, or why it can't."""
    if task.suspects is not None:
        when = "" if task.suspects.action == "temper" else ", once devices find the model much worse than it was"
        return f"{TEMPERING}{when}; {TO_HOLD}"
    try:
        check_aggregation(msgspec.structs.replace(task.aggregation, quarantine=QuarantinePlan()), "task.toml")
        check_single_updates(task, "aggregation.quarantine", "task.toml")
    except ConfigurationError as error:
        return f"off, and this task can have none: {error}"
    return (
        "off: no update is held as suspicious; to have those held, write [aggregation.quarantine] into task.toml,"
        " export the bundle, and run: broker-coordinator tasks publish FOLDER"
    )


def quarantine_advice(journal: JournalReader, task: TaskDescription) -> list[str]:
    """A sentence where too many are suspicious."""
    plan = task.suspects
    if plan is None:
        return []
    verdicts = _verdicts(journal, task)
    if not verdicts.are_overrun:
        return []
    return [
        f"{verdicts.suspicious} of {len(verdicts.of_devices)} devices that sent lately are suspicious by what they"
        " sent last, which is more than half: all updates count, until half or fewer are; either what devices learn has"
        " changed, or most of them are hostile or broken: look at what they send (tasks show"
        f" {task.task}), or publish with a larger aggregation.quarantine.threshold than {plan.threshold:g}"
    ]


def _verdicts(journal: JournalReader, task: TaskDescription) -> Verdicts:
    return last_verdicts(journal.engine, task.task, _left(journal, task))


def _left(journal: JournalReader, task: TaskDescription) -> Mapping[str, int]:
    """Devices whose updates of before count no more (`Lineage`)."""
    return journal.history(task.task).lineage(journal.newest_number(task.task)).left
