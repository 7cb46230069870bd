"""What operators have done to tasks while the coordinator runs, and which scale a task has got: said in the log."""

import logging
from collections.abc import Mapping, Sequence

from broker_coordinator.aggregation.fleet_scale import FleetScale
from broker_coordinator.storage.stored_tasks import StoredTask
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


def say_changes(before: Mapping[str, StoredTask], now: Mapping[str, StoredTask]) -> None:
    """One line for each task that is published, renewed, removed, paused or resumed; both are by name."""
    for name, task in now.items():
        known = before.get(name)
        if task.removed:
            if known is not None and not known.removed:
                logger.info(log_line("task_removed", task=name, generation=task.generation))
        elif known is None or known.removed or known.bundle != task.bundle:
            logger.info(
                log_line(
                    "task_published",
                    task=name,
                    bundle=task.bundle[:16],
                    generation=task.generation,
                    version=task.first_version,
                )
            )
        elif known.generation != task.generation:
            logger.info(log_line("task_renewed", task=name, generation=task.generation))
        elif known.paused != task.paused:
            logger.info(log_line("task_paused", task=name, paused=task.paused))


def begun_generations(before: Mapping[str, StoredTask], now: Mapping[str, StoredTask]) -> set[str]:
    """The tasks that are in another generation than before, or were not known: devices that sleep have to be told."""
    known = {name: task.generation for name, task in before.items()}
    return {name for name, task in now.items() if known.get(name) != task.generation}


def say_scale(task: StoredTask, scale: FleetScale) -> None:
    """One line for the scale, and one for each device that has no part in it."""
    logger.info(
        log_line(
            "scale_made",
            task=task.name,
            generation=task.generation,
            devices=scale.devices,
            samples=scale.samples,
            left_out=len(scale.left_out),
        )
    )
    for device, reason in scale.left_out.items():
        logger.warning(
            log_line(
                "units_differ",
                task=task.name,
                device=device,
                reason=reason,
                remedy="correct the unit in the program that takes its samples; its samples have no part in the scale",
            )
        )


def say_constant_targets(task: str, columns: Sequence[int]) -> None:
    """One line if the fleet's samples have nothing to learn in these numbers of their labels."""
    if columns:
        logger.warning(
            log_line(
                "targets_do_not_vary",
                task=task,
                labels=",".join(map(str, columns)),
                remedy="check the program that labels samples: every device has one and the same value",
            )
        )
