"""Says when devices know a later version or generation than the database, which must then be older than they are.

At the start the broker tells it, and a new generation begins by itself (`manifest_watch`). Where the broker has lost
its messages too, an operator has to say so. A device may lie: this is only shown, and a number stands in the command
only where it costs few generations if it is a lie.
"""

import logging
from collections.abc import Iterable, Mapping

from broker_coordinator.admission.decisions import Decision, FileRequested, Refused
from broker_coordinator.admission.fleet_view import TaskProgress
from fleet_host.log_lines import log_line
from fleet_protocol.errors import Reason
from fleet_protocol.limits import MAX_NAMED_GENERATION
from fleet_protocol.topics import PackedWeights

logger = logging.getLogger(__name__)

MAX_LOST_GENERATIONS = 1000
"""A database does not lack more in earnest: one for each restored backup or changed bundle."""

Known = tuple[str, str | None, int | None, int]
"""A task, the device that says so, the generation that it names, if it names one, and the version."""


class LostVersions:
    """One line for each task and generation of it; another where what a device claims can't be believed."""

    def __init__(self) -> None:
        self._said: set[tuple[str, int, bool]] = set()

    def look_at(self, decisions: Iterable[Decision], tasks: Mapping[str, TaskProgress]) -> None:
        """Take note of decided messages; `tasks` is how the tasks are."""
        for decision in decisions:
            if isinstance(decision, Refused | FileRequested) and (known := _known(decision)) is not None:
                own = tasks.get(known[0])
                if own is not None and _is_later(known, own):
                    self._say_once(known, own)

    def _say_once(self, known: Known, own: TaskProgress) -> None:
        task, _, generation, _ = known
        believed = generation is None or generation <= min(own.generation + MAX_LOST_GENERATIONS, MAX_NAMED_GENERATION)
        if (task, own.generation, believed) in self._said:
            return
        self._said.add((task, own.generation, believed))
        if believed:
            _say_behind(known, own)
        else:
            _say_not_believed(known, own)


def _known(decision: Refused | FileRequested) -> Known | None:
    if isinstance(decision, Refused):
        if decision.header is None or decision.reason not in (Reason.UNKNOWN_VERSION, Reason.OLD_GENERATION):
            return None
        header = decision.header
        return header.task, decision.device, header.generation, header.base_version
    wanted = decision.wanted
    return (wanted.task, decision.device.name, None, wanted.version) if isinstance(wanted, PackedWeights) else None


def _is_later(known: Known, own: TaskProgress) -> bool:
    _, _, generation, version = known
    return (own.generation if generation is None else generation, version) > (own.generation, own.version)


def _say_behind(known: Known, own: TaskProgress) -> None:
    task, device, generation, version = known
    after = "" if generation is None or generation <= own.generation else f" --after-generation {generation}"
    logger.warning(
        log_line(
            "database_behind_devices",
            task=task,
            device=device,
            device_claims_generation=generation,
            device_claims_version=version,
            generation=own.generation,
            version=own.version,
            remedy="if the database was restored or made anew, run:"
            f" broker-coordinator tasks renew {task}{after}; else look at that device",
        )
    )


def _say_not_believed(known: Known, own: TaskProgress) -> None:
    task, device, generation, _ = known
    logger.warning(
        log_line(
            "generation_not_believed",
            task=task,
            device=device,
            device_claims_generation=generation,
            generation=own.generation,
            remedy="look at that device, and revoke it if it lies; if the database was made anew, the log of a device"
            " that you trust names the generation to renew after (old_manifest_ignored)",
        )
    )
