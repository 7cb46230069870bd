"""Holds suspicious updates back until an operator has looked at them, or tempers them, and says so.

docs/decisions/quarantine.md
"""

import logging
from collections.abc import Mapping

import msgspec

from broker_coordinator.aggregation.harm import Tempering
from broker_coordinator.aggregation.quarantine import Suspicion
from broker_coordinator.aggregation.staleness import oldest_that_counts
from broker_coordinator.serving import judging
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.storage.held_updates import drop_outdated, hold
from broker_coordinator.storage.journal import Journal
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


class Quarantines:
    """Of all tasks. Every method raises JournalUnavailableError where the database fails; call again later."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._engine = journal.engine
        self._metrics = metrics
        self._overrun: set[str] = set()
        """Tasks of which it was said that nothing is held now."""

    def hold(self, task: ServedTask) -> bool:
        """Hold, or note, what is newly suspicious of a buffer; whether anything is, and the buffer to be looked at
        again.
        """
        if not (found := judging.suspicions(task)):
            return False
        these = [each for each in task.buffer() if each.position in found]
        changed = (judging.suspected(each, found[each.position]) for each in these)
        facts = {each.position: msgspec.to_builtins(each.facts) for each in changed if each.facts.tempered != 1.0}
        hold(self._engine, found, facts)
        judging.hold(task, found)
        self._say_found(task, {each.position: each.device for each in these}, found)
        return True

    def _say_found(self, task: ServedTask, devices: Mapping[int, str], found: Mapping[int, Suspicion]) -> None:
        name = task.description.task
        held = {position: each.reason for position, each in found.items() if each.is_held}
        self._metrics.count_held(name, len(held))
        for position, reason in held.items():
            remedy = f"look at the device; then: broker-coordinator tasks quarantine {name} --release or --drop DEVICE"
            logger.warning(log_line("update_held", task=name, device=devices[position], reason=reason, remedy=remedy))
        tempered = {position: each for position, each in found.items() if 0 < each.counts < 1}
        self._metrics.count_tempered(name, len(tempered))
        for position, each in tempered.items():
            counts, reason = f"{each.counts:.3g}", each.reason
            logger.info(log_line("update_tempered", task=name, device=devices[position], counts=counts, reason=reason))

    def version_made(self, task: ServedTask) -> None:
        """Drop what is too stale by now, and say whether anything is held from here on."""
        plan = task.description.aggregation
        if task.description.suspects is None:
            return
        name = task.description.task
        if plan.holds and (dropped := drop_outdated(self._engine, name, oldest_that_counts(plan, task.newest.number))):
            logger.warning(
                log_line("held_updates_dropped", task=name, updates=dropped, max_staleness=plan.max_staleness)
            )
        tempering = task.newest.tempering
        if tempering is not None and tempering.since == task.newest.number:
            self._say_harmed(name, tempering)
        if task.quarantine.is_overrun != (name in self._overrun):
            self._overrun ^= {name}
            self._say(task, is_overrun=task.quarantine.is_overrun)

    def _say_harmed(self, name: str, tempering: Tempering) -> None:
        logger.warning(
            log_line(
                "devices_harmed",
                task=name,
                version=tempering.since,
                until=tempering.until,
                remedy="suspicious updates are tempered until then; look at the devices that update_tempered names, or"
                f" at what changed for all: broker-coordinator tasks show {name}",
            )
        )

    def _say(self, task: ServedTask, *, is_overrun: bool) -> None:
        name = task.description.task
        if not is_overrun:
            logger.info(log_line("quarantine_resumed", task=name))
            return
        verdicts = task.quarantine.verdicts
        logger.warning(
            log_line(
                "quarantine_overrun",
                task=name,
                suspicious=verdicts.suspicious,
                looked_at=len(verdicts.of_devices),
                remedy="all count until half of these devices or fewer are suspicious; look at what devices send, and"
                f" at their data: broker-coordinator tasks show {name}; else raise aggregation.quarantine.threshold",
            )
        )
