"""Sets aside journalled payloads that can't be applied, or stops what is made of a kind where no payload is to blame.

An error is a payload's own if others pass where it fails: those that wait with it, or else the newest one that was
applied before. Where nothing was applied yet, one device's failures are its own, those of several devices are ours. So
one device can't stop a task, and a defect of ours can't empty the journal. docs/decisions/set-aside.md says more.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker_coordinator.serving.culprits import culprits, is_of_one_payload
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.served_aggregate import ServedAggregate
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.records import JournalledPayload
from fleet_host.log_lines import log_line
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import KINDS
from fleet_protocol.printable import printable
from fleet_protocol.task_description import TaskDescription

MAX_REASON_CHARACTERS = 300
"""Of what the journal and the log say of a payload that is set aside."""

Place = tuple[str, int]
"""A task, and the number of a kind."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A payload that can't be applied. `is_damaged`: its bytes are not those that were admitted."""

    position: int
    device: str
    sequence: int
    error: Exception
    is_damaged: bool = False

    @classmethod
    def of(cls, row: JournalledPayload, error: Exception) -> "Failure":
        """That of a row of the journal."""
        return cls(row.position, row.device, row.sequence, error, not row.is_as_admitted())

    @property
    def reason(self) -> str:
        """The error in words."""
        damage = "its bytes are not those that were admitted: " if self.is_damaged else ""
        return reason_of(self.error, damage)


class SetAside:
    """What can't be applied, for all tasks. `keys` open encrypted payloads."""

    def __init__(self, journal: Journal, keys: KeyRing, metrics: Metrics) -> None:
        self._journal = journal
        self._keys = keys
        self._metrics = metrics
        self._stopped: set[Place] = set()

    def try_all_again(self) -> None:
        """Forget what is stopped."""
        for task, _ in self._stopped:
            self._metrics.show_stopped(task, stopped=False)
        self._stopped.clear()

    def is_stopped(self, place: Place) -> bool:
        """Whether nothing is made of this kind of this task until the tasks are read again."""
        return place in self._stopped

    def stop(self, place: Place, error: Exception) -> None:
        """Make nothing more of a kind of a task, and say so."""
        self._stopped.add(place)
        task, kind = place
        self._metrics.show_stopped(task, stopped=True)
        logger.error(
            log_line(
                "versions_stopped",
                task=task,
                kind=KINDS[kind].name,
                error=reason_of(error),
                remedy="correct what `error` says and start again, or roll the task back; else report it",
            ),
            exc_info=error if is_of_one_payload(error) else None,
        )

    def unread(self, place: Place, failures: Sequence[Failure], passed: int, task: TaskDescription) -> None:
        """Payloads of which no item could be made, while `passed` others of the same kind gave theirs.

        Raises:
            JournalUnavailableError: nothing was set aside.
        """
        blamed = [each for each in failures if each.is_damaged]
        others = [each for each in failures if not each.is_damaged]
        ours = [each.error for each in others if not is_of_one_payload(each.error)]
        if ours:
            self.stop(place, ours[0])
        elif others and not passed and not self._are_their_own(place, others, lambda row: row.item(task, self._keys)):
            self.stop(place, others[0].error)
        else:
            blamed = list(failures)
        self._commit(place, blamed)

    def unmade(self, served: ServedTask | ServedAggregate, error: Exception) -> None:
        """The buffer of `served` gave `error` where its aggregate should be made.

        Raises:
            JournalUnavailableError: nothing was set aside.
        """
        place = place_of(served)
        buffer = served.buffer()
        task, consumer = served.description, served.consumer

        def fails(items: Sequence[Any]) -> Mapping[int, Exception]:
            return culprits(consumer, served.state, items, task, served.check)

        def apply(row: JournalledPayload) -> None:
            for found in fails([row.item(task, self._keys)]).values():
                raise found

        try:
            found = fails([waiting.item for waiting in buffer]) if is_of_one_payload(error) else {}
        except Exception as of_no_payload:
            self.stop(place, of_no_payload)
            return
        errors = {buffer[index].position: each for index, each in found.items()}
        rows = self._journal.at_positions(list(errors))
        failures = [Failure.of(row, errors[row.position]) for row in rows]
        if not failures or (len(failures) == len(buffer) and not self._are_their_own(place, failures, apply)):
            self.stop(place, error)
            return
        self._commit(place, failures)
        served.drop(errors)

    def out_of_turn(self, served: ServedTask, reasons: Mapping[int, str]) -> None:
        """Set aside what must not count in the next version, by position.

        Raises:
            JournalUnavailableError: nothing was set aside.
        """
        self._journal.set_aside(reasons)
        self._metrics.count_set_aside(served.description.task, len(reasons))
        for reason in reasons.values():
            logger.warning(log_line("update_out_of_turn", task=served.description.task, reason=reason))
        served.drop(reasons)

    def _are_their_own(
        self, place: Place, failures: Sequence[Failure], apply: Callable[[JournalledPayload], object]
    ) -> bool:
        """Whether payloads of which none passes are to blame themselves."""
        applied_before = self._journal.newest_applied(*place)
        if applied_before is None or not applied_before.is_as_admitted():
            return len({each.device for each in failures}) == 1
        try:
            apply(applied_before)
        except Exception:
            return False
        return True

    def _commit(self, place: Place, failures: Sequence[Failure]) -> None:
        if not failures:
            return
        self._journal.set_aside({each.position: each.reason for each in failures})
        self._metrics.count_set_aside(place[0], len(failures))
        for each in failures:
            logger.error(
                log_line(
                    "payload_set_aside",
                    task=place[0],
                    kind=KINDS[place[1]].name,
                    device=each.device,
                    sequence=each.sequence,
                    reason=each.reason,
                    remedy="restore the database if it is damaged; else report it, and look at the device",
                )
            )


def place_of(served: ServedTask | ServedAggregate) -> Place:
    """The task and the kind that are served."""
    return served.description.task, served.consumer.kind.number


def reason_of(error: Exception, before: str = "") -> str:
    """An error in words that fit a log and the journal."""
    text = f"{before}{type(error).__name__}: {error}"
    return printable(text)[:MAX_REASON_CHARACTERS]
