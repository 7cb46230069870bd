"""Goes back to the last good version of a task where training has collapsed, with smaller steps, and says so."""

import logging

from broker_coordinator.aggregation.collapse import (
    FEWEST_UPDATES,
    VERSIONS_LOOKED_AT,
    Watch,
    evaluated_collapse,
    smaller,
)
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.replay import require_memory
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.losses import declared_losses, evaluated_losses
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing

REMEDY = (
    "lower `learning_rate`, or look for devices whose inputs are on another scale, and publish the corrected bundle"
)

logger = logging.getLogger(__name__)


class Collapses:
    """Of all tasks. `keys` open encrypted updates."""

    def __init__(self, journal: Journal, keys: KeyRing, metrics: Metrics) -> None:
        self._journal = journal
        self._versions = VersionRegistry(journal.engine)
        self._keys = keys
        self._metrics = metrics

    def watch(self, task: str, newest: int) -> Watch:
        """What is known of the last versions up to `newest`.

        Raises:
            JournalUnavailableError: the database failed.
        """
        history = self._journal.history(task)
        begun = self._continued(Watch(), task, history.first + 1, history.first + FEWEST_UPDATES)
        if begun.first is None:  # of too few devices
            begun = self._continued(Watch(), task, history.first + 1, history.first + VERSIONS_LOOKED_AT)
        since, _ = history.spans(newest)[0]
        oldest = newest - VERSIONS_LOOKED_AT - FEWEST_UPDATES  # a level looks so far back
        return self._continued(Watch(begun.first), task, max(since, oldest), newest)

    def _continued(self, watch: Watch, task: str, first: int, last: int) -> Watch:
        for number, declared in declared_losses(self._journal.engine, task, first, last).items():
            watch = watch.after(number, declared)
        return watch

    def meet(self, task: ServedTask) -> bool:
        """Restore the last good version if training has collapsed, by what devices declare or by evaluations; whether
        it was restored. Tasks are to be read again then.

        Raises:
            JournalUnavailableError: nothing was restored.
        """
        name, collapsed = task.description.task, task.newest.number
        collapse = task.watch.collapse() or evaluated_collapse(evaluated_losses(self._journal.engine, name))
        if collapse is None:
            return False
        step = smaller(task.state.step)
        try:
            require_memory(self._journal, task.description, collapse.good, lambda: self._keys)
            made = self._versions.roll_back(name, collapse.good, step)
        except ConfigurationError as error:
            logger.error(log_line("collapse_not_met", task=name, version=collapsed, error=str(error), remedy=REMEDY))
            return False
        self._metrics.count_collapse(name)
        logger.error(
            log_line(
                "training_collapsed",
                task=name,
                version=collapsed,
                loss=collapse.loss,
                lowest_loss=collapse.lowest,
                restored=collapse.good,
                restored_as=made.number,
                step=step,
                remedy=REMEDY,
            )
        )
        return True
